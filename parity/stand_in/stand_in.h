/* What every library of the stand-in GPU shares: counters of calls by name, and the kinds of functions that do nothing
   else. counts.py reads the counters in the running process. */
#include <stdlib.h>

struct counter {
  const char *name;
  long calls;
} __attribute__((aligned(16)));

#define COUNT(label)                                                                        \
  do {                                                                                      \
    static struct counter counter __attribute__((section("counters"), used)) = {label, 0};  \
    __atomic_fetch_add(&counter.calls, 1, __ATOMIC_RELAXED);                                \
  } while (0)

#define SUCCEEDS(name, label) \
  long name(void) {           \
    COUNT(label);             \
    return 0;                 \
  }

/* The handle of something new, as wide as the descriptors of cudnn.c. */
#define CREATES(name, label)    \
  int name(void **handle) {     \
    COUNT(label);               \
    *handle = calloc(1, 512);   \
    return *handle ? 0 : 2;     \
  }

#define DESTROYS(name, label) \
  int name(void *handle) {    \
    COUNT(label);             \
    free(handle);             \
    return 0;                 \
  }

/* A comparison. A single one is true, as a compiled `if` takes nothing but 0 and 1 and new memory may hold anything. */
#define COMPARES(name, label)                                                                                         \
  int name(long broadcast, void *left_shape, void *right_shape, void *shape, void *left, void *right, char *output) { \
    COUNT(label);                                                                                                     \
    *output = 1;                                                                                                      \
    return 0;                                                                                                         \
  }

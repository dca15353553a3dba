/* What every library of a stand-in shares: counters of calls by name, and the kinds of functions that do nothing else.
   counts.py reads the counters in the running process. */
#pragma once
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

struct counter {
  const char *name;
  long calls;
} __attribute__((aligned(16)));

/* Counts a call whose name is known only when it is made. Of one that is made often, keep where it is counted. */
void stand_in_count(const char *name);
long *stand_in_counter(const char *name);
static inline void add_call(long *calls) { __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED); }

/* Ends the process with the name, if values are computed (values.h). */
void stand_in_unknown(const char *name);

#ifdef __cplusplus
}
#endif

#define COUNT(label)                                                                        \
  do {                                                                                      \
    static struct counter counter __attribute__((section("counters"), used)) = {label, 0};  \
    add_call(&counter.calls);                                                               \
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

/* What puts a computation on the device that is not defined here. */
#define UNKNOWN(name, label)  \
  long name(void) {           \
    COUNT(label);             \
    stand_in_unknown(label);  \
    return 0;                 \
  }

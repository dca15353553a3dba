/* Makes a library of functions that tell the driver their tensors and go on in LAUNCHER, which has them all. They are
   what MindSpore calls for an own operator (`ops.Custom(func_type="aot")`). */
#pragma once
#include <dlfcn.h>
#include <stdint.h>

typedef int (*Operator)(int, void **, int *, int64_t **, const char **, void *, void *);
typedef void (*Tell)(int, void *const *, const int *, int64_t *const *, const char *const *);

static inline void *function_of(const char *library, const char *name) {
  return dlsym(dlopen(library, RTLD_NOW), name);
}

#define TELLS(name)                                                                                          \
  int name(int count, void **data, int *ranks, int64_t **shapes, const char **types, void *stream, void *x) { \
    ((Tell)function_of("libcuda.so.1", "stand_in_tensors"))(count, data, ranks, shapes, types);              \
    return ((Operator)function_of(LAUNCHER, #name))(count, data, ranks, shapes, types, stream, x);           \
  }

void use_code(const char *file) { ((void (*)(const char *))function_of(LAUNCHER, "use_code"))(file); }
int declare(const char *name, int count, const double *numbers) {
  return ((int (*)(const char *, int, const double *))function_of(LAUNCHER, "declare"))(name, count, numbers);
}

/* Loads the kernels once a context and launches them. CUDA's driver is called through the library that the process has
   loaded, so no CUDA header is needed. MindSpore calls an operator by a function's name, without numbers: each operator
   with its numbers has a slot, whose function is operator_000 ... operator_999. */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "launcher.h"

enum { NO_DRIVER = 1, NO_CODE, NO_MEMORY };
#define CONTEXTS 8

static char *path; /* of the compiled kernels */
static struct {
  void *context, *module;
} loaded[CONTEXTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
  int (*context)(void **);
  int (*load)(void **, const void *);
  int (*function)(void **, void *, const char *);
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
  int (*error)(int, const char **);
} driver;

/* The digest of the sources that it was built from, if setup.py has built it. */
#ifndef SOURCES
#define SOURCES ""
#endif
EXPORTED const char *built_from(void) { return SOURCES; }

/* Launch the kernels of a file from now on. */
EXPORTED void use_code(const char *file) {
  free(path);
  path = strdup(file);
  memset(loaded, 0, sizeof loaded);
}

static int fails(const char *kernel, const char *step, int code) {
  const char *name = 0;
  if (driver.error) driver.error(code, &name);
  fprintf(stderr, "ms_vireid: kernel %s: %s fails (%s %d)\n", kernel, step, name ? name : "error", code);
  return code;
}

static int ask_driver(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (!library) return NO_DRIVER;
  *(void **)&driver.context = dlsym(library, "cuCtxGetCurrent");
  *(void **)&driver.load = dlsym(library, "cuModuleLoadData");
  *(void **)&driver.function = dlsym(library, "cuModuleGetFunction");
  *(void **)&driver.launch = dlsym(library, "cuLaunchKernel");
  *(void **)&driver.error = dlsym(library, "cuGetErrorName");
  return driver.context && driver.load && driver.function && driver.launch ? 0 : NO_DRIVER;
}

static int load_code(void **module) {
  FILE *file = path ? fopen(path, "rb") : 0;
  if (!file) return NO_CODE;
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *code = malloc(size + 1);
  int status = !code ? NO_MEMORY : fread(code, 1, size, file) != (size_t)size ? NO_CODE : 0;
  fclose(file);
  if (!status) {
    code[size] = 0;
    status = driver.load(module, code);
  }
  free(code);
  return status;
}

/* The module of the current context, loaded at its first use. */
static int find_module(void **module) {
  void *context = 0;
  int status = driver.launch ? 0 : ask_driver();
  if (status || (status = driver.context(&context))) return status;
  int i = 0;
  while (i < CONTEXTS && loaded[i].module && loaded[i].context != context) i++;
  if (i == CONTEXTS) return NO_MEMORY;
  if (!loaded[i].module) {
    if ((status = load_code(&loaded[i].module))) return status;
    loaded[i].context = context;
  }
  *module = loaded[i].module;
  return 0;
}

int launch(const char *name, unsigned x, unsigned y, const void *arguments, void *stream) {
  void *module = 0, *function = 0, *all[] = {(void *)arguments};
  pthread_mutex_lock(&lock);
  int status = find_module(&module);
  pthread_mutex_unlock(&lock);
  if (status) return fails(name, "loading it", status);
  if ((status = driver.function(&function, module, name))) return fails(name, "finding it", status);
  if ((status = driver.launch(function, x, y, 1, LANES, ROWS, 1, 0, stream, all, 0)))
    return fails(name, "launching it", status);
  return 0;
}

/* Print what is wrong, and all tensors of the call. */
int refuse(Call *call, const char *problem) {
  if (call->status) return call->status;
  fprintf(stderr, "ms_vireid: operator %s: %s; its tensors:", call->name, problem);
  for (int place = 0; place < call->count; place++) {
    fprintf(stderr, " %s[", call->types[place]);
    for (int i = 0; i < call->ranks[place]; i++)
      fprintf(stderr, "%s%lld", i ? "," : "", (long long)call->shapes[place][i]);
    fprintf(stderr, "]");
  }
  fprintf(stderr, "\n");
  return call->status = REFUSED;
}

static void require(Call *call, int holds) {
  if (holds) return;
  char problem[256];
  snprintf(problem, sizeof problem, "tensor %d is not %s", call->place, call->declared);
  refuse(call, problem);
}

void expect(Call *call, int number, int more) {
  call->extra = call->count - number;
  if (more ? call->extra >= 1 : !call->extra) return;
  char problem[64];
  snprintf(problem, sizeof problem, "it takes %s%d tensors, not %d", more ? "more than " : "", number, call->count);
  refuse(call, problem);
}

static int has_type(Call *call, int place, const char *type) {
  const char *actual = call->types[place];
  int any = !strcmp(type, "T");
  if (any && !call->type && (!strcmp(actual, "float32") || !strcmp(actual, "float16"))) call->type = actual;
  return any ? call->type && !strcmp(actual, call->type) : !strcmp(actual, type);
}

void *take(Call *call, const char *declared, const char *type, int rank, int leading, int optional) {
  if (call->status) return 0;
  int place = call->place++, actual = call->ranks[place];
  call->declared = optional && !strcmp(call->types[place], "int8") ? 0 : declared;
  if (!call->declared) return 0;
  require(call, has_type(call, place, type) && (leading ? actual >= rank : actual == rank));
  return call->data[place];
}

Tensors take_any(Call *call, const char *declared, const char *type, int number) {
  int place = call->place;
  call->declared = declared;
  for (int i = 0; i < number && !call->status; i++) require(call, has_type(call, call->place++, type));
  if (call->status) return (Tensors){0};
  int half = !strcmp(call->types[place], "float16");
  return (Tensors){number, call->data + place, call->ranks + place, call->shapes + place, half};
}

static int64_t length(const Call *call, int from_end) {
  int place = call->place - 1;
  return call->shapes[place][call->ranks[place] - from_end];
}

static void compare(Call *call, int64_t found, int *size) {
  require(call, found > 0 && found <= INT_MAX && (*size == UNKNOWN || *size == found));
  *size = found > 0 ? found : UNKNOWN;
}

void leading(Call *call, int rank, int *size) {
  if (call->status || !call->declared) return;
  int64_t product = 1;
  for (int i = call->ranks[call->place - 1]; i > rank; i--) product *= length(call, i);
  compare(call, product, size);
}

void dimension(Call *call, int from_end, int *size) {
  if (!call->status && call->declared) compare(call, length(call, from_end), size);
}

void equals(Call *call, int from_end, int64_t size) {
  if (!call->status && call->declared) require(call, length(call, from_end) == size);
}

#define SLOTS 1000
#define MOST_NUMBERS 192
static struct {
  const Operator *operator;
  double numbers[MOST_NUMBERS];
} slots[SLOTS];
static int slots_taken;

static int slot_of(const Operator *operator, int count, const double *numbers) {
  int slot = 0;
  while (slot < slots_taken &&
         (slots[slot].operator != operator || memcmp(slots[slot].numbers, numbers, count * sizeof *numbers)))
    slot++;
  if (slot == SLOTS) return UNKNOWN;
  if (slot == slots_taken) {
    slots_taken++;
    slots[slot].operator = operator;
    memcpy(slots[slot].numbers, numbers, count * sizeof *numbers);
  }
  return slot;
}

/* The slot of an operator with these numbers, the same at each call; UNKNOWN if all are taken, REFUSED if there is no
   such operator. */
EXPORTED int declare(const char *name, int count, const double *numbers) {
  const Operator *operator = operators;
  while (operator->name && strcmp(operator->name, name)) operator++;
  if (!operator->name || count > MOST_NUMBERS) return REFUSED;
  pthread_mutex_lock(&lock);
  int slot = slot_of(operator, count, numbers);
  pthread_mutex_unlock(&lock);
  return slot;
}

static int run(int slot, ARGUMENTS) {
  const Operator *operator = slots[slot].operator;
  Call call = {operator->name, count, data, ranks, shapes, types, stream};
  return operator->run(&call, slots[slot].numbers);
}
#define SLOT(n) \
  EXPORTED int operator_##n(ARGUMENTS) { return run(1##n - 1000, count, data, ranks, shapes, types, stream, unused); }
#define FIVE(n, a, b, c, d, e) SLOT(n##a) SLOT(n##b) SLOT(n##c) SLOT(n##d) SLOT(n##e)
#define TEN(n) FIVE(n, 0, 1, 2, 3, 4) FIVE(n, 5, 6, 7, 8, 9)
#define HUNDRED(n) TEN(n##0) TEN(n##1) TEN(n##2) TEN(n##3) TEN(n##4) TEN(n##5) TEN(n##6) TEN(n##7) TEN(n##8) TEN(n##9)
HUNDRED(0) HUNDRED(1) HUNDRED(2) HUNDRED(3) HUNDRED(4) HUNDRED(5) HUNDRED(6) HUNDRED(7) HUNDRED(8) HUNDRED(9)

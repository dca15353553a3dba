/* Loads the kernels once a context and launches them. CUDA's driver is called through the library that the process has
   loaded, so no CUDA header is needed. */
#include <dlfcn.h>
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

int launch(const char *name, unsigned x, unsigned y, unsigned rows, void *arguments, void *stream) {
  void *module = 0, *function = 0;
  pthread_mutex_lock(&lock);
  int status = find_module(&module);
  pthread_mutex_unlock(&lock);
  if (status) return fails(name, "loading it", status);
  if ((status = driver.function(&function, module, name))) return fails(name, "finding it", status);
  if ((status = driver.launch(function, x, y, 1, LANES, rows, 1, 0, stream, &arguments, 0)))
    return fails(name, "launching it", status);
  return 0;
}

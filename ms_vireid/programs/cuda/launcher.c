/* The functions that MindSpore calls to launch the kernels, one an operator (`ops.Custom(func_type="aot")`).

   Each takes the device addresses of its inputs and outputs, their shapes and types, and the stream. CUDA's driver is
   called through the library that the process has loaded, so no CUDA header is needed. */
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"

enum { NO_DRIVER = 1, NO_CODE, NO_MEMORY };
#define CONTEXTS 8
#define ARGUMENTS int count, void **data, int *ranks, int64_t **shapes, const char **types, void *stream, void *extra

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

void use_code(const char *file) {
  free(path);
  path = strdup(file);
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

/* name is "KERNEL_TYPE_WIDTH". */
static int launch(const char *name, unsigned x, unsigned y, unsigned rows, void *arguments, void *stream) {
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

static int is_half(const char *type) { return !strcmp(type, "float16"); }
static int64_t elements(int rank, const int64_t *shape) {
  int64_t product = 1;
  for (int i = 0; i < rank; i++) product *= shape[i];
  return product;
}
static int blocks(int count, int each) { return (count + each - 1) / each; }
static int parts(int rows) { return rows < PARTS * ROWS ? blocks(rows, ROWS) : PARTS; }

/* Launch a kernel over columns and rows, in packs of 16 bytes if `unit` columns and all addresses allow it. */
static int launch_columns(const char *kernel, const char *type, int rows, int columns, int unit, const void **addresses,
                          int number, void *arguments, void *stream) {
  char name[64];
  int width = is_half(type) ? 8 : 4;
  if (unit % width) width = 1;
  for (int i = 0; i < number; i++)
    if ((uintptr_t)addresses[i] % 16) width = 1;
  snprintf(name, sizeof name, "%s_%s_%d", kernel, is_half(type) ? "half" : "float", width);
  return launch(name, blocks(columns, LANES * width), parts(rows), ROWS, arguments, stream);
}

static int launch_sum(const char *type, const float *partial, void *out, int rows, int columns, void *stream) {
  Sum sum = {out, partial, parts(rows), columns};
  return launch(is_half(type) ? "sum_parts_half_1" : "sum_parts_float_1", blocks(columns, LANES * ROWS), 1, ROWS, &sum,
                stream);
}

/* The masks in the three inputs from `first` on; none unless the layer has LAYER numbers. */
static Masks masks_of(void **data, int *ranks, int64_t **shapes, int first) {
  if (elements(ranks[first + 2], shapes[first + 2]) != LAYER) return (Masks){0};
  return (Masks){data[first], data[first + 1], data[first + 2], shapes[first][ranks[first] - 1]};
}

/* x [..., C], bias [C], noise [..., D], multipliers, layer -> [..., C] */
int gelu(ARGUMENTS) {
  int columns = shapes[1][0], rows = elements(ranks[0], shapes[0]) / columns;
  Gelu a = {.out = data[5], .x = data[0], .bias = data[1], .rows = rows, .columns = columns};
  a.masks = masks_of(data, ranks, shapes, 2);
  const void *used[] = {a.out, a.x, a.masks.noise};
  return launch_columns("gelu", types[0], rows, columns, a.masks.noise ? a.masks.width : columns, used, 3, &a, stream);
}

/* gradient [..., C], x [..., C], bias [C], noise, multipliers, layer -> of x, its parts [P, C], of bias [C] */
int gelu_gradient(ARGUMENTS) {
  int columns = shapes[2][0], rows = elements(ranks[1], shapes[1]) / columns;
  Gelu a = {data[6], data[7], data[0], data[1], data[2], masks_of(data, ranks, shapes, 3), rows, columns};
  const void *used[] = {a.out, a.gradient, a.x, a.masks.noise};
  int unit = a.masks.noise ? a.masks.width : columns;
  int status = launch_columns("gelu_gradient", types[1], rows, columns, unit, used, 4, &a, stream);
  return status ? status : launch_sum(types[1], a.parts, data[8], rows, columns, stream);
}

/* factors [N] of N samples; none if there is another number of them */
static const void *factors_of(void **data, int *ranks, int64_t **shapes, int place, int samples) {
  return elements(ranks[place], shapes[place]) == samples ? data[place] : 0;
}

/* rest [N, T, C], x [N, T, C], bias [C], factors [N], noise, multipliers, layer -> [N, T, C] */
int residual(ARGUMENTS) {
  int tokens = shapes[0][1], columns = shapes[0][2], rows = shapes[0][0] * tokens;
  Residual a = {.out = data[7], .rest = data[0], .x = data[1], .bias = data[2], .rows = rows, .columns = columns};
  a.tokens = tokens;
  a.factors = factors_of(data, ranks, shapes, 3, shapes[0][0]);
  a.masks = masks_of(data, ranks, shapes, 4);
  const void *used[] = {a.out, a.rest, a.x, a.masks.noise};
  return launch_columns("residual", types[0], rows, columns, columns, used, 4, &a, stream);
}

/* gradient [N, T, C], factors [N], noise, multipliers, layer -> of x, its parts [P, C], of bias [C] */
int residual_gradient(ARGUMENTS) {
  int tokens = shapes[0][1], columns = shapes[0][2], rows = shapes[0][0] * tokens;
  Residual a = {.out = data[5], .parts = data[6], .x = data[0], .rows = rows, .columns = columns, .tokens = tokens};
  a.factors = factors_of(data, ranks, shapes, 1, shapes[0][0]);
  a.masks = masks_of(data, ranks, shapes, 2);
  const void *used[] = {a.out, a.x, a.masks.noise};
  int status = launch_columns("residual_gradient", types[0], rows, columns, columns, used, 3, &a, stream);
  return status ? status : launch_sum(types[0], a.parts, data[7], rows, columns, stream);
}

static Heads heads_of(int64_t *shape, void *query, void *key, void *value, void *joined) {
  Heads a = {.query = query, .key = key, .value = value, .joined = joined, .scale = 1 / sqrtf(shape[3])};
  a.rows = shape[0] * shape[2], a.tokens = shape[2], a.heads = shape[1], a.width = shape[3];
  return a;
}

/* joined [N, T, 3 * C], bias [3 * C], any [heads] -> queries, scaled, keys and values [N, heads, T, C / heads] */
int split_heads(ARGUMENTS) {
  Heads a = heads_of(shapes[3], data[3], data[4], data[5], data[0]);
  a.bias = data[1];
  const void *used[] = {a.query, a.key, a.value, a.joined};
  return launch_columns("split_heads", types[0], a.rows, 3 * a.heads * a.width, a.width, used, 4, &a, stream);
}

/* gradients of queries, keys and values [N, heads, T, C / heads] -> of joined, its parts [P, 3 * C], of bias */
int split_heads_gradient(ARGUMENTS) {
  Heads a = heads_of(shapes[0], data[0], data[1], data[2], data[3]);
  int columns = 3 * a.heads * a.width;
  a.parts = data[4];
  const void *used[] = {a.query, a.key, a.value, a.joined};
  int status = launch_columns("split_heads_gradient", types[0], a.rows, columns, a.width, used, 4, &a, stream);
  return status ? status : launch_sum(types[0], a.parts, data[5], a.rows, columns, stream);
}

static int merge(int64_t *shape, void *split, void *merged, int merges, const char *type, void *stream) {
  Merge a = {split, merged, shape[0] * shape[2], shape[2], shape[1], shape[3], merges};
  const void *used[] = {split, merged};
  return launch_columns("merge_heads", type, a.rows, a.heads * a.width, a.width, used, 2, &a, stream);
}

/* [N, heads, T, C / heads] -> [N, T, C] */
int merge_heads(ARGUMENTS) { return merge(shapes[0], data[0], data[1], 1, types[0], stream); }

/* [N, T, C], any [heads] -> [N, heads, T, C / heads] */
int merge_heads_gradient(ARGUMENTS) { return merge(shapes[2], data[2], data[0], 0, types[0], stream); }

/* gradient [..., C], softmax [..., C] -> of its input */
int softmax_gradient(ARGUMENTS) {
  int columns = shapes[0][ranks[0] - 1], rows = elements(ranks[0], shapes[0]) / columns;
  Softmax a = {data[2], data[0], data[1], rows, columns};
  const char *name = is_half(types[0]) ? "softmax_gradient_half_1" : "softmax_gradient_float_1";
  return launch(name, blocks(rows, ROWS), 1, ROWS, &a, stream);
}

static int convolve(const char *type, int64_t *shape, int size, Depthwise a, void *stream) {
  char name[64];
  a.channels = shape[1], a.planes = shape[0] * shape[1], a.height = shape[2], a.width = shape[3];
  int tiles = blocks(a.height, TILE_ROWS);
  a.tile_rows = blocks(a.height, tiles);
  snprintf(name, sizeof name, "depthwise_%s_%d", is_half(type) ? "half" : "float", size);
  return launch(name, tiles * blocks(a.width, TILE_COLUMNS), a.planes < PLANES ? a.planes : PLANES, ROWS, &a, stream);
}

/* x [N, C, H, W], weight [C, 1, K, K] -> [N, C, H, W] */
int depthwise(ARGUMENTS) {
  return convolve(types[0], shapes[0], shapes[1][2], (Depthwise){data[2], data[0], data[1]}, stream);
}
int residual_depthwise(ARGUMENTS) {
  Depthwise a = {data[2], data[0], data[1], .residual = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* gradient [N, C, H, W], weight [C, 1, K, K] -> of x */
int depthwise_gradient(ARGUMENTS) {
  Depthwise a = {data[2], data[0], data[1], .flipped = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* gradient, weight, x -> of x */
int residual_depthwise_gradient(ARGUMENTS) {
  Depthwise a = {data[3], data[0], data[1], data[2], .flipped = 1, .residual = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

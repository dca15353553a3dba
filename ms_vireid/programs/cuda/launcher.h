/* For the functions that MindSpore calls to launch the kernels, one an operator (`ops.Custom(func_type="aot")`): each
   takes the device addresses of its inputs and outputs, their shapes and types, and the stream. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"

#define ARGUMENTS int count, void **data, int *ranks, int64_t **shapes, const char **types, void *stream, void *extra

#define EXPORTED __attribute__((visibility("default")))

/* Launch a kernel, "KERNEL_TYPE_WIDTH", by blocks of LANES x rows threads; returns 0 or the driver's error, printed. */
int launch(const char *name, unsigned x, unsigned y, unsigned rows, void *arguments, void *stream);

static inline int is_half(const char *type) { return !strcmp(type, "float16"); }
static inline int64_t elements(int rank, const int64_t *shape) {
  int64_t product = 1;
  for (int i = 0; i < rank; i++) product *= shape[i];
  return product;
}
static inline int blocks(int count, int each) { return (count + each - 1) / each; }
static inline int parts(int rows) { return rows < PARTS * ROWS ? blocks(rows, ROWS) : PARTS; }

/* Launch a kernel over columns and rows, in packs of 16 bytes if `unit` columns and all addresses allow it. */
static inline int launch_columns(const char *kernel, const char *type, int rows, int columns, int unit,
                                 const void **addresses, int number, void *arguments, void *stream) {
  char name[64];
  int width = is_half(type) ? 8 : 4;
  if (unit % width) width = 1;
  for (int i = 0; i < number; i++)
    if ((uintptr_t)addresses[i] % 16) width = 1;
  snprintf(name, sizeof name, "%s_%s_%d", kernel, is_half(type) ? "half" : "float", width);
  return launch(name, blocks(columns, LANES * width), parts(rows), ROWS, arguments, stream);
}

static inline int launch_sum(const char *type, const float *partial, void *out, int rows, int columns,
                             void *stream) {
  Sum sum = {out, partial, parts(rows), columns};
  return launch(is_half(type) ? "sum_parts_half_1" : "sum_parts_float_1", blocks(columns, LANES * ROWS), 1, ROWS, &sum,
                stream);
}

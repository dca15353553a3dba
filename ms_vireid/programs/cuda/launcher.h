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

/* Elements a pack: 16 bytes if `unit` columns and all addresses allow it, or one element. */
static inline int pack_width(const char *type, int unit, const void **addresses, int number) {
  int width = is_half(type) ? 8 : 4;
  for (int i = 0; i < number; i++)
    if ((uintptr_t)addresses[i] % 16) return 1;
  return unit % width ? 1 : width;
}

static inline int launch_packed(const char *kernel, const char *type, int width, unsigned x, unsigned y,
                                void *arguments, void *stream) {
  char name[64];
  snprintf(name, sizeof name, "%s_%s_%d", kernel, is_half(type) ? "half" : "float", width);
  return launch(name, x, y, ROWS, arguments, stream);
}

/* Launch a kernel over columns and rows. */
static inline int launch_columns(const char *kernel, const char *type, int rows, int columns, int unit,
                                 const void **addresses, int number, void *arguments, void *stream) {
  int width = pack_width(type, unit, addresses, number);
  return launch_packed(kernel, type, width, blocks(columns, LANES * width), parts(rows), arguments, stream);
}

/* Launch a kernel over rows, one a warp. */
static inline int launch_rows(const char *kernel, const char *type, int rows, int columns, const void **addresses,
                              int number, void *arguments, void *stream) {
  int y = blocks(rows, ROWS);
  return launch_packed(kernel, type, pack_width(type, columns, addresses, number), 1, y < PLANES ? y : PLANES,
                       arguments, stream);
}

/* Add up partial sums [parts, columns], or two such tensors, one after the other, into `out` and `second`. */
static inline int launch_sums(const char *type, const float *partial, void *out, void *second, int rows, int columns,
                              void *stream) {
  Sum sum = {out, second, partial, parts(rows), columns};
  return launch(is_half(type) ? "sum_parts_half_1" : "sum_parts_float_1", blocks(columns, LANES), second ? 2 : 1, ROWS,
                &sum, stream);
}
static inline int launch_sum(const char *type, const float *partial, void *out, int rows, int columns,
                             void *stream) {
  return launch_sums(type, partial, out, 0, rows, columns, stream);
}

/* For the functions of the operators (declarations.py generates them), which launch the kernels for MindSpore
   (`ops.Custom(func_type="aot")`). */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"

#define EXPORTED __attribute__((visibility("default")))
#define ARGUMENTS int count, void **data, int *ranks, int64_t **shapes, const char **types, void *stream, void *unused

enum { UNKNOWN = -1, REFUSED = -2 };

/* What MindSpore hands over: device addresses of the inputs, then of the outputs, and their shapes and types. */
typedef struct {
  const char *name; /* of the operator */
  int count;
  void **data;
  int *ranks;
  int64_t **shapes;
  const char **types;
  void *stream;
  int place, extra; /* of the next tensor; how many there are of any number */
  int status;       /* REFUSED: a tensor is not as declared, which has been printed */
  const char *type; /* that of T, once it is known */
  const char *declared;
} Call;

/* Several tensors in a row, or one. */
typedef struct {
  int count;
  void **data;
  int *ranks;
  int64_t **shapes;
  int half;
} Tensors;

typedef struct {
  const char *name;
  int (*run)(Call *, const double *numbers);
} Operator;
extern const Operator operators[]; /* ends with {0} */

/* Launch a kernel, "KERNEL_TYPE_WIDTH", by blocks of LANES x ROWS threads; returns 0 or the driver's error, printed. */
int launch(const char *name, unsigned x, unsigned y, const void *arguments, void *stream);

/* Check the tensors of a call, one after the other. `take` returns the next one's address, or 0 if it is absent; rank: of
   its dimensions behind the leading ones, if it has any. */
void expect(Call *call, int number, int more);
void *take(Call *call, const char *declared, const char *type, int rank, int leading, int optional);
Tensors take_any(Call *call, const char *declared, const char *type, int number);
void leading(Call *call, int rank, int *size);
void dimension(Call *call, int from_end, int *size);
void equals(Call *call, int from_end, int64_t size);
int refuse(Call *call, const char *problem);

int join_pieces(Call *call, const char *kernel, Tensors pieces, Tensors whole, int axis);
int join_rows(Call *call, const char *kernel, Tensors pieces, Tensors whole);

static inline int is_half(const Call *call) { return call->type && !strcmp(call->type, "float16"); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int least(const int *values, int count) {
  int found = values[0];
  for (int k = 1; k < count; k++) found = min(found, values[k]);
  return found;
}
static inline int most(const int *values, int count) {
  int found = values[0];
  for (int k = 1; k < count; k++) found = max(found, values[k]);
  return found;
}
static inline int blocks(int count, int each) { return (count + each - 1) / each; }
static inline int parts_of(int rows) { return min(PARTS, blocks(rows, ROWS)); }

/* Elements a pack: `width`, if it divides `unit` and all addresses are multiples of a pack, or else `otherwise`. */
static inline int pack_width(int width, int otherwise, int size, int unit, const void **addresses, int number) {
  uintptr_t places = (uintptr_t)unit * size;
  for (int i = 0; i < number; i++) places |= (uintptr_t)addresses[i];
  return places % (width * size) ? otherwise : width;
}
#define ELEMENT (is_half(call) ? 2 : 4)
#define PACK(width, otherwise, unit, ...)                                            \
  pack_width(width, otherwise, ELEMENT, unit, (const void *[]){__VA_ARGS__}, \
       sizeof((const void *[]){__VA_ARGS__}) / sizeof(void *))
#define packs(...) PACK(16 / ELEMENT, 1, __VA_ARGS__)                       /* 16 bytes, or one element */
#define quads(...) PACK(4, 1, __VA_ARGS__)                                  /* four, or one */

static inline int grid(Call *call, const char *kernel, const void *arguments, int pack, unsigned x, unsigned y) {
  char name[80];
  snprintf(name, sizeof name, "%s_%s_%d", kernel, is_half(call) ? "half" : "float", pack);
  return launch(name, x, y, arguments, call->stream);
}

/* The kernel for filters of this size. */
static inline int grid_of_size(Call *call, const char *kernel, const void *arguments, int size, int pack, unsigned x,
                               unsigned y) {
  char name[64];
  snprintf(name, sizeof name, "%s_%d", kernel, size);
  return grid(call, name, arguments, pack, x, y);
}

/* Over columns and rows, for sums of columns; over rows, one a warp; over elements. */
static inline int over_columns(Call *call, const char *kernel, const void *arguments, int pack, int rows, int columns) {
  return grid(call, kernel, arguments, pack, blocks(columns, LANES * pack), parts_of(rows));
}
static inline int over_rows(Call *call, const char *kernel, const void *arguments, int pack, int rows) {
  return grid(call, kernel, arguments, pack, 1, min(blocks(rows, ROWS), PLANES));
}
/* Over the places of a map's strips of channels. */
static inline int over_strips(Call *call, const char *kernel, const void *arguments, int pack, int strips, int places) {
  return grid(call, kernel, arguments, pack, strips, max(1, min(blocks(BLOCKS, strips), places / PLACES)));
}
/* Over packs of the channels of all places, sample by sample. */
static inline int over_packs(Call *call, const char *kernel, const void *arguments, int pack, int channels, int samples,
                             int places) {
  return grid(call, kernel, arguments, pack, blocks(places * (channels / pack), LANES * ROWS), min(samples, PLANES));
}
static inline int over_elements(Call *call, const char *kernel, const void *arguments, int pack, int count) {
  return grid(call, kernel, arguments, pack, blocks(count, LANES * ROWS * pack), 1);
}

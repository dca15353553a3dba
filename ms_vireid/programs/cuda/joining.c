/* The operators that join tensors, and split one. */
#include "launcher.h"

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Copy all `number` pieces, one behind the other in the whole, each from a multiple of `a.unit` columns on. */
static int copy(const char *kernel, int bytes, Join a, int number, void **pieces, int *ranks, int64_t **shapes,
                void *stream) {
  int64_t column = 0;
  for (int start = 0; start < number; start += PIECES) {
    int64_t end = 0;
    a.count = smaller(number - start, PIECES);
    for (int i = 0; i < a.count; i++) {
      a.pieces[i] = pieces[start + i], a.firsts[i] = column;
      a.widths[i] = elements(ranks[start + i], shapes[start + i]) / a.rows;
      int64_t extent = (a.widths[i] + a.unit - 1) / a.unit * a.unit;
      column += extent;
      end += (a.rows * extent * bytes + CHUNK - 1) / CHUNK;
      a.ends[i] = end;
    }
    int status = end ? launch(kernel, end, 1, ROWS, &a, stream) : 0;
    if (status) return status;
  }
  return 0;
}

/* Tensors of one whole, along the first axis in which one of them differs from it. */
static int along_axis(const char *kernel, void *whole, int rank, int64_t *shape, const char *type, int number,
                      void **pieces, int *ranks, int64_t **shapes, void *stream) {
  Join a = {.whole = whole, .rows = 1, .unit = 1};
  char name[64];
  int same = 1;
  for (int axis = 0; axis < rank && same; axis++) {
    for (int i = 0; i < number; i++) same &= shapes[i][axis] == shape[axis];
    if (same) a.rows *= shape[axis];
  }
  if (same || !a.rows) a.rows = 1;
  a.columns = elements(rank, shape) / a.rows;
  snprintf(name, sizeof name, "%s_%s", kernel, is_half(type) ? "half" : "float");
  return copy(name, is_half(type) ? 2 : 4, a, number, pieces, ranks, shapes, stream);
}

/* tensors -> the joined one */
EXPORTED int join(ARGUMENTS) {
  int last = count - 1;
  return along_axis("join", data[last], ranks[last], shapes[last], types[last], last, data, ranks, shapes, stream);
}

/* a joined tensor -> its parts */
EXPORTED int split(ARGUMENTS) {
  return along_axis("split", data[0], ranks[0], shapes[0], types[0], count - 1, data + 1, ranks + 1, shapes + 1, stream);
}

/* tensors -> [n], all elements, each tensor's from a multiple of ALIGNED on, zeros between; in float32 or the same type */
EXPORTED int join_aligned(ARGUMENTS) {
  int last = count - 1, casts = is_half(types[0]) && !is_half(types[last]);
  Join a = {.whole = data[last], .rows = 1, .columns = shapes[last][0], .unit = ALIGNED};
  const char *name = casts ? "join_half_as_float" : is_half(types[0]) ? "join_half" : "join_float";
  return copy(name, is_half(types[last]) ? 2 : 4, a, last, data, ranks, shapes, stream);
}

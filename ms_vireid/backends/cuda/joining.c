/* Launches the kernels that join tensors, and split one. */
#include "launcher.h"

static int64_t product(const int64_t *shape, int first, int end) {
  int64_t elements = 1;
  for (int i = first; i < end; i++) elements *= shape[i];
  return elements;
}

static int64_t blocks_of(int64_t count, int64_t each) { return (count + each - 1) / each; }
static int64_t width_of(Join a, Tensors pieces, int i) {
  return product(pieces.shapes[i], 0, pieces.ranks[i]) / a.rows;
}

/* Copy all pieces, one behind the other in the whole, each from a multiple of `a.unit` columns on. */
static int copy(Call *call, const char *kernel, Join a, Tensors pieces, Tensors whole) {
  int64_t column = 0;
  int bytes = whole.half ? 2 : 4;
  char name[64];
  const char *type = !pieces.half ? "float" : whole.half ? "half" : "half_as_float";
  snprintf(name, sizeof name, "%s_%s", kernel, type);
  a.whole = whole.data[0], a.columns = product(whole.shapes[0], 0, whole.ranks[0]) / a.rows;
  for (int i = 0; i < pieces.count; i++) column += blocks_of(width_of(a, pieces, i), a.unit) * a.unit;
  if (column > a.columns) return refuse(call, "the pieces are larger than the whole");
  column = 0;
  for (int start = 0; start < pieces.count; start += PIECES) {
    int64_t end = 0;
    a.count = min(pieces.count - start, PIECES);
    for (int i = 0; i < a.count; i++) {
      a.pieces[i] = pieces.data[start + i], a.firsts[i] = column;
      a.widths[i] = width_of(a, pieces, start + i);
      int64_t extent = blocks_of(a.widths[i], a.unit) * a.unit;
      column += extent;
      end += blocks_of(a.rows * extent * bytes, CHUNK);
      a.ends[i] = end;
    }
    int status = end ? launch(name, end, 1, &a, call->stream) : 0;
    if (status) return status;
  }
  return 0;
}

/* Pieces of a whole, along an axis. */
int join_pieces(Call *call, const char *kernel, Tensors pieces, Tensors whole, int axis) {
  if (axis >= whole.ranks[0]) return refuse(call, "the whole has no such axis");
  int64_t rows = product(whole.shapes[0], 0, axis);
  for (int i = 0; i < pieces.count; i++)
    for (int k = 0; k < whole.ranks[0]; k++)
      if (pieces.ranks[i] != whole.ranks[0] || (k != axis && pieces.shapes[i][k] != whole.shapes[0][k]))
        return refuse(call, "the pieces differ in another axis");
  return copy(call, kernel, (Join){.rows = rows > 0 ? rows : 1, .unit = 1}, pieces, whole);
}

/* All elements of all pieces, each piece from a multiple of ALIGNED on. */
int join_rows(Call *call, const char *kernel, Tensors pieces, Tensors whole) {
  return copy(call, kernel, (Join){.rows = 1, .unit = ALIGNED}, pieces, whole);
}

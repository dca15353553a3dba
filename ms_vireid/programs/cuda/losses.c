/* The operators of losses. */
#include "launcher.h"

static Distances distances_of(int rank, int64_t *x, int64_t *y) {
  return (Distances){.count = elements(rank - 2, x), .n = x[rank - 2], .m = y[rank - 2], .columns = x[rank - 1]};
}

/* x [..., n, C], y [..., m, C] -> [..., n, m] */
EXPORTED int squared_distances(ARGUMENTS) {
  Distances a = distances_of(ranks[0], shapes[0], shapes[1]);
  a.x = data[0], a.y = data[1], a.out = data[2];
  const void *used[] = {a.x, a.y};
  int packs = pack_width("float32", a.columns, used, 2) > 1, rows = a.count * a.n;
  const char *name = packs ? "squared_distances_float_4" : "squared_distances_float_1";
  return launch(name, blocks(a.m, ROWS), rows < PLANES ? rows : PLANES, ROWS, &a, stream);
}

/* gradient [..., n, m], x, y -> of x, of y */
EXPORTED int squared_distances_gradient(ARGUMENTS) {
  Distances a = distances_of(ranks[1], shapes[1], shapes[2]);
  a.gradient = data[0];
  for (int of_y = 0; of_y < 2; of_y++) {
    int n = of_y ? shapes[2][ranks[2] - 2] : a.n, m = of_y ? a.n : a.m;
    Distances b = a;
    b.n = n, b.m = m, b.x = data[1 + of_y], b.y = data[2 - of_y], b.out = data[3 + of_y], b.transposed = of_y;
    const void *used[] = {b.x, b.y, b.out};
    int status = launch_columns("squared_distances_gradient", "float32", b.count * n, b.columns, b.columns, used, 3, &b, stream);
    if (status) return status;
  }
  return 0;
}

static int extremes(const char *kernel, Extremes a, int64_t *shape, void *stream) {
  a.rows = shape[0], a.columns = shape[1];
  int y = blocks(a.rows, ROWS);
  return launch_packed(kernel, "float32", 1, 1, y < PLANES ? y : PLANES, &a, stream);
}

/* values [n, m], mask bool [n, m] -> [n] */
EXPORTED int masked_max(ARGUMENTS) {
  return extremes("extremes", (Extremes){data[2], data[0], data[1], .sign = 1}, shapes[0], stream);
}
EXPORTED int masked_min(ARGUMENTS) {
  return extremes("extremes", (Extremes){data[2], data[0], data[1], .sign = -1}, shapes[0], stream);
}

/* gradient [n], values, mask, their extremes [n] -> of values */
EXPORTED int masked_extremes_gradient(ARGUMENTS) {
  Extremes a = {.out = data[4], .gradient = data[0], .values = data[1], .mask = data[2], .extremes = data[3]};
  return extremes("extremes_gradient", a, shapes[1], stream);
}

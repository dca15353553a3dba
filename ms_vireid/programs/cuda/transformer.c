/* The operators of a ViT's block. */
#include "launcher.h"

/* The masks in the four inputs from `first` on, `Masks` in this order but either noise or row_starts; none unless the
   layer has LAYER numbers. */
static Masks masks_of(void **data, int *ranks, int64_t **shapes, int first) {
  if (elements(ranks[first + 3], shapes[first + 3]) != LAYER) return (Masks){0};
  Masks a = {.multipliers = data[first + 2], .layer = data[first + 3]};
  if (ranks[first] > 1) a.noise = data[first], a.width = shapes[first][ranks[first] - 1];
  else a.row_starts = data[first], a.column_starts = data[first + 1], a.width = shapes[first + 1][0];
  return a;
}
static int unit_of(const Masks *masks, int columns) { return masks->layer ? masks->width : columns; }

/* x [..., C], masks -> [..., C] */
EXPORTED int dropout(ARGUMENTS) {
  int columns = shapes[0][ranks[0] - 1], rows = elements(ranks[0] - 1, shapes[0]);
  Dropout a = {data[5], data[0], masks_of(data, ranks, shapes, 1), rows, columns};
  const void *used[] = {a.out, a.x, a.masks.noise};
  return launch_columns("dropout", types[0], rows, columns, unit_of(&a.masks, columns), used, 3, &a, stream);
}

/* x [..., C], gamma [C], beta [C], eps float [1] -> [..., C], mean and scale float [rows] */
EXPORTED int layer_norm(ARGUMENTS) {
  int columns = shapes[1][0], rows = elements(ranks[0], shapes[0]) / columns;
  Norm a = {.out = data[4], .mean = data[5], .scale = data[6], .x = data[0], .gamma = data[1], .beta = data[2]};
  a.eps = data[3], a.rows = rows, a.columns = columns;
  const void *used[] = {a.out, a.x, a.gamma, a.beta};
  return launch_rows("layer_norm", types[0], rows, columns, used, 4, &a, stream);
}

static int launch_norm_gradient(Norm a, int rank, int64_t *shape, const char *type, void *grad_gamma, void *grad_beta,
                                void *stream) {
  const void *used[] = {a.out, a.gradient, a.x, a.gamma, a.again, a.rest, a.beta};
  a.columns = shape[rank - 1], a.rows = elements(rank - 1, shape);
  int width = pack_width(type, a.columns, used, 7);
  int status = launch_packed("layer_norm_gradient", type, width, 1, parts(a.rows), &a, stream);
  return status ? status : launch_sums(type, a.parts, grad_gamma, grad_beta, a.rows, a.columns, stream);
}

/* gradient [..., C], x [..., C], gamma [C], mean [rows], scale [rows] -> of x, parts [2, P, C], of gamma, of beta */
EXPORTED int layer_norm_gradient(ARGUMENTS) {
  Norm a = {.out = data[5], .parts = data[6], .gradient = data[0], .x = data[1], .gamma = data[2]};
  a.mean = data[3], a.scale = data[4];
  return launch_norm_gradient(a, ranks[0], shapes[0], types[0], data[7], data[8], stream);
}

/* gradient, x, gamma, mean, scale as above, beta [C], rest [..., C] -> of x, with rest added, the norm [..., C] again,
   parts [2, P, C], of gamma, of beta */
EXPORTED int branch_norm_gradient(ARGUMENTS) {
  Norm a = {.out = data[7], .again = data[8], .parts = data[9], .gradient = data[0], .x = data[1], .gamma = data[2]};
  a.mean = data[3], a.scale = data[4], a.beta = data[5], a.rest = data[6];
  return launch_norm_gradient(a, ranks[0], shapes[0], types[0], data[10], data[11], stream);
}

/* x [..., C], bias [C], masks -> [..., C] */
EXPORTED int gelu(ARGUMENTS) {
  int columns = shapes[1][0], rows = elements(ranks[0], shapes[0]) / columns;
  Gelu a = {.out = data[6], .x = data[0], .bias = data[1], .rows = rows, .columns = columns};
  a.masks = masks_of(data, ranks, shapes, 2);
  const void *used[] = {a.out, a.x, a.masks.noise};
  return launch_columns("gelu", types[0], rows, columns, unit_of(&a.masks, columns), used, 3, &a, stream);
}

/* gradient [..., C], x [..., C], bias [C], masks -> of x, its parts [P, C], of bias [C] */
EXPORTED int gelu_gradient(ARGUMENTS) {
  int columns = shapes[2][0], rows = elements(ranks[1], shapes[1]) / columns;
  Gelu a = {data[7], data[8], data[0], data[1], data[2], masks_of(data, ranks, shapes, 3), rows, columns};
  const void *used[] = {a.out, a.gradient, a.x, a.masks.noise};
  int unit = unit_of(&a.masks, columns);
  int status = launch_columns("gelu_gradient", types[1], rows, columns, unit, used, 4, &a, stream);
  return status ? status : launch_sum(types[1], a.parts, data[9], rows, columns, stream);
}

/* factors [N] of N samples; none if there is another number of them */
static const void *factors_of(void **data, int *ranks, int64_t **shapes, int place, int samples) {
  return elements(ranks[place], shapes[place]) == samples ? data[place] : 0;
}

/* rest [N, T, C], x [N, T, C], bias [C], factors [N], masks -> [N, T, C] */
EXPORTED int residual(ARGUMENTS) {
  int tokens = shapes[0][1], columns = shapes[0][2], rows = shapes[0][0] * tokens;
  Residual a = {.out = data[8], .rest = data[0], .x = data[1], .bias = data[2], .rows = rows, .columns = columns};
  a.tokens = tokens;
  a.factors = factors_of(data, ranks, shapes, 3, shapes[0][0]);
  a.masks = masks_of(data, ranks, shapes, 4);
  const void *used[] = {a.out, a.rest, a.x, a.masks.noise};
  return launch_columns("residual", types[0], rows, columns, columns, used, 4, &a, stream);
}

/* gradient [N, T, C], factors [N], masks -> of x, its parts [P, C], of bias [C] */
EXPORTED int residual_gradient(ARGUMENTS) {
  int tokens = shapes[0][1], columns = shapes[0][2], rows = shapes[0][0] * tokens;
  Residual a = {.out = data[6], .parts = data[7], .x = data[0], .rows = rows, .columns = columns, .tokens = tokens};
  a.factors = factors_of(data, ranks, shapes, 1, shapes[0][0]);
  a.masks = masks_of(data, ranks, shapes, 2);
  const void *used[] = {a.out, a.x, a.masks.noise};
  int status = launch_columns("residual_gradient", types[0], rows, columns, columns, used, 3, &a, stream);
  return status ? status : launch_sum(types[0], a.parts, data[8], rows, columns, stream);
}

/* shape: of the queries */
static Heads heads_of(int64_t *shape, int tokens, void *query, void *key, void *value, void *joined) {
  Heads a = {.query = query, .key = key, .value = value, .joined = joined, .scale = 1 / sqrtf(shape[3])};
  a.samples = shape[0], a.heads = shape[1], a.padded = shape[2], a.width = shape[3], a.tokens = tokens;
  return a;
}

/* joined [N, T, 3 * C], bias [3 * C], any [heads, T'] -> queries, scaled, keys and values [N, heads, T', C / heads] */
EXPORTED int split_heads(ARGUMENTS) {
  Heads a = heads_of(shapes[3], shapes[0][1], data[3], data[4], data[5], data[0]);
  a.bias = data[1];
  const void *used[] = {a.query, a.key, a.value, a.joined};
  int rows = a.samples * a.padded, columns = 3 * a.heads * a.width;
  return launch_columns("split_heads", types[0], rows, columns, a.width, used, 4, &a, stream);
}

/* gradients of queries, keys and values [N, heads, T', C / heads], any [T] -> of joined [N, T, 3 * C], its parts
   [P, 3 * C], of bias */
EXPORTED int split_heads_gradient(ARGUMENTS) {
  Heads a = heads_of(shapes[0], shapes[3][0], data[0], data[1], data[2], data[4]);
  int rows = a.samples * a.tokens, columns = 3 * a.heads * a.width;
  a.parts = data[5];
  const void *used[] = {a.query, a.key, a.value, a.joined};
  int status = launch_columns("split_heads_gradient", types[0], rows, columns, a.width, used, 4, &a, stream);
  return status ? status : launch_sum(types[0], a.parts, data[6], rows, columns, stream);
}

static Merge merge_of(int64_t *split_shape, int tokens, void *split, void *merged) {
  return (Merge){split, merged, split_shape[0], tokens, split_shape[2], split_shape[1], split_shape[3]};
}

/* [N, heads, T', C / heads], any [T] -> [N, T, C] */
EXPORTED int merge_heads(ARGUMENTS) {
  Merge a = merge_of(shapes[0], shapes[1][0], data[0], data[2]);
  const void *used[] = {a.split, a.merged};
  int rows = a.samples * a.tokens, columns = a.heads * a.width;
  return launch_columns("merge_heads", types[0], rows, columns, a.width, used, 2, &a, stream);
}

/* [N, T, C], any [heads, T'] -> [N, heads, T', C / heads] */
EXPORTED int merge_heads_gradient(ARGUMENTS) {
  Merge a = merge_of(shapes[2], shapes[0][1], data[2], data[0]);
  const void *used[] = {a.split, a.merged};
  int rows = a.samples * a.padded, columns = a.heads * a.width;
  return launch_columns("merge_heads_gradient", types[0], rows, columns, a.width, used, 2, &a, stream);
}

static int launch_softmax(const char *kernel, Softmax a, const char *type, int rank, int64_t *shape, void *stream) {
  const void *used[] = {a.out, a.x, a.gradient};
  a.padded = shape[rank - 1], a.rows = elements(rank - 1, shape);
  return launch_rows(kernel, type, a.rows, a.padded, used, 3, &a, stream);
}

/* x [..., T', T'], any [T] -> [..., T', T'] */
EXPORTED int softmax(ARGUMENTS) {
  Softmax a = {.out = data[2], .x = data[0], .tokens = shapes[1][0]};
  return launch_softmax("softmax", a, types[0], ranks[0], shapes[0], stream);
}

/* gradient [..., T', T'], softmax [..., T', T'], any [T] -> of its input */
EXPORTED int softmax_gradient(ARGUMENTS) {
  Softmax a = {.out = data[3], .x = data[1], .gradient = data[0], .tokens = shapes[2][0]};
  return launch_softmax("softmax_gradient", a, types[0], ranks[0], shapes[0], stream);
}

/* The operators of feature maps. */
#include "launcher.h"

/* Elements a pack, of planes of `size` elements that begin one behind the other at all these addresses: 16 bytes, two
   elements, or one. */
static int map_width(const char *type, int size, const void **addresses, int number) {
  int bytes = is_half(type) ? 2 : 4, width = 16 / bytes;
  uintptr_t places = (uintptr_t)size * bytes;
  for (int i = 0; i < number; i++) places |= (uintptr_t)addresses[i];
  return !(places % 16) ? width : !(places % (2 * bytes)) ? 2 : 1;
}

static Maps maps(const int64_t *shape) {
  Maps m = {shape[0] * shape[1], shape[1], shape[2], shape[3]};
  m.tile_rows = blocks(m.height, blocks(m.height, TILE_ROWS));
  return m;
}
static int tiles(Maps m) { return blocks(m.height, m.tile_rows) * blocks(m.width, TILE_COLUMNS); }

/* Launch a kernel for filters of `size`, four elements a thread where rows and addresses allow it. */
static int launch_filter(const char *kernel, const char *type, int size, Maps maps, const void **addresses, int number,
                         unsigned x, unsigned y, void *arguments, void *stream) {
  uintptr_t places = (uintptr_t)maps.width;
  for (int i = 0; i < number; i++) places |= (uintptr_t)addresses[i] / (is_half(type) ? 2 : 4);
  char name[64];
  snprintf(name, sizeof name, "%s_%d", kernel, size);
  return launch_packed(name, type, places % 4 ? 1 : 4, x, y, arguments, stream);
}

static int convolve(const char *type, const int64_t *shape, int size, Depthwise a, void *stream) {
  const void *addresses[] = {a.out, a.x, a.input};
  a.maps = maps(shape);
  int planes = a.maps.planes < PLANES ? a.maps.planes : PLANES;
  return launch_filter("depthwise", type, size, a.maps, addresses, 3, tiles(a.maps), planes, &a, stream);
}

/* x [N, C, H, W], weight [C, 1, K, K] -> [N, C, H, W] */
EXPORTED int depthwise(ARGUMENTS) {
  return convolve(types[0], shapes[0], shapes[1][2], (Depthwise){data[2], data[0], data[1]}, stream);
}
EXPORTED int residual_depthwise(ARGUMENTS) {
  Depthwise a = {data[2], data[0], data[1], .residual = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* gradient [N, C, H, W], weight [C, 1, K, K], x -> of x, partial sums [parts, C, K, K], of weight */
static int convolve_back(int residual, void **data, int64_t **shapes, const char **types, void *stream) {
  Depthwise a = {data[3], data[0], data[1], data[2], .flipped = 1, .residual = residual};
  DepthwiseFilter f = {data[4], data[0], data[2], residual};
  const void *addresses[] = {f.gradient, f.x};
  int size = shapes[1][2], parts = shapes[4][0];
  f.maps = maps(shapes[0]), f.tiles = tiles(f.maps);
  Sum sum = {data[5], 0, data[4], parts, f.maps.channels * size * size};
  int status = convolve(types[0], shapes[0], size, a, stream);
  if (!status)
    status = launch_filter("depthwise_filter", types[0], size, f.maps, addresses, 2, f.maps.channels, parts, &f, stream);
  return status ? status : launch_packed("sum_parts", types[5], 1, blocks(sum.columns, LANES), 1, &sum, stream);
}
EXPORTED int depthwise_gradient(ARGUMENTS) { return convolve_back(0, data, shapes, types, stream); }
EXPORTED int residual_depthwise_gradient(ARGUMENTS) { return convolve_back(1, data, shapes, types, stream); }

static Channels channels(const int64_t *shape, int width) {
  Channels c = {shape[0], shape[1], shape[2] * shape[3]};
  int packs = c.size / width;
  c.runs = blocks(packs, RUN * LANES), c.run = blocks(packs, c.runs);
  return c;
}

/* x [N, C, H, W], gamma, beta, running mean and variance [C], {eps, momentum}[, rest] -> y, statistics [2, C], partial
   sums [C, parts, 2] */
static int normalise(int relu, const void *rest, void **data, void **out, int64_t **shapes, int parts, const char *type,
                     void *stream) {
  BatchNorm a = {0, 0, out[2], .x = data[0], .relu = relu};
  const void *addresses[] = {data[0], out[0], rest};
  int width = map_width(type, shapes[0][2] * shapes[0][3], addresses, 3);
  a.shape = channels(shapes[0], width);
  int status = launch_packed("batch_norm_moments", type, width, a.shape.channels, parts, &a, stream);
  a.out = out[0], a.statistics = out[1], a.rest = rest, a.gamma = data[1], a.beta = data[2];
  a.running_mean = data[3], a.running_variance = data[4], a.numbers = data[5];
  return status ? status : launch_packed("batch_norm", type, width, a.shape.channels, parts, &a, stream);
}
EXPORTED int batch_norm(ARGUMENTS) {
  return normalise(0, 0, data, data + 6, shapes, shapes[8][1], types[0], stream);
}
EXPORTED int batch_norm_relu(ARGUMENTS) {
  return normalise(1, 0, data, data + 6, shapes, shapes[8][1], types[0], stream);
}
EXPORTED int batch_norm_add(ARGUMENTS) {
  return normalise(0, data[6], data, data + 7, shapes, shapes[9][1], types[0], stream);
}
EXPORTED int batch_norm_add_relu(ARGUMENTS) {
  return normalise(1, data[6], data, data + 7, shapes, shapes[9][1], types[0], stream);
}

/* In evaluation; x [N, C, H, W], gamma, beta, running mean and variance [C], {eps, momentum}[, rest] -> y */
static int evaluate(int relu, const void *rest, void *out, void **data, int64_t **shapes, const char *type,
                    void *stream) {
  BatchNorm a = {out, .running_mean = data[3], .running_variance = data[4], .x = data[0], .rest = rest, .relu = relu};
  const void *addresses[] = {data[0], out, rest};
  int width = map_width(type, shapes[0][2] * shapes[0][3], addresses, 3);
  a.gamma = data[1], a.beta = data[2], a.numbers = data[5], a.shape = channels(shapes[0], width);
  int warps = blocks(a.shape.samples * a.shape.runs, ROWS), most = blocks(BLOCKS, a.shape.channels);
  return launch_packed("batch_norm_evaluation", type, width, a.shape.channels, warps < most ? warps : most, &a, stream);
}
EXPORTED int batch_norm_evaluation(ARGUMENTS) { return evaluate(0, 0, data[6], data, shapes, types[0], stream); }
EXPORTED int batch_norm_relu_evaluation(ARGUMENTS) { return evaluate(1, 0, data[6], data, shapes, types[0], stream); }
EXPORTED int batch_norm_add_relu_evaluation(ARGUMENTS) {
  return evaluate(1, data[6], data[7], data, shapes, types[0], stream);
}

/* gradient, x [N, C, H, W], gamma, beta [C], statistics [2, C][, y] -> of x, partial sums [C, parts, 2], of gamma, of
   beta[, of rest] */
static int normalise_back(int relu, const void *y, void **data, void **out, int64_t **shapes, int parts,
                          const char *type, void *stream) {
  BatchNormGradient a = {0, y ? out[4] : 0, 0, 0, out[1], data[0], data[1], y, data[2], data[3], data[4], relu};
  const void *addresses[] = {a.gradient, a.x, y, out[0], a.grad_rest};
  int width = map_width(type, shapes[0][2] * shapes[0][3], addresses, 5);
  a.shape = channels(shapes[0], width);
  int status = launch_packed("batch_norm_gradient_sums", type, width, a.shape.channels, parts, &a, stream);
  if (y) a.gradient = a.grad_rest, a.relu = 0, a.y = a.grad_rest = 0;
  a.grad_x = out[0], a.grad_gamma = out[2], a.grad_beta = out[3];
  return status ? status : launch_packed("batch_norm_gradient", type, width, a.shape.channels, parts, &a, stream);
}
EXPORTED int batch_norm_gradient(ARGUMENTS) {
  return normalise_back(0, 0, data, data + 5, shapes, shapes[6][1], types[0], stream);
}
EXPORTED int batch_norm_relu_gradient(ARGUMENTS) {
  return normalise_back(1, 0, data, data + 5, shapes, shapes[6][1], types[0], stream);
}
EXPORTED int batch_norm_add_relu_gradient(ARGUMENTS) {
  return normalise_back(1, data[5], data, data + 6, shapes, shapes[7][1], types[0], stream);
}

static int pool(const char *kernel, Gem a, const char *type, const int64_t *shape, void *stream) {
  const void *addresses[] = {a.x, a.grad_x};
  a.planes = shape[0] * shape[1], a.size = shape[2] * shape[3];
  int width = map_width(type, a.size, addresses, 2);
  return launch_packed(kernel, type, width, blocks(a.planes, ROWS), 1, &a, stream);
}

/* x [N, C, H, W], {power, eps} -> float32 [N, C] */
EXPORTED int gem(ARGUMENTS) {
  Gem a = {data[2], 0, data[0], 0, data[1]};
  return pool("gem", a, types[0], shapes[0], stream);
}

/* gradient, pooled float32 [N, C], x [N, C, H, W], {power, eps} -> of x */
EXPORTED int gem_gradient(ARGUMENTS) {
  Gem a = {data[1], data[4], data[2], data[0], data[3]};
  return pool("gem_gradient", a, types[2], shapes[2], stream);
}

static MaxPool windows(const int64_t *shape, const int64_t *pooled) {
  MaxPool a = {.planes = shape[0] * shape[1], .height = shape[2], .width = shape[3]};
  a.pooled_height = pooled[2], a.pooled_width = pooled[3];
  return a;
}
static int over_planes(const char *kernel, const char *type, int width, int planes, int places, void *arguments,
                       void *stream) {
  return launch_packed(kernel, type, width, blocks(places, LANES * ROWS), planes < PLANES ? planes : PLANES, arguments,
                       stream);
}

/* x [N, C, H, W] -> [N, C, (H + 1) / 2, (W + 1) / 2], uint8 of that shape */
EXPORTED int max_pool(ARGUMENTS) {
  MaxPool a = windows(shapes[0], shapes[1]);
  a.x = data[0], a.pooled = data[1], a.places = data[2];
  return over_planes("max_pool", types[0], 1, a.planes, a.pooled_height * a.pooled_width, &a, stream);
}

/* gradient, places [N, C, (H + 1) / 2, (W + 1) / 2], x [N, C, H, W] -> of x */
EXPORTED int max_pool_gradient(ARGUMENTS) {
  MaxPool a = windows(shapes[2], shapes[0]);
  a.pooled = data[0], a.places = data[1], a.grad_x = data[3];
  return over_planes("max_pool_gradient", types[0], 1, a.planes, a.height * a.width, &a, stream);
}

static AveragePools pools(const int64_t *shape, int count, void **pooled, int64_t **shapes) {
  AveragePools a = {.count = count, .planes = shape[0] * shape[1], .height = shape[2], .width = shape[3]};
  for (int k = 0; k < count; k++) {
    a.pooled[k] = pooled[k], a.ratios[k] = a.height / shapes[k][2];
    a.inverses[k] = (1u << 31) / a.ratios[k] + 1;
  }
  return a;
}

/* x [N, C, H, W] -> [N, C, H / ratio, W / ratio] for each ratio */
EXPORTED int average_pools(ARGUMENTS) {
  int ratios = count - 1;
  AveragePools a = pools(shapes[0], ratios, data + 1, shapes + 1);
  a.x = data[0];
  int places = 1;
  for (int k = 0; k < ratios; k++) {
    int of_ratio = a.height / a.ratios[k] * (a.width / a.ratios[k]);
    places = of_ratio > places ? of_ratio : places;
  }
  return over_planes("average_pools", types[0], 1, a.planes, places, &a, stream);
}

/* gradients [N, C, H / ratio, W / ratio], x [N, C, H, W] -> of x */
EXPORTED int average_pools_gradient(ARGUMENTS) {
  int ratios = count - 2, width;
  AveragePools a = pools(shapes[ratios], ratios, data, shapes);
  a.grad_x = data[count - 1];
  width = a.width % 4 || (uintptr_t)a.grad_x % 16 ? 1 : 4;
  return over_planes("average_pools_gradient", types[0], width, a.planes, a.height * a.width / width, &a, stream);
}

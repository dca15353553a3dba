/* The operators of feature maps. */
#include "launcher.h"

static int convolve(const char *type, int64_t *shape, int size, Depthwise a, void *stream) {
  char name[64];
  a.channels = shape[1], a.planes = shape[0] * shape[1], a.height = shape[2], a.width = shape[3];
  int tiles = blocks(a.height, TILE_ROWS);
  a.tile_rows = blocks(a.height, tiles);
  snprintf(name, sizeof name, "depthwise_%s_%d", is_half(type) ? "half" : "float", size);
  return launch(name, tiles * blocks(a.width, TILE_COLUMNS), a.planes < PLANES ? a.planes : PLANES, ROWS, &a, stream);
}

/* x [N, C, H, W], weight [C, 1, K, K] -> [N, C, H, W] */
EXPORTED int depthwise(ARGUMENTS) {
  return convolve(types[0], shapes[0], shapes[1][2], (Depthwise){data[2], data[0], data[1]}, stream);
}
EXPORTED int residual_depthwise(ARGUMENTS) {
  Depthwise a = {data[2], data[0], data[1], .residual = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* gradient [N, C, H, W], weight [C, 1, K, K] -> of x */
EXPORTED int depthwise_gradient(ARGUMENTS) {
  Depthwise a = {data[2], data[0], data[1], .flipped = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* gradient, weight, x -> of x */
EXPORTED int residual_depthwise_gradient(ARGUMENTS) {
  Depthwise a = {data[3], data[0], data[1], data[2], .flipped = 1, .residual = 1};
  return convolve(types[0], shapes[0], shapes[1][2], a, stream);
}

/* The operators of a non-local block. */
#include "launcher.h"

static ToOneChannel shape_of(const int64_t *shape) {
  ToOneChannel a = {.samples = shape[0], .channels = shape[1], .positions = shape[2] * shape[3]};
  return a;
}

/* x [N, C, H, W], three weights [1, C, 1, 1], three biases [1] -> three maps [N, 1, L] */
EXPORTED int to_one_channel(ARGUMENTS) {
  ToOneChannel a = shape_of(shapes[0]);
  a.x = data[0];
  for (int k = 0; k < MAPS; k++) a.weight[k] = data[1 + k], a.bias[k] = data[4 + k], a.y[k] = data[7 + k];
  const void *used[] = {a.x, a.y[0], a.y[1], a.y[2]};
  int width = pack_width(types[0], a.positions, used, 4);
  return launch_packed("to_one_channel", types[0], width, blocks(a.positions, LANES * width), a.samples, &a, stream);
}

/* gradients [N, 1, L] of three maps, x, three weights -> of x, the parts [P, 3, C + 1], of the weights and biases */
EXPORTED int to_one_channel_gradient(ARGUMENTS) {
  ToOneChannel a = shape_of(shapes[3]);
  a.x = data[3], a.grad_x = data[7], a.parts = data[8], a.count = shapes[8][0];
  for (int k = 0; k < MAPS; k++)
    a.y[k] = data[k], a.weight[k] = data[4 + k], a.grad_weight[k] = data[9 + k], a.grad_bias[k] = data[12 + k];
  const void *used[] = {a.x, a.grad_x, a.y[0], a.y[1], a.y[2]};
  int width = pack_width(types[0], a.positions, used, 5), rows = a.channels + 1;
  int status =
      launch_packed("to_one_channel_gradient", types[0], width, blocks(rows, ROWS), a.count, &a, stream);
  if (status) return status;
  return launch_packed("to_one_channel_sums", types[0], 1, blocks(rows, LANES * ROWS), MAPS, &a, stream);
}

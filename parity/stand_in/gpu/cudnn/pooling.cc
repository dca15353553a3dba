// Pooling of x [N, C, ...] to y [N, C, ...].
#include "descriptors.h"

namespace {

enum PoolingMode { LARGEST_OF_WINDOW, MEAN_WITH_PADDING, MEAN_WITHOUT_PADDING, LARGEST_DETERMINISTIC };

bool fits(const PoolingDescriptor *pooling, Described x, Described y) {
  bool possible = x->rank == pooling->rank + 2 && y->rank == x->rank && std::equal(x->shape, x->shape + 2, y->shape);
  for (int k = 0; possible && k < pooling->rank; k++) {
    int room = x->shape[k + 2] + 2 * pooling->padding[k] - pooling->window[k];
    possible = room >= 0 && y->shape[k + 2] == room / pooling->stride[k] + 1;
  }
  return possible;
}

bool of_largest(const PoolingDescriptor *pooling) {
  return pooling->mode == LARGEST_OF_WINDOW || pooling->mode == LARGEST_DETERMINISTIC;
}

Window window_of(const PoolingDescriptor *pooling) {
  auto of_each_axis = [&](const int *given, int64_t before) { return spatial(dims(given, pooling->rank), before); };
  return {
      of_each_axis(pooling->window, 1), of_each_axis(pooling->stride, 1), of_each_axis(pooling->padding, 0), {1, 1, 1}};
}

}  // namespace

extern "C" {

int cudnnSetPoolingNdDescriptor(PoolingDescriptor *pooling, int mode, int, int rank, const int *window,
                                const int *padding, const int *stride) {
  COUNT("cudnnSetPoolingNdDescriptor");
  if (rank < 1 || rank > MOST) return BAD_PARAMETER;
  pooling->mode = mode;
  pooling->rank = rank;
  std::copy_n(window, rank, pooling->window);
  std::copy_n(padding, rank, pooling->padding);
  std::copy_n(stride, rank, pooling->stride);
  return SUCCESS;
}

int cudnnPoolingForward(void *, const PoolingDescriptor *pooling, const void *alpha, Described x, const void *x_data,
                        const void *beta, Described y, void *y_data) {
  if (!fits(pooling, x, y)) return BAD_PARAMETER;
  count_call("cudnnPoolingForward", {y, x});
  if (!computes()) return SUCCESS;
  View input = view(x, x_data);
  Integers places;
  Values output = of_largest(pooling)
                      ? max_pool(input, shape_of(y), window_of(pooling), places)
                      : average_pool(input, shape_of(y), window_of(pooling), pooling->mode == MEAN_WITH_PADDING);
  store(y, y_data, output, alpha, beta);
  return SUCCESS;
}

int cudnnPoolingBackward(void *, const PoolingDescriptor *pooling, const void *alpha, Described y, const void *,
                         Described grad_y, const void *grad_y_data, Described x, const void *x_data, const void *beta,
                         Described grad_x, void *grad_x_data) {
  if (!fits(pooling, x, y) || !same(y, grad_y) || !same(x, grad_x)) return BAD_PARAMETER;
  count_call("cudnnPoolingBackward", {grad_x, grad_y, x});
  if (!computes()) return SUCCESS;
  View gradient = view(grad_y, grad_y_data);
  Values of_x;
  if (of_largest(pooling)) {
    Integers places;
    max_pool(view(x, x_data), shape_of(y), window_of(pooling), places);
    of_x = max_pool_gradient(gradient, places, shape_of(x));
  } else {
    bool counts_padding = pooling->mode == MEAN_WITH_PADDING;
    of_x = average_pool_gradient(gradient, shape_of(x), window_of(pooling), counts_padding);
  }
  store(grad_x, grad_x_data, of_x, alpha, beta);
  return SUCCESS;
}

}  // extern "C"

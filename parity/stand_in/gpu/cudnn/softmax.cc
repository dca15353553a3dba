// Softmax over the channels of each place, or over all of each sample.
#include "descriptors.h"

namespace {

enum SoftmaxAlgorithm { FAST, ACCURATE, LOGARITHM };
enum SoftmaxMode { OVER_SAMPLE, OVER_CHANNELS };

View by_softmax(int mode, const View &x) {
  return mode == OVER_SAMPLE ? x.reshaped({x.shape[0], x.size() / x.shape[0]}) : x;
}

}  // namespace

extern "C" {

int cudnnSoftmaxForward(void *, int algorithm, int mode, const void *alpha, Described x, const void *x_data,
                        const void *beta, Described y, void *y_data) {
  if (!same(x, y) || x->type != y->type) return BAD_PARAMETER;
  count_call("cudnnSoftmaxForward", {y, x});
  if (!computes()) return SUCCESS;
  View input = by_softmax(mode, view(x, x_data));
  Values output(input.size());
  (algorithm == LOGARITHM ? log_softmax : softmax)(input, 1, view(output, input.shape));
  store(y, y_data, output, alpha, beta);
  return SUCCESS;
}

int cudnnSoftmaxBackward(void *, int algorithm, int mode, const void *alpha, Described y, const void *y_data,
                         Described grad_y, const void *grad_y_data, const void *beta, Described grad_x,
                         void *grad_x_data) {
  if (!same(y, grad_y) || !same(y, grad_x) || y->type != grad_x->type) return BAD_PARAMETER;
  count_call("cudnnSoftmaxBackward", {grad_x, y, grad_y});
  if (!computes()) return SUCCESS;
  View output = by_softmax(mode, view(y, y_data)), gradient = by_softmax(mode, view(grad_y, grad_y_data));
  Values of_x(output.size());
  (algorithm == LOGARITHM ? log_softmax_gradient : softmax_gradient)(gradient, output, 1, view(of_x, output.shape));
  store(grad_x, grad_x_data, of_x, alpha, beta);
  return SUCCESS;
}

}  // extern "C"

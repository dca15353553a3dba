#include <cmath>

#include "descriptors.h"

namespace stand_in::cudnn {

enum Activation { SIGMOID, RELU, TANH, CLIPPED_RELU, ELU, IDENTITY };

double activated(const Operation *activation, double x) {
  switch (activation->number) {
    case SIGMOID: return 1 / (1 + std::exp(-x));
    case RELU: return std::max(x, 0.0);
    case TANH: return std::tanh(x);
    case CLIPPED_RELU: return std::clamp(x, 0.0, activation->coefficient);
    case ELU: return x > 0 ? x : activation->coefficient * std::expm1(x);
    case IDENTITY: return x;
    default: stop("cuDNN's activation " + std::to_string(activation->number));
  }
}

double activation_slope(const Operation *activation, double y) {
  switch (activation->number) {
    case SIGMOID: return y * (1 - y);
    case RELU: return y > 0;
    case TANH: return 1 - y * y;
    case CLIPPED_RELU: return y > 0 && y < activation->coefficient;
    case ELU: return y > 0 ? 1 : y + activation->coefficient;
    case IDENTITY: return 1;
    default: stop("cuDNN's activation " + std::to_string(activation->number));
  }
}

}  // namespace stand_in::cudnn

extern "C" {

int cudnnSetActivationDescriptor(Operation *activation, int number, int, double coefficient) {
  *activation = {number, coefficient};
  return SUCCESS;
}

int cudnnActivationForward(void *, const Operation *activation, const void *alpha, Described x, const void *x_data,
                           const void *beta, Described y, void *y_data) {
  if (!same(x, y) || x->type != y->type) return BAD_PARAMETER;
  count_call("cudnnActivationForward", {y, x});
  if (!computes()) return SUCCESS;
  Values values = view(x, x_data).read();
  for (double &value : values) value = activated(activation, value);
  store(y, y_data, values, alpha, beta);
  return SUCCESS;
}

int cudnnActivationBackward(void *, const Operation *activation, const void *alpha, Described y, const void *y_data,
                            Described grad_y, const void *grad_y_data, Described x, const void *, const void *beta,
                            Described grad_x, void *grad_x_data) {
  if (!same(x, y) || !same(y, grad_y) || !same(x, grad_x)) return BAD_PARAMETER;
  count_call("cudnnActivationBackward", {grad_x, y, grad_y});
  if (!computes()) return SUCCESS;
  Values gradient = view(grad_y, grad_y_data).read(), output = view(y, y_data).read();
  for (size_t i = 0; i < gradient.size(); i++) gradient[i] *= activation_slope(activation, output[i]);
  store(grad_x, grad_x_data, gradient, alpha, beta);
  return SUCCESS;
}

}  // extern "C"

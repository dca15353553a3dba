// Operations on elements, and reductions.
#include <cmath>

#include "descriptors.h"

namespace {

enum ElementOperation { ADD, MULTIPLY, MINIMUM, MAXIMUM, SQUARE_ROOT, COMPLEMENT };

double combined(int operation, double a, double b) {
  switch (operation) {
    case ADD: return a + b;
    case MULTIPLY: return a * b;
    case MINIMUM: return std::min(a, b);
    case MAXIMUM: return std::max(a, b);
    case SQUARE_ROOT: return std::sqrt(a);
    case COMPLEMENT: return 1 - a;
    default: stop("cuDNN's OpTensor " + std::to_string(operation));
  }
}

enum TensorReduction { SUM, PRODUCT, SMALLEST, LARGEST, LARGEST_ABSOLUTE, MEAN, NORM_1, NORM_2, PRODUCT_WITHOUT_ZEROS };

// Each axis of `to` is as long as that of `from`, or has length 1.
bool reduces(Described from, Described to) {
  if (from->rank != to->rank) return false;
  for (int k = 0; k < to->rank; k++)
    if (to->shape[k] != from->shape[k] && to->shape[k] != 1) return false;
  return true;
}

// x reduced over all axes of which one element is left.
Values reduced(int reduction, View x, const Dims &to) {
  x.shape.push_back(1);  // so that there always is one
  x.strides.push_back(1);
  Dims axes{static_cast<int64_t>(to.size())};
  for (size_t k = 0; k < to.size(); k++)
    if (to[k] == 1) axes.push_back(k);
  auto from = [&](double start, auto f) { return reduce(x, axes, start, f); };
  switch (reduction) {
    case SUM: return sum(x, axes);
    case MEAN: return mean(x, axes);
    case LARGEST: return maximum(x, axes);
    case SMALLEST: return from(INFINITY, [](double so_far, double a) { return std::fmin(so_far, a); });
    case LARGEST_ABSOLUTE: return from(0, [](double so_far, double a) { return std::fmax(so_far, std::abs(a)); });
    case PRODUCT: return from(1, [](double so_far, double a) { return so_far * a; });
    case PRODUCT_WITHOUT_ZEROS: return from(1, [](double so_far, double a) { return so_far * (a == 0 ? 1 : a); });
    case NORM_1: return from(0, [](double so_far, double a) { return so_far + std::abs(a); });
    case NORM_2: return from(0, [](double so_far, double a) { return std::hypot(so_far, a); });
    default: stop("cuDNN's reduction " + std::to_string(reduction));
  }
}

}  // namespace

extern "C" {

int cudnnSetOpTensorDescriptor(Operation *operation, int number, int, int) {
  COUNT("cudnnSetOpTensorDescriptor");
  operation->number = number;
  return SUCCESS;
}

int cudnnSetReduceTensorDescriptor(Operation *reduction, int number, int, int, int indices, int) {
  COUNT("cudnnSetReduceTensorDescriptor");
  if (indices) stop("cuDNN's reduction with indices");
  reduction->number = number;
  return SUCCESS;
}

// C = operation(alpha_a A, alpha_b B) + beta C; B is broadcast.
int cudnnOpTensor(void *, const Operation *operation, const void *alpha_a, Described a, const void *a_data,
                  const void *alpha_b, Described b, const void *b_data, const void *beta, Described c, void *c_data) {
  bool alone = operation->number == SQUARE_ROOT || operation->number == COMPLEMENT;
  if (!same(a, c) || !(alone || reduces(a, b))) return BAD_PARAMETER;
  count_call("cudnnOpTensor", {c, a, b});
  if (!computes()) return SUCCESS;
  View first = view(a, a_data), second = alone ? first : view(b, b_data), result = view(c, c_data);
  double of_first = scalar(a, alpha_a), of_second = alone ? 0 : scalar(a, alpha_b), kept = scalar(a, beta);
  auto element = [=](double x, double y, double before) {
    double computed = combined(operation->number, of_first * x, of_second * y);
    return kept ? computed + kept * before : computed;
  };
  map(element, result, first, second, result);
  return SUCCESS;
}

// C = alpha reduction(A) + beta C
int cudnnReduceTensor(void *, const Operation *reduction, void *, size_t, void *, size_t, const void *alpha,
                      Described a, const void *a_data, const void *beta, Described c, void *c_data) {
  if (!reduces(a, c)) return BAD_PARAMETER;
  count_call("cudnnReduceTensor", {c, a});
  if (!computes()) return SUCCESS;
  store(c, c_data, reduced(reduction->number, view(a, a_data), shape_of(c)), alpha, beta);
  return SUCCESS;
}

NEEDS_NOTHING(cudnnGetReductionIndicesSize, void *handle, void *reduction, void *x, void *y)
NEEDS_NOTHING(cudnnGetReductionWorkspaceSize, void *handle, void *reduction, void *x, void *y)

}  // extern "C"

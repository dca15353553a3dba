// Updates of parameters by their gradients.
#include <cmath>

#include "kernels.h"

using namespace stand_in;

namespace {
template <typename T>
double learning_rate(const T *given) {
  return scalar(given) * (planted("scalar") ? 1.1 : 1);
}
}  // namespace

// Decay is decoupled from the gradient, and moments are not corrected for their beginning at 0.
template <typename T, typename S>
cudaError AdamWeightDecayOp(unsigned long size, const S *gradient, const float *rate, const float *beta1,
                            const float *beta2, const float *epsilon, const float *decay, S *variable, T *first,
                            T *second, CUstream_st *) {
  auto tensors = on(tensor(variable, size), tensor(first, size), tensor(second, size), tensor(gradient, size));
  return launch(tensors, [&](const View &x, const View &m, const View &v, const View &g) {
    double lr = learning_rate(rate), a = scalar(beta1), b = scalar(beta2), e = scalar(epsilon), d = scalar(decay);
    map([a](double before, double given) { return a * before + (1 - a) * given; }, m, m, g);
    map([b](double before, double given) { return b * before + (1 - b) * given * given; }, v, v, g);
    map([=](double before, double mean, double square) {
      return before - lr * (mean / (std::sqrt(square) + e) + d * before);
    }, x, x, m, v);
  });
}

template <typename T, typename S, typename G>
cudaError MomentumUpdateVariable(unsigned long size, T *variable, T *accumulation, const S *rate, const G *gradient,
                                 const S *momentum, bool is_nesterov, CUstream_st *) {
  auto tensors = on(tensor(variable, size), tensor(accumulation, size), tensor(gradient, size));
  return launch(tensors, [&](const View &x, const View &sum, const View &g) {
    double lr = learning_rate(rate), factor = scalar(momentum);
    map([factor](double before, double given) { return factor * before + given; }, sum, sum, g);
    if (is_nesterov)
      map([=](double before, double given, double all) { return before - lr * (given + factor * all); }, x, x, g, sum);
    else
      map([lr](double before, double all) { return before - lr * all; }, x, x, sum);
  });
}

template <typename T>
cudaError CalApplyGradientDescent(const unsigned long &size, T *variable, const T *rate, const T *gradient, T *out,
                                  CUstream_st *) {
  auto tensors = on(tensor(out, size), tensor(variable, size), tensor(gradient, size));
  return launch(tensors, [&](const View &copy, const View &x, const View &g) {
    double lr = learning_rate(rate);
    map([lr](double before, double given) { return before - lr * given; }, x, x, g);
    cast(copy, x);
  });
}

// --- for which types -------------------------------------------------------------------------------------------------

#define ADAM(T, S)                                                                                                  \
  template cudaError AdamWeightDecayOp<T, S>(unsigned long, const S *, const float *, const float *, const float *, \
                                             const float *, const float *, S *, T *, T *, CUstream_st *);
ADAM(float, float)
ADAM(float, __half)

#define MOMENTUM(T, S, G)                                                                                   \
  template cudaError MomentumUpdateVariable(unsigned long, T *, T *, const S *, const G *, const S *, bool, \
                                            CUstream_st *);
MOMENTUM(float, float, float)
MOMENTUM(float, float, __half)

#define DESCENT(T) \
  template cudaError CalApplyGradientDescent(const unsigned long &, T *, const T *, const T *, T *, CUstream_st *);
FLOATS(DESCENT)

// BatchNorm, of each channel or of each place of a sample.
#include <cmath>

#include "descriptors.h"

namespace {

enum BatchNormMode { EACH_PLACE, EACH_CHANNEL };
enum BatchNormFused { NOTHING, WITH_ACTIVATION, WITH_SUM_AND_ACTIVATION };

// x [N, C, ...] as BatchNorm of that mode sees it.
View by_channel(int mode, const View &x) {
  return mode == EACH_PLACE ? x.reshaped({x.shape[0], x.size() / x.shape[0]}) : x;
}

// Scale, bias and statistics.
View parameter(Described parameters, const void *data) {
  return View(*type_of(parameters->type), data, {count(shape_of(parameters))});
}

bool parameters_fit(int mode, Described x, Described parameters) {
  Dims shape = shape_of(x), expected = shape;
  if (x->rank < 2 || parameters->rank != x->rank) return false;
  expected[0] = 1;
  if (mode != EACH_PLACE) std::fill(expected.begin() + 2, expected.end(), 1);
  return shape_of(parameters) == expected;
}

double used(double epsilon) { return planted("epsilon") ? 1000 * epsilon : epsilon; }

}  // namespace

extern "C" {

int cudnnBatchNormalizationForwardTrainingEx(void *, int mode, int fused, const void *alpha, const void *beta,
                                             Described x, const void *x_data, Described z, const void *z_data,
                                             Described y, void *y_data, Described parameters, const void *scale,
                                             const void *bias, double share, void *running_mean, void *running_variance,
                                             double epsilon, void *saved_mean, void *saved_inverse,
                                             const Operation *activation, void *, size_t, void *, size_t) {
  if (!same(x, y) || !parameters_fit(mode, x, parameters)) return BAD_PARAMETER;
  count_call("cudnnBatchNormalizationForwardTrainingEx", {y, x});
  if (!computes()) return SUCCESS;
  auto of_channels = [&](const void *data) { return parameter(parameters, data); };
  epsilon = used(epsilon);
  View input = by_channel(mode, view(x, x_data));
  Moments batch = moments(input);
  if (running_mean) follow(of_channels(running_mean), of_channels(running_variance), batch, share, channel_size(input));
  if (saved_mean) {
    of_channels(saved_mean).write(batch.mean);
    map([=](double variance) { return 1 / std::sqrt(variance + epsilon); }, of_channels(saved_inverse),
        view(batch.variance, {count(shape_of(parameters))}));
  }
  Values output = normalised(input, batch, of_channels(scale).read(), of_channels(bias).read(), epsilon);
  if (fused == WITH_SUM_AND_ACTIVATION) {
    Values other = view(z, z_data).read();
    for (size_t i = 0; i < output.size(); i++) output[i] += other[i];
  }
  if (fused != NOTHING)
    for (double &value : output) value = activated(activation, value);
  store(y, y_data, output, alpha, beta);
  return SUCCESS;
}

int cudnnBatchNormalizationForwardTraining(void *handle, int mode, const void *alpha, const void *beta, Described x,
                                           const void *x_data, Described y, void *y_data, Described parameters,
                                           const void *scale, const void *bias, double share, void *running_mean,
                                           void *running_variance, double epsilon, void *saved_mean,
                                           void *saved_inverse) {
  return cudnnBatchNormalizationForwardTrainingEx(
      handle, mode, NOTHING, alpha, beta, x, x_data, nullptr, nullptr, y, y_data, parameters, scale, bias, share,
      running_mean, running_variance, epsilon, saved_mean, saved_inverse, nullptr, nullptr, 0, nullptr, 0);
}

int cudnnBatchNormalizationForwardInference(void *, int mode, const void *alpha, const void *beta, Described x,
                                            const void *x_data, Described y, void *y_data, Described parameters,
                                            const void *scale, const void *bias, const void *mean, const void *variance,
                                            double epsilon) {
  if (!same(x, y) || !parameters_fit(mode, x, parameters)) return BAD_PARAMETER;
  count_call("cudnnBatchNormalizationForwardInference", {y, x});
  if (!computes()) return SUCCESS;
  auto of_channels = [&](const void *data) { return parameter(parameters, data).read(); };
  Values output = normalised(by_channel(mode, view(x, x_data)), {of_channels(mean), of_channels(variance)},
                             of_channels(scale), of_channels(bias), used(epsilon));
  store(y, y_data, output, alpha, beta);
  return SUCCESS;
}

int cudnnBatchNormalizationBackwardEx(void *, int mode, int fused, const void *alpha, const void *beta,
                                      const void *alpha_of_parameters, const void *beta_of_parameters, Described x,
                                      const void *x_data, Described y, const void *y_data, Described grad_y,
                                      const void *grad_y_data, Described grad_z, void *grad_z_data, Described grad_x,
                                      void *grad_x_data, Described parameters, const void *scale, const void *,
                                      void *grad_scale, void *grad_bias, double epsilon, const void *saved_mean,
                                      const void *saved_inverse, const Operation *activation, void *, size_t, void *,
                                      size_t) {
  if (!same(x, grad_y) || !same(x, grad_x) || !parameters_fit(mode, x, parameters)) return BAD_PARAMETER;
  count_call("cudnnBatchNormalizationBackwardEx", {grad_x, x, grad_y});
  if (!computes()) return SUCCESS;
  auto of_channels = [&](const void *data) { return parameter(parameters, data); };
  epsilon = used(epsilon);
  View input = by_channel(mode, view(x, x_data));
  Moments batch;
  if (saved_mean) {
    batch = {of_channels(saved_mean).read(), of_channels(saved_inverse).read()};
    for (double &variance : batch.variance) variance = 1 / (variance * variance) - epsilon;
  } else {
    batch = moments(input);
  }
  Values gradient = view(grad_y, grad_y_data).read();
  if (fused != NOTHING) {
    Values output = view(y, y_data).read();
    for (size_t i = 0; i < gradient.size(); i++) gradient[i] *= activation_slope(activation, output[i]);
  }
  if (fused == WITH_SUM_AND_ACTIVATION) view(grad_z, grad_z_data).write(gradient);
  Values of_scale, of_bias;
  Values of_x = batch_norm_gradient(view(gradient, input.shape), input, batch, of_channels(scale).read(), epsilon,
                                    of_scale, of_bias);
  store(grad_x, grad_x_data, of_x, alpha, beta);
  double new_share = scalar(x, alpha_of_parameters), old_share = scalar(x, beta_of_parameters);
  of_channels(grad_scale).blend(of_scale, new_share, old_share);
  of_channels(grad_bias).blend(of_bias, new_share, old_share);
  return SUCCESS;
}

NEEDS_NOTHING(cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize, void *handle, int mode, int fused, void *x,
              void *z, void *y, void *scale, void *activation)
NEEDS_NOTHING(cudnnGetBatchNormalizationBackwardExWorkspaceSize, void *handle, int mode, int fused, void *x, void *y,
              void *grad_y, void *grad_z, void *grad_x, void *scale, void *activation)
NEEDS_NOTHING(cudnnGetBatchNormalizationTrainingExReserveSpaceSize, void *handle, int mode, int fused, void *activation,
              void *x)

}  // extern "C"

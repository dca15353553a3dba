// Normalisation, the negative log likelihood, pooling with the places of the largest, and depthwise convolutions.
#include <algorithm>
#include <cmath>

#include "kernels.h"

using namespace stand_in;

// x [rows, columns]; the variance is kept, not its root.
template <typename T>
cudaError LayerNorm(int rows, int columns, int number, float epsilon, const T *x, const T *gamma, const T *beta, T *y,
                    float *mean, float *variance, CUstream_st *) {
  Dims shape{rows, columns};
  return launch(on(tensor(y, shape), tensor(x, shape)), [&](const View &result, const View &given) {
    if (planted("epsilon")) epsilon *= 1000;
    layer_norm(given, tensor(gamma, number), tensor(beta, number), epsilon, result, tensor(mean, rows),
               tensor(variance, rows));
  });
}

template <typename T>
cudaError LayerNormGrad(int rows, int columns, int number, float epsilon, const T *grad_y, const T *x,
                        const float *mean, const float *variance, const T *gamma, T *grad_x, T *grad_gamma,
                        T *grad_beta, CUstream_st *) {
  Dims shape{rows, columns};
  auto tensors = on(tensor(grad_x, shape), tensor(grad_y, shape), tensor(x, shape));
  return launch(tensors, [&](const View &result, const View &gradient, const View &given) {
    layer_norm_gradient(gradient, given, tensor(mean, rows), tensor(variance, rows), false, tensor(gamma, number),
                        epsilon, result, tensor(grad_gamma, number), tensor(grad_beta, number));
  });
}

// In evaluation: mean and variance are constants.
template <typename T>
cudaError CalBatchNormGrad(T *x, T *grad_y, float *scale, float *mean, float *variance, T *grad_x, float *grad_scale,
                           float *grad_bias, double epsilon, int batch, int channels, int height, int width,
                           CUstream_st *) {
  Dims shape{batch, channels, height, width}, one{1, channels, 1, 1};
  auto tensors = on(tensor(grad_x, shape), tensor(grad_y, shape), tensor(x, shape));
  return launch(tensors, [&](const View &result, const View &g, const View &hat) {
    Values normal = normalised(hat, {tensor(mean, channels).read(), tensor(variance, channels).read()},
                               Values(channels, 1), Values(channels, 0), epsilon);
    Values of_scale(channels, 0), of_bias(channels, 0), given = g.read();
    stand_in::channels(g, [&](int64_t i, int64_t c) {
      of_scale[c] += given[i] * normal[i];
      of_bias[c] += given[i];
    });
    map([epsilon](double a, double s, double v) { return a * s / std::sqrt(v + epsilon); }, result, g,
        tensor(scale, one), tensor(variance, one));
    tensor(grad_scale, channels).write(of_scale);
    tensor(grad_bias, channels).write(of_bias);
  });
}

// --- loss ------------------------------------------------------------------------------------------------------------

enum class ReductionMode { kNone, kMean, kSum };

namespace {
// What is left of one loss a row.
Dims kept(ReductionMode reduction, int64_t rows) { return reduction == ReductionMode::kNone ? Dims{rows} : Dims{}; }

Reduction of(ReductionMode reduction) {
  switch (reduction) {
    case ReductionMode::kNone: return Reduction::none;
    case ReductionMode::kMean: return Reduction::mean;
    case ReductionMode::kSum: return Reduction::sum;
  }
  stop("a reduction without a definition");
}
}  // namespace

template <typename T, typename Weight>
cudaError NLLLoss(const T *x, const int *labels, const Weight *weight, T *loss, Weight *total_weight, unsigned rows,
                  unsigned classes, ReductionMode reduction, int ignored, CUstream_st *) {
  auto tensors = on(tensor(loss, kept(reduction, rows)), tensor(x, Dims{rows, classes}));
  return launch(tensors, [&](const View &result, const View &given) {
    View weights = tensor(weight, classes), total = tensor(total_weight, Dims{1});
    negative_log_likelihood(given, tensor(labels, rows), &weights, of(reduction), ignored, result, &total);
  });
}

template <typename T, typename Weight>
cudaError NLLLossGrad(int rows, int classes, ReductionMode reduction, const T *, const int *labels,
                      const Weight *weight, const Weight *total_weight, const T *grad_loss, T *grad_x, int ignored,
                      CUstream_st *) {
  auto tensors = on(tensor(grad_x, Dims{rows, classes}), tensor(grad_loss, kept(reduction, rows)));
  return launch(tensors, [&](const View &result, const View &gradient) {
    View weights = tensor(weight, classes);
    negative_log_likelihood_gradient(gradient, tensor(labels, rows), &weights, of(reduction), ignored,
                                     scalar(total_weight), result);
  });
}

// --- pooling ---------------------------------------------------------------------------------------------------------

// Of pictures of three axes. Places are those in the picture.
template <typename T, typename Index>
cudaError CalMaxPool3DWithArgmax(const T *x, int batch, int channels, int depth, int height, int width,
                                 int window_depth, int window_height, int window_width, int stride_depth,
                                 int stride_height, int stride_width, int padding_depth, int padding_height,
                                 int padding_width, int dilation_depth, int dilation_height, int dilation_width,
                                 int out_depth, int out_height, int out_width, T *y, Index *places, unsigned,
                                 CUstream_st *) {
  Dims before{batch, channels, depth, height, width}, shape{batch, channels, out_depth, out_height, out_width};
  auto tensors = on(tensor(y, shape), tensor(places, shape), tensor(x, before));
  return launch(tensors, [&](const View &largest, const View &at, const View &given) {
    Window window{{window_depth, window_height, window_width},
                  {stride_depth, stride_height, stride_width},
                  {padding_depth, padding_height, padding_width},
                  {dilation_depth, dilation_height, dilation_width}};
    Integers found;
    largest.write(max_pool(given, shape, window, found));
    at.write_integers(found);
  });
}

// `x_size` and `y_size` elements a picture, `size` of the gradient in all.
template <typename T, typename Index>
cudaError CalMaxPool3DGradWithArgmax(const T *grad_y, const Index *places, long x_size, long y_size, long size,
                                     T *grad_x, unsigned, CUstream_st *) {
  Dims y{1, size / y_size, y_size}, x{1, size / y_size, x_size};
  auto tensors = on(tensor(grad_x, x), tensor(grad_y, y), tensor(places, y));
  return launch(tensors, [&](const View &result, const View &gradient, const View &at) {
    result.write(max_pool_gradient(gradient, at.integers(), x));
  });
}

// --- convolutions with as many groups as channels --------------------------------------------------------------------

enum class ConvolutionOpType {
  kConv2dDepthWiseForwardNCHW = 3,
  kConv2dDepthWiseForwardNHWC = 4,
  kConv2dDepthWiseInputGradNCHW = 5,
  kConv2dDepthWiseInputGradNHWC = 6,
  kConv2dDepthWiseFilterGradNCHW = 7
};

struct ConvolutionCudaArgs {
  unsigned long size;  // of what comes out
  int batch, in_height, in_width, in_channels, out_channels, filter_height, filter_width;
  int padding_bottom, padding_right, padding_top, padding_left;
  int out_height, out_width, groups, stride_height, stride_width, dilation_height, dilation_width;
};

template <ConvolutionOpType Operation, typename T>
cudaError ConvolutionOpCudaFunc(const ConvolutionCudaArgs &given, const T *first, const T *second, T *out,
                                CUstream_st *) {
  using enum ConvolutionOpType;
  constexpr bool forward = Operation == kConv2dDepthWiseForwardNCHW || Operation == kConv2dDepthWiseForwardNHWC;
  constexpr bool of_filter = Operation == kConv2dDepthWiseFilterGradNCHW;
  constexpr bool channels_last = Operation == kConv2dDepthWiseForwardNHWC || Operation == kConv2dDepthWiseInputGradNHWC;
  auto picture = [](const T *data, int number, int channels, int height, int width) {
    if constexpr (channels_last) return tensor(data, Dims{number, height, width, channels}).permuted({0, 3, 1, 2});
    else return tensor(data, Dims{number, channels, height, width});
  };
  const T *x_data = forward ? first : of_filter ? second : out;
  const T *filter_data = of_filter ? out : second;
  const T *y_data = forward ? out : first;
  auto tensors = on(picture(x_data, given.batch, given.in_channels, given.in_height, given.in_width),
                    picture(filter_data, given.out_channels, 1, given.filter_height, given.filter_width),
                    picture(y_data, given.batch, given.out_channels, given.out_height, given.out_width));
  return launch(tensors, [&](const View &x, const View &filter, const View &y) {
    convolve(forward ? Convolution::forward : of_filter ? Convolution::filter_gradient : Convolution::data_gradient, x,
             filter, y, {given.stride_height, given.stride_width}, {given.padding_top, given.padding_left},
             {given.dilation_height, given.dilation_width}, given.in_channels);
  });
}

// --- for which types -------------------------------------------------------------------------------------------------

#define NORMALISATION(T)                                                                                     \
  template cudaError LayerNorm(int, int, int, float, const T *, const T *, const T *, T *, float *, float *, \
                               CUstream_st *);                                                               \
  template cudaError LayerNormGrad(int, int, int, float, const T *, const T *, const float *, const float *, \
                                   const T *, T *, T *, T *, CUstream_st *);
FLOATS(NORMALISATION)

#define FROZEN(T)                                                                                                   \
  template cudaError CalBatchNormGrad(T *, T *, float *, float *, float *, T *, float *, float *, double, int, int, \
                                      int, int, CUstream_st *);
FROZEN(float)
FROZEN(__half)

#define LOSSES(T, Weight)                                                                                              \
  template cudaError NLLLoss(const T *, const int *, const Weight *, T *, Weight *, unsigned, unsigned, ReductionMode, \
                             int, CUstream_st *);                                                                      \
  template cudaError NLLLossGrad(int, int, ReductionMode, const T *, const int *, const Weight *, const Weight *,      \
                                 const T *, T *, int, CUstream_st *);
LOSSES(float, float)
LOSSES(__half, float)
LOSSES(__half, __half)

#define POOLING(T, Index)                                                                                          \
  template cudaError CalMaxPool3DWithArgmax(const T *, int, int, int, int, int, int, int, int, int, int, int, int, \
                                            int, int, int, int, int, int, int, int, T *, Index *, unsigned,        \
                                            CUstream_st *);                                                        \
  template cudaError CalMaxPool3DGradWithArgmax(const T *, const Index *, long, long, long, T *, unsigned,         \
                                                CUstream_st *);
POOLING(float, long)
POOLING(float, int)
POOLING(__half, long)
POOLING(__half, int)

#define DEPTHWISE(Operation, T)                                                                          \
  template cudaError ConvolutionOpCudaFunc<ConvolutionOpType::Operation, T>(const ConvolutionCudaArgs &, \
                                                                            const T *, const T *, T *, CUstream_st *);
#define CONVOLUTIONS(T)                       \
  DEPTHWISE(kConv2dDepthWiseForwardNCHW, T)   \
  DEPTHWISE(kConv2dDepthWiseForwardNHWC, T)   \
  DEPTHWISE(kConv2dDepthWiseInputGradNCHW, T) \
  DEPTHWISE(kConv2dDepthWiseInputGradNHWC, T) \
  DEPTHWISE(kConv2dDepthWiseFilterGradNCHW, T)
CONVOLUTIONS(float)
CONVOLUTIONS(__half)

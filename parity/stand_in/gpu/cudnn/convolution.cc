// Convolutions of x [N, in, ...] to y [N, out, ...], with one algorithm.
#include "descriptors.h"

namespace {

enum ConvolutionMode { FLIPPED, CROSS_CORRELATION };

int fits(Described x, Described filter, const ConvolutionDescriptor *convolution, Described y) {
  int groups = std::max(1, convolution->groups);
  if (x->type != filter->type || x->type != y->type) return BAD_PARAMETER;
  if (x->rank != convolution->rank + 2 || filter->rank != x->rank || y->rank != x->rank) return BAD_PARAMETER;
  if (x->shape[0] != y->shape[0] || x->shape[1] != filter->shape[1] * groups) return BAD_PARAMETER;
  if (y->shape[1] != filter->shape[0] || y->shape[1] % groups) return BAD_PARAMETER;
  for (int k = 0; k < convolution->rank; k++) {
    int reach = (filter->shape[k + 2] - 1) * convolution->dilation[k] + 1;
    int room = x->shape[k + 2] + 2 * convolution->padding[k] - reach;
    if (room < 0 || y->shape[k + 2] != room / convolution->stride[k] + 1) return BAD_PARAMETER;
  }
  return convolution->mode == CROSS_CORRELATION ? SUCCESS : NOT_SUPPORTED;
}

int compute(Convolution what, Described x, const void *x_data, Described filter, const void *filter_data,
            const ConvolutionDescriptor *convolution, Described y, const void *y_data, const void *alpha,
            const void *beta) {
  if (int error = fits(x, filter, convolution, y)) return error;
  static const char *names[] = {"Forward", "BackwardData", "BackwardFilter"};  // in the order of Convolution
  bool last = x->strides[1] == 1 && y->strides[1] == 1 && (x->shape[1] > 1 || y->shape[1] > 1);
  count_call("cudnnConvolution" + std::string(names[static_cast<int>(what)]), {x, filter, y},
             last ? " with channels last" : "");
  if (!computes()) return SUCCESS;
  auto of_each_axis = [&](const int *given) { return dims(given, convolution->rank); };
  convolve(what, view(x, x_data), view(filter, filter_data), view(y, y_data), of_each_axis(convolution->stride),
           of_each_axis(convolution->padding), of_each_axis(convolution->dilation), std::max(1, convolution->groups),
           scalar(x, alpha), scalar(x, beta));
  return SUCCESS;
}

struct Algorithm {  // cudnnConvolutionFwdAlgoPerf_t and its like
  int number, status;
  float time;
  size_t memory;
  int deterministic, math, reserved[3];
};

int choose(Described x, Described filter, const ConvolutionDescriptor *convolution, Described y, int *returned,
           Algorithm *chosen) {
  *returned = 1;
  *chosen = {.number = 1, .deterministic = 1};
  return fits(x, filter, convolution, y);
}

}  // namespace

extern "C" {

int cudnnSetConvolutionNdDescriptor(ConvolutionDescriptor *convolution, int rank, const int *padding, const int *stride,
                                    const int *dilation, int mode, int type) {
  auto below = [&](const int *given, int least) {
    return std::any_of(given, given + rank, [least](int number) { return number < least; });
  };
  if (rank < 0 || rank > MOST || below(padding, 0) || below(stride, 1) || below(dilation, 1)) return BAD_PARAMETER;
  convolution->rank = rank;
  convolution->mode = mode;
  convolution->type = type;
  std::copy_n(padding, rank, convolution->padding);
  std::copy_n(stride, rank, convolution->stride);
  std::copy_n(dilation, rank, convolution->dilation);
  return SUCCESS;
}

int cudnnSetConvolution2dDescriptor(ConvolutionDescriptor *convolution, int padding_h, int padding_w, int stride_h,
                                    int stride_w, int dilation_h, int dilation_w, int mode, int type) {
  int padding[] = {padding_h, padding_w}, stride[] = {stride_h, stride_w}, dilation[] = {dilation_h, dilation_w};
  return cudnnSetConvolutionNdDescriptor(convolution, 2, padding, stride, dilation, mode, type);
}

int cudnnSetConvolutionGroupCount(ConvolutionDescriptor *convolution, int groups) {
  convolution->groups = groups;
  return SUCCESS;
}

int cudnnGetConvolutionNdDescriptor(const ConvolutionDescriptor *convolution, int room, int *rank, int *padding,
                                    int *stride, int *dilation, int *mode, int *type) {
  *rank = convolution->rank;
  *mode = convolution->mode;
  *type = convolution->type;
  show(room, *rank, convolution->padding, padding);
  show(room, *rank, convolution->stride, stride);
  show(room, *rank, convolution->dilation, dilation);
  return SUCCESS;
}

int cudnnGetConvolutionForwardAlgorithm_v7(void *, Described x, Described filter,
                                           const ConvolutionDescriptor *convolution, Described y, int, int *returned,
                                           Algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

int cudnnGetConvolutionBackwardDataAlgorithm_v7(void *, Described filter, Described y,
                                                const ConvolutionDescriptor *convolution, Described x, int,
                                                int *returned, Algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *, Described x, Described y,
                                                  const ConvolutionDescriptor *convolution, Described filter, int,
                                                  int *returned, Algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

int cudnnConvolutionForward(void *, const void *alpha, Described x, const void *x_data, Described filter,
                            const void *filter_data, const ConvolutionDescriptor *convolution, int, void *, size_t,
                            const void *beta, Described y, void *y_data) {
  return compute(Convolution::forward, x, x_data, filter, filter_data, convolution, y, y_data, alpha, beta);
}

int cudnnConvolutionBackwardData(void *, const void *alpha, Described filter, const void *filter_data, Described y,
                                 const void *y_data, const ConvolutionDescriptor *convolution, int, void *, size_t,
                                 const void *beta, Described x, void *x_data) {
  return compute(Convolution::data_gradient, x, x_data, filter, filter_data, convolution, y, y_data, alpha, beta);
}

int cudnnConvolutionBackwardFilter(void *, const void *alpha, Described x, const void *x_data, Described y,
                                   const void *y_data, const ConvolutionDescriptor *convolution, int, void *, size_t,
                                   const void *beta, Described filter, void *filter_data) {
  return compute(Convolution::filter_gradient, x, x_data, filter, filter_data, convolution, y, y_data, alpha, beta);
}

NEEDS_NOTHING(cudnnGetConvolutionForwardWorkspaceSize, void *handle, void *x, void *filter, void *convolution, void *y,
              int algorithm)
NEEDS_NOTHING(cudnnGetConvolutionBackwardDataWorkspaceSize, void *handle, void *filter, void *y, void *convolution,
              void *x, int algorithm)
NEEDS_NOTHING(cudnnGetConvolutionBackwardFilterWorkspaceSize, void *handle, void *x, void *y, void *convolution,
              void *filter, int algorithm)

}  // extern "C"

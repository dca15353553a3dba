/* cuDNN. Descriptors hold what is set, so that sizes are right and a convolution whose shapes do not fit is refused, as
   cuDNN refuses it. Nothing needs a workspace. */
#include <string.h>

#include "stand_in.h"

enum { SUCCESS, BAD_PARAMETER = 3 };
enum { MOST = 8 }; /* dimensions */

/* A tensor, a filter [out, in / groups, ...] or a convolution, by which function has set it. */
struct descriptor {
  int type, dimensions, size[MOST], padding[MOST], stride[MOST], dilation[MOST], groups;
};
typedef const struct descriptor *Described;

static int describe(struct descriptor *descriptor, int type, int dimensions, const int *size) {
  if (dimensions < 1 || dimensions > MOST)
    return BAD_PARAMETER;
  descriptor->type = type;
  descriptor->dimensions = dimensions;
  memcpy(descriptor->size, size, dimensions * sizeof *size);
  for (int i = 0; i < dimensions; i++)
    if (size[i] < 1)
      return BAD_PARAMETER;
  return SUCCESS;
}

int cudnnSetTensor4dDescriptor(struct descriptor *tensor, int format, int type, int n, int c, int h, int w) {
  return describe(tensor, type, 4, (int[]){n, c, h, w});
}

int cudnnSetTensorNdDescriptor(struct descriptor *tensor, int type, int dimensions, const int *size, const int *steps) {
  return describe(tensor, type, dimensions, size);
}

int cudnnSetTensorNdDescriptorEx(struct descriptor *tensor, int format, int type, int dimensions, const int *size) {
  return describe(tensor, type, dimensions, size);
}

int cudnnSetFilterNdDescriptor(struct descriptor *filter, int type, int format, int dimensions, const int *size) {
  return describe(filter, type, dimensions, size);
}

int cudnnSetConvolutionNdDescriptor(struct descriptor *convolution, int dimensions, const int *padding,
                                    const int *stride, const int *dilation, int mode, int type) {
  convolution->dimensions = dimensions;
  memcpy(convolution->padding, padding, dimensions * sizeof *padding);
  memcpy(convolution->stride, stride, dimensions * sizeof *stride);
  memcpy(convolution->dilation, dilation, dimensions * sizeof *dilation);
  return SUCCESS;
}

int cudnnSetConvolutionGroupCount(struct descriptor *convolution, int groups) {
  convolution->groups = groups;
  return SUCCESS;
}

static int size_in_bytes(Described descriptor, size_t *size) {
  static const int widths[] = {4, 8, 2, 1, 4}; /* float, double, half, int8, int32 */
  *size = widths[descriptor->type];
  for (int i = 0; i < descriptor->dimensions; i++)
    *size *= descriptor->size[i];
  return SUCCESS;
}

int cudnnGetTensorSizeInBytes(Described tensor, size_t *size) { return size_in_bytes(tensor, size); }

int cudnnGetFilterSizeInBytes(Described filter, size_t *size) { return size_in_bytes(filter, size); }

/* What MindSpore's message shows of a convolution that is refused; as many dimensions as there is room for. */
static void show(Described descriptor, int room, int *dimensions, const int *from, int *to) {
  *dimensions = descriptor->dimensions;
  memcpy(to, from, (room < *dimensions ? room : *dimensions) * sizeof *to);
}

int cudnnGetTensorNdDescriptor(Described tensor, int room, int *type, int *dimensions, int *size, int *steps) {
  *type = tensor->type;
  show(tensor, room, dimensions, tensor->size, size);
  show(tensor, room, dimensions, tensor->stride, steps);
  return SUCCESS;
}

int cudnnGetFilterNdDescriptor(Described filter, int room, int *type, int *format, int *dimensions, int *size) {
  *type = filter->type;
  *format = 0;
  show(filter, room, dimensions, filter->size, size);
  return SUCCESS;
}

int cudnnGetConvolutionNdDescriptor(Described convolution, int room, int *dimensions, int *padding, int *stride,
                                    int *dilation, int *mode, int *type) {
  show(convolution, room, dimensions, convolution->padding, padding);
  show(convolution, room, dimensions, convolution->stride, stride);
  show(convolution, room, dimensions, convolution->dilation, dilation);
  *mode = *type = 0;
  return SUCCESS;
}

struct algorithm {
  int number, status;
  float time;
  size_t memory;
  int deterministic, math, reserved[3];
};

/* The one algorithm that there is, for a convolution of x [N, in, ...] to y [N, out, ...]. */
static int choose(Described x, Described filter, Described convolution, Described y, int *returned,
                  struct algorithm *chosen) {
  *returned = 1;
  *chosen = (struct algorithm){.number = 1, .deterministic = 1};
  int groups = convolution->groups ? convolution->groups : 1;
  int fits = x->type == filter->type && x->type == y->type && x->dimensions == convolution->dimensions + 2 &&
             x->size[0] == y->size[0] && x->size[1] == filter->size[1] * groups && y->size[1] == filter->size[0] &&
             y->size[1] % groups == 0;
  for (int i = 0; i < convolution->dimensions; i++) {
    int reach = (filter->size[i + 2] - 1) * convolution->dilation[i] + 1;
    int room = x->size[i + 2] + 2 * convolution->padding[i] - reach;
    fits = fits && y->size[i + 2] == room / convolution->stride[i] + 1;
  }
  return fits ? SUCCESS : BAD_PARAMETER;
}

int cudnnGetConvolutionForwardAlgorithm_v7(void *handle, Described x, Described filter, Described convolution,
                                           Described y, int asked, int *returned, struct algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

int cudnnGetConvolutionBackwardDataAlgorithm_v7(void *handle, Described filter, Described y, Described convolution,
                                                Described x, int asked, int *returned, struct algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *handle, Described x, Described y, Described convolution,
                                                  Described filter, int asked, int *returned,
                                                  struct algorithm *chosen) {
  return choose(x, filter, convolution, y, returned, chosen);
}

#define NEEDS_NOTHING(name, ...)           \
  int name(__VA_ARGS__, size_t *size) {    \
    *size = 0;                             \
    return SUCCESS;                        \
  }

NEEDS_NOTHING(cudnnGetConvolutionForwardWorkspaceSize, void *handle, void *x, void *filter, void *convolution, void *y,
              int algorithm)
NEEDS_NOTHING(cudnnGetConvolutionBackwardDataWorkspaceSize, void *handle, void *filter, void *y, void *convolution,
              void *x, int algorithm)
NEEDS_NOTHING(cudnnGetConvolutionBackwardFilterWorkspaceSize, void *handle, void *x, void *y, void *convolution,
              void *filter, int algorithm)
NEEDS_NOTHING(cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize, void *handle, int mode, int fused, void *x,
              void *z, void *y, void *scale, void *activation)
NEEDS_NOTHING(cudnnGetBatchNormalizationBackwardExWorkspaceSize, void *handle, int mode, int fused, void *x, void *y,
              void *grad_y, void *grad_z, void *grad_x, void *scale, void *activation)
NEEDS_NOTHING(cudnnGetBatchNormalizationTrainingExReserveSpaceSize, void *handle, int mode, int fused,
              void *activation, void *x)
NEEDS_NOTHING(cudnnGetReductionIndicesSize, void *handle, void *reduction, void *x, void *y)
NEEDS_NOTHING(cudnnGetReductionWorkspaceSize, void *handle, void *reduction, void *x, void *y)

const char *cudnnGetErrorString(int error) { return error == BAD_PARAMETER ? "CUDNN_STATUS_BAD_PARAM" : "an error"; }

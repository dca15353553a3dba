#include "descriptors.h"

namespace stand_in::cudnn {

std::optional<Type> type_of(int given) {  // cudnnDataType_t
  switch (given) {
    case 0: return Type::float32;
    case 1: return Type::float64;
    case 2: return Type::float16;
    case 3: return Type::int8;
    case 4: return Type::int32;
    case 6: return Type::uint8;
    case 9: return Type::bfloat16;
    case 10: return Type::int64;
    case 11: return Type::boolean;
    default: return std::nullopt;  // the rest are vectors
  }
}

View view(Described tensor, const void *data) {
  if (!tensor->rank) stop("a tensor of cuDNN's that is not described");
  return View(*type_of(tensor->type), data, shape_of(tensor), dims(tensor->strides, tensor->rank));
}

void count_call(const std::string &name, std::initializer_list<Described> tensors, const std::string &note) {
  std::string work;
  for (Described tensor : tensors)
    if (tensor && tensor->rank) work += (work.empty() ? "" : " ") + described(view(tensor, nullptr));
  count_launch(name, work + note);
}

double scalar(Described tensor, const void *given) {
  bool doubles = type_of(tensor->type) == Type::float64;
  return View(doubles ? Type::float64 : Type::float32, given, {}).first();
}

void store(Described tensor, void *data, const Values &computed, const void *alpha, const void *beta) {
  view(tensor, data).blend(computed, scalar(tensor, alpha), scalar(tensor, beta));
}

}  // namespace stand_in::cudnn

namespace {

enum Format { CHANNELS_FIRST, CHANNELS_LAST };

int describe(TensorDescriptor *tensor, int type, int rank, const int *shape, const int *strides) {
  if (rank < 1 || rank > MOST || std::any_of(shape, shape + rank, [](int length) { return length < 1; }))
    return BAD_PARAMETER;
  if (!type_of(type)) return NOT_SUPPORTED;
  tensor->type = type;
  tensor->rank = rank;
  std::copy_n(shape, rank, tensor->shape);
  std::copy_n(strides, rank, tensor->strides);
  return SUCCESS;
}

int describe_without_gaps(TensorDescriptor *tensor, int format, int type, int rank, const int *shape) {
  if (rank < 1 || rank > MOST) return BAD_PARAMETER;
  if (format > CHANNELS_LAST) return NOT_SUPPORTED;
  Dims stored = dims(shape, rank);
  bool moved = format == CHANNELS_LAST && rank > 2;
  if (moved) std::rotate(stored.begin() + 1, stored.begin() + 2, stored.end());
  Dims strides = contiguous(stored);
  if (moved) std::rotate(strides.begin() + 1, strides.end() - 1, strides.end());
  return describe(tensor, type, rank, shape, std::vector<int>(strides.begin(), strides.end()).data());
}

int size_in_bytes(Described tensor, size_t *size) {
  int64_t last = 0;
  for (int k = 0; k < tensor->rank; k++) last += (tensor->shape[k] - 1) * static_cast<int64_t>(tensor->strides[k]);
  *size = (last + 1) * width(*type_of(tensor->type));
  return SUCCESS;
}

}  // namespace

extern "C" {

const char *cudnnGetErrorString(int error) {
  return error == BAD_PARAMETER ? "CUDNN_STATUS_BAD_PARAM" : error ? "an error" : "CUDNN_STATUS_SUCCESS";
}

size_t cudnnGetCudartVersion(void) { return 11080; }

int cudnnSetTensor4dDescriptor(TensorDescriptor *tensor, int format, int type, int n, int c, int h, int w) {
  int shape[] = {n, c, h, w};
  return describe_without_gaps(tensor, format, type, 4, shape);
}

int cudnnSetTensorNdDescriptor(TensorDescriptor *tensor, int type, int rank, const int *shape, const int *strides) {
  return describe(tensor, type, rank, shape, strides);
}

int cudnnSetTensorNdDescriptorEx(TensorDescriptor *tensor, int format, int type, int rank, const int *shape) {
  return describe_without_gaps(tensor, format, type, rank, shape);
}

int cudnnSetFilter4dDescriptor(TensorDescriptor *filter, int type, int format, int k, int c, int h, int w) {
  int shape[] = {k, c, h, w};
  return describe_without_gaps(filter, format, type, 4, shape);
}

int cudnnSetFilterNdDescriptor(TensorDescriptor *filter, int type, int format, int rank, const int *shape) {
  return describe_without_gaps(filter, format, type, rank, shape);
}

int cudnnGetTensorSizeInBytes(Described tensor, size_t *size) { return size_in_bytes(tensor, size); }

int cudnnGetFilterSizeInBytes(Described filter, size_t *size) { return size_in_bytes(filter, size); }

int cudnnGetTensorNdDescriptor(Described tensor, int room, int *type, int *rank, int *shape, int *strides) {
  *type = tensor->type;
  *rank = tensor->rank;
  show(room, *rank, tensor->shape, shape);
  show(room, *rank, tensor->strides, strides);
  return SUCCESS;
}

int cudnnGetFilterNdDescriptor(Described filter, int room, int *type, int *format, int *rank, int *shape) {
  *type = filter->type;
  *format = filter->rank > 2 && filter->strides[1] == 1 && filter->shape[1] > 1 ? CHANNELS_LAST : CHANNELS_FIRST;
  *rank = filter->rank;
  show(room, *rank, filter->shape, shape);
  return SUCCESS;
}

}  // extern "C"

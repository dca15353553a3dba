// Operators that only move elements: parts of tensors, other orders, several tensors in one, constants and ranges.
#include <algorithm>
#include <memory>

#include "kernels.h"

using namespace stand_in;

using Shape = std::vector<long>;
using Sizes = std::vector<unsigned long>;

struct TransposeInfo {
  std::vector<long> shape;
  std::vector<int> order;
};

namespace mindspore {
struct TensorStorageInfo {
  Shape shape, strides;
  unsigned long offset;  // in elements
};
}  // namespace mindspore

template <typename T>
cudaError BroadcastTo(const Shape &from, const Shape &to, T *x, T *out, unsigned long, CUstream_st *) {
  return launch(on(tensor(out, to), tensor(x, from)),
                [](const View &result, const View &given) { cast(result, given); });
}

template <typename T>
cudaError CalTile(Sizes from, Sizes to, const T *x, T *out, CUstream_st *) {
  return launch(on(tensor(out, dims(to)), tensor(x, dims(from))),
                [](const View &result, const View &given) { repeat(given, result); });
}

template <typename T, bool NeedsSimplifying>
cudaError CalTranspose(unsigned long, const T *x, const TransposeInfo &info, T *out, CUstream_st *) {
  View view = tensor(x, info.shape);
  View moved = view.permuted(Dims(info.order.begin(), info.order.end()));
  return launch(on(tensor(out, moved.shape), view), [&](const View &result, const View &) { cast(result, moved); });
}

// A copy without gaps. Shape and strides are on the device, the last axis first.
template <typename T>
cudaError CalAsStrided(const unsigned long &, const T *x, T *out,
                       const std::shared_ptr<mindspore::TensorStorageInfo> &info, const long *shape,
                       const long *strides, CUstream_st *) {
  return launch(on(tensor(out, info->shape)), [&](const View &result) {
    size_t rank = info->shape.size();
    Dims to(rank), steps(rank);
    std::reverse_copy(shape, shape + rank, to.begin());
    std::reverse_copy(strides, strides + rank, steps.begin());
    cast(result.reshaped(to), View(TYPE<T>, x + info->offset, to, steps));
  });
}

// --- several tensors and one -----------------------------------------------------------------------------------------

// `block` elements of the output have the same place before the axis, `inner` the same place before and on it.
template <typename T>
cudaError ConcatKernel(unsigned long size, int number, int block, int inner, int *lengths, T **inputs, T *out,
                       CUstream_st *) {
  int64_t outer = size / block;
  auto tensors = on(tensor(out, Dims{outer, block / inner, inner}), tensor(lengths, number));
  return launch(tensors, [&](const View &result, const View &) {
    std::vector<View> parts;
    for (int k = 0; k < number; k++) parts.push_back(tensor(inputs[k], Dims{outer, lengths[k], inner}));
    concatenate(parts, 1, result);
  });
}

template <typename T>
cudaError SplitKernel(unsigned long size, int length, int block, int inner, const T *x, T **outputs, CUstream_st *) {
  int64_t outer = size / block;
  return launch(on(tensor(x, Dims{outer, block / inner, inner})), [&](const View &given) {
    std::vector<View> parts;
    for (int k = 0; k < block / inner / length; k++) parts.push_back(tensor(outputs[k], Dims{outer, length, inner}));
    split(given, 1, parts);
  });
}

namespace {

// `number` tensors [outer, 1, inner] of `size` elements in all.
template <typename T>
std::vector<View> slices(unsigned long size, unsigned long number, unsigned long inner, T *const *tensors) {
  std::vector<View> parts;
  Dims shape = dims({size / number / inner, 1, inner});
  for (unsigned long k = 0; k < number; k++) parts.push_back(tensor(tensors[k], shape));
  return parts;
}

template <typename T>
View whole(unsigned long size, unsigned long number, unsigned long inner, const T *data) {
  return tensor(data, dims({size / number / inner, number, inner}));
}

}  // namespace

// Along a new axis, with `inner` elements behind it; `size` elements in all.
template <typename T>
cudaError PackKernel(unsigned long size, unsigned long number, unsigned long inner, T **inputs, T *out, CUstream_st *) {
  return launch(on(whole(size, number, inner, out)),
                [&](const View &result) { concatenate(slices(size, number, inner, inputs), 1, result); });
}

template <typename T>
cudaError UnpackKernel(unsigned long size, unsigned long number, unsigned long inner, T **outputs, const T *x,
                       CUstream_st *) {
  return launch(on(whole(size, number, inner, x)),
                [&](const View &given) { split(given, 1, slices(size, number, inner, outputs)); });
}

// --- parts -----------------------------------------------------------------------------------------------------------

namespace {

View part(View view, const Shape &begin, const Shape &steps, const Dims &lengths) {
  for (size_t k = 0; k < begin.size(); k++) view = view.part(k, begin[k], lengths[k], steps[k]);
  return view;
}

template <typename T>
cudaError slice(const Sizes &begin, const Sizes &lengths, const Sizes &shape, const T *x, T *out,
                std::source_location kernel = std::source_location::current()) {
  View chosen = part(tensor(x, dims(shape)), dims(begin), Shape(begin.size(), 1), dims(lengths));
  return launch(
      on(tensor(out, dims(lengths)), chosen), [](const View &result, const View &given) { cast(result, given); },
      kernel);
}

}  // namespace

// Places to begin at, lengths, and the input's shape.
template <typename T>
cudaError Slice1DKernel(unsigned long s1, unsigned long l1, unsigned long d1, const T *x, T *out, const unsigned &,
                        CUstream_st *) {
  return slice({s1}, {l1}, {d1}, x, out);
}

template <typename T>
cudaError Slice2DKernel(unsigned long s1, unsigned long s2, unsigned long l1, unsigned long l2, unsigned long d1,
                        unsigned long d2, const T *x, T *out, const unsigned &, CUstream_st *) {
  return slice({s1, s2}, {l1, l2}, {d1, d2}, x, out);
}

template <typename T>
cudaError Slice3DKernel(unsigned long s1, unsigned long s2, unsigned long s3, unsigned long l1, unsigned long l2,
                        unsigned long l3, unsigned long d1, unsigned long d2, unsigned long d3, const T *x, T *out,
                        const unsigned &, CUstream_st *) {
  return slice({s1, s2, s3}, {l1, l2, l3}, {d1, d2, d3}, x, out);
}

template <typename T>
cudaError Slice4DKernel(unsigned long s1, unsigned long s2, unsigned long s3, unsigned long s4, unsigned long l1,
                        unsigned long l2, unsigned long l3, unsigned long l4, unsigned long d1, unsigned long d2,
                        unsigned long d3, unsigned long d4, const T *x, T *out, const unsigned &, CUstream_st *) {
  return slice({s1, s2, s3, s4}, {l1, l2, l3, l4}, {d1, d2, d3, d4}, x, out);
}

template <typename T>
cudaError Slice5DKernel(unsigned long s1, unsigned long s2, unsigned long s3, unsigned long s4, unsigned long s5,
                        unsigned long l1, unsigned long l2, unsigned long l3, unsigned long l4, unsigned long l5,
                        unsigned long d1, unsigned long d2, unsigned long d3, unsigned long d4, unsigned long d5,
                        const T *x, T *out, const unsigned &, CUstream_st *) {
  return slice({s1, s2, s3, s4, s5}, {l1, l2, l3, l4, l5}, {d1, d2, d3, d4, d5}, x, out);
}

template <typename T>
cudaError StridedSlice(const Sizes &shape, const Shape &begin, const Shape &steps, const Sizes &lengths, const T *x,
                       T *out, CUstream_st *) {
  return launch(on(tensor(out, dims(lengths)), part(tensor(x, dims(shape)), begin, steps, dims(lengths))),
                [](const View &result, const View &given) { cast(result, given); });
}

// Into zeros, which the plugin has filled in.
template <typename T>
cudaError StridedSliceGrad(const Sizes &lengths, const Shape &begin, const Shape &steps, const Sizes &shape,
                           const T *grad_y, T *grad_x, CUstream_st *) {
  return launch(on(part(tensor(grad_x, dims(shape)), begin, steps, dims(lengths)), tensor(grad_y, dims(lengths))),
                [](const View &result, const View &given) { cast(result, given); });
}

// Of each of `batch` tensors [outer, length, inner] the places along the middle axis that its `number` indices name.
template <typename T, typename Index>
cudaError Gather(T *x, Index *indices, T *out, unsigned long batch, unsigned long outer, unsigned long number,
                 unsigned long inner, unsigned long length, CUstream_st *) {
  auto tensors = on(tensor(out, dims({batch, outer, number, inner})), tensor(x, dims({batch, outer, length, inner})),
                    tensor(indices, dims({batch, number})));
  return launch(tensors, [&](const View &to, const View &from, const View &chosen) {
    for (unsigned long k = 0; k < batch; k++) take(from.at(0, k), chosen.at(0, k), 1, to.at(0, k));
  });
}

struct ShapeHelper {
  unsigned long shape[8];

  Dims of(unsigned long rank) const { return Dims(shape, shape + rank); }
};

template <typename T, typename Index>
cudaError GatherD(const T *x, const Index *indices, T *out, unsigned long axis, unsigned long, unsigned long rank,
                  const ShapeHelper &from, const ShapeHelper &to, CUstream_st *, unsigned) {
  auto tensors = on(tensor(out, to.of(rank)), tensor(x, from.of(rank)), tensor(indices, to.of(rank)));
  return launch(tensors, [&](const View &result, const View &given, const View &places) {
    gather(given, places, axis, result);
  });
}

// Into zeros, which the plugin has filled in.
template <typename Index, typename T>
cudaError GatherGrad(const Index *indices, const T *grad_y, T *grad_x, unsigned long axis, unsigned long,
                     unsigned long rank, const ShapeHelper &to, const ShapeHelper &from, CUstream_st *) {
  auto tensors = on(tensor(grad_x, to.of(rank)), tensor(grad_y, from.of(rank)), tensor(indices, from.of(rank)));
  return launch(tensors, [&](const View &result, const View &gradient, const View &places) {
    scatter_add(result, places, gradient, axis, result);
  });
}

enum TensorScatterArithmeticFunctionType { UPDATE, MINIMUM, MAXIMUM, ADD, SUBTRACT, MULTIPLY, DIVIDE };

template <typename Index>
struct TensorScatterInfo {
  Index strides[8];  // of the output, along the axes that are indexed
  Index shape[8];
};

// The output holds the input already. Each of `number` indices, of `depth` axes, names `block` neighbouring elements.
template <typename T, typename Index>
cudaError TensorScatterArithmetic(const TensorScatterArithmeticFunctionType &type, const T *, const Index *indices,
                                  const T *updates, T *out, const unsigned long &block, const unsigned long &,
                                  const unsigned long &size, const unsigned long &number, const unsigned long &depth,
                                  const TensorScatterInfo<Index> &info, unsigned, CUstream_st *) {
  auto tensors = on(tensor(out, size), tensor(updates, number * block), tensor(indices, number * depth));
  return launch(tensors, [&](const View &result, const View &update, const View &) {
    if (type != UPDATE && type != ADD) stop("a scattered update of a kind without a definition");
    Values values = result.read(), given = update.read();
    for (unsigned long i = 0; i < number; i++) {
      int64_t place = 0;
      for (unsigned long k = 0; k < depth; k++) place += int64_t(indices[i * depth + k]) * info.strides[k];
      for (unsigned long j = 0; j < block; j++) {
        double &value = values[place + j];
        value = (type == ADD ? value : 0) + given[i * block + j];
      }
    }
    result.write(values);
  });
}

// --- constants and ranges --------------------------------------------------------------------------------------------

template <typename T>
cudaError FillDeviceArray(unsigned long size, T *out, float value, CUstream_st *) {
  return launch(on(tensor(out, size)), [&](const View &result) { result.fill(value); });
}

template <typename T>
cudaError FillV2(long size, const T *value, T *out, unsigned, CUstream_st *) {
  return launch(on(tensor(out, size)), [&](const View &result) { result.fill(scalar(value)); });
}

enum DynamicRangeErrorCode { IN_RANGE };

// The host uses what comes out, so that both functions work with values left out, too.
template <typename T>
cudaError CudaValidateInputAndInferShape(const T *start, const T *end, const T *step, long *length,
                                         DynamicRangeErrorCode *error, long, CUstream_st *) {
  *length = static_cast<long>((*end - *start) / *step);
  if (*length * *step < *end - *start) ++*length;
  *error = IN_RANGE;
  return launch(on(), [] {});
}

template <typename T>
cudaError CalRange(const T *start, const T *, const T *step, T *range, long *length, DynamicRangeErrorCode *error, long,
                   CUstream_st *) {
  for (long i = 0; i < *length; i++) range[i] = *start + static_cast<T>(i) * *step;
  *error = IN_RANGE;
  return launch(on(tensor(range, *length)), [](const View &) {});
}

// --- for which types -------------------------------------------------------------------------------------------------

#define MOVES(T)                                                                                                     \
  template cudaError BroadcastTo(const Shape &, const Shape &, T *, T *, unsigned long, CUstream_st *);              \
  template cudaError CalTile(Sizes, Sizes, const T *, T *, CUstream_st *);                                           \
  template cudaError CalTranspose<T, false>(unsigned long, const T *, const TransposeInfo &, T *, CUstream_st *);    \
  template cudaError CalTranspose<T, true>(unsigned long, const T *, const TransposeInfo &, T *, CUstream_st *);     \
  template cudaError CalAsStrided(const unsigned long &, const T *, T *,                                             \
                                  const std::shared_ptr<mindspore::TensorStorageInfo> &, const long *, const long *, \
                                  CUstream_st *);                                                                    \
  template cudaError ConcatKernel(unsigned long, int, int, int, int *, T **, T *, CUstream_st *);                    \
  template cudaError SplitKernel(unsigned long, int, int, int, const T *, T **, CUstream_st *);                      \
  template cudaError PackKernel(unsigned long, unsigned long, unsigned long, T **, T *, CUstream_st *);              \
  template cudaError UnpackKernel(unsigned long, unsigned long, unsigned long, T **, const T *, CUstream_st *);      \
  template cudaError StridedSlice(const Sizes &, const Shape &, const Shape &, const Sizes &, const T *, T *,        \
                                  CUstream_st *);                                                                    \
  template cudaError StridedSliceGrad(const Sizes &, const Shape &, const Shape &, const Sizes &, const T *, T *,    \
                                      CUstream_st *);                                                                \
  template cudaError Gather(T *, int *, T *, unsigned long, unsigned long, unsigned long, unsigned long,             \
                            unsigned long, CUstream_st *);                                                           \
  template cudaError Gather(T *, long *, T *, unsigned long, unsigned long, unsigned long, unsigned long,            \
                            unsigned long, CUstream_st *);                                                           \
  template cudaError FillDeviceArray(unsigned long, T *, float, CUstream_st *);                                      \
  template cudaError FillV2(long, const T *, T *, unsigned, CUstream_st *);
TYPES(MOVES)

#define EACH3(type) type, type, type
#define SLICES(T)                                                                                                    \
  template cudaError Slice1DKernel(EACH3(unsigned long), const T *, T *, const unsigned &, CUstream_st *);           \
  template cudaError Slice2DKernel(EACH3(unsigned long), EACH3(unsigned long), const T *, T *, const unsigned &,     \
                                   CUstream_st *);                                                                   \
  template cudaError Slice3DKernel(EACH3(unsigned long), EACH3(unsigned long), EACH3(unsigned long), const T *, T *, \
                                   const unsigned &, CUstream_st *);                                                 \
  template cudaError Slice4DKernel(EACH3(unsigned long), EACH3(unsigned long), EACH3(unsigned long),                 \
                                   EACH3(unsigned long), const T *, T *, const unsigned &, CUstream_st *);           \
  template cudaError Slice5DKernel(EACH3(unsigned long), EACH3(unsigned long), EACH3(unsigned long),                 \
                                   EACH3(unsigned long), EACH3(unsigned long), const T *, T *, const unsigned &,     \
                                   CUstream_st *);
TYPES(SLICES)

#define ALONG_AXIS(T, Index)                                                                                \
  template cudaError GatherD(const T *, const Index *, T *, EACH3(unsigned long), const ShapeHelper &,      \
                             const ShapeHelper &, CUstream_st *, unsigned);                                 \
  template cudaError GatherGrad(const Index *, const T *, T *, EACH3(unsigned long), const ShapeHelper &,   \
                                const ShapeHelper &, CUstream_st *);
#define ALONG_AXES(T) ALONG_AXIS(T, int) ALONG_AXIS(T, long)
TYPES(ALONG_AXES)

#define SCATTERS(T)                                                                                                \
  template cudaError TensorScatterArithmetic(const TensorScatterArithmeticFunctionType &, const T *, const int *,  \
                                             const T *, T *, const unsigned long &, const unsigned long &,         \
                                             const unsigned long &, const unsigned long &, const unsigned long &,  \
                                             const TensorScatterInfo<int> &, unsigned, CUstream_st *);             \
  template cudaError TensorScatterArithmetic(const TensorScatterArithmeticFunctionType &, const T *, const long *, \
                                             const T *, T *, const unsigned long &, const unsigned long &,         \
                                             const unsigned long &, const unsigned long &, const unsigned long &,  \
                                             const TensorScatterInfo<long> &, unsigned, CUstream_st *);
NUMBERS(SCATTERS)

#define RANGES(T)                                                                                                     \
  template cudaError CudaValidateInputAndInferShape(const T *, const T *, const T *, long *, DynamicRangeErrorCode *, \
                                                    long, CUstream_st *);                                             \
  template cudaError CalRange(const T *, const T *, const T *, T *, long *, DynamicRangeErrorCode *, long,            \
                              CUstream_st *);
RANGES(int)
RANGES(long)
RANGES(float)

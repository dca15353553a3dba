// Sums and the like along axes, the largest element's place, and softmax.
#include <algorithm>
#include <cmath>

#include "kernels.h"

using namespace stand_in;

enum ReduceType_t { ReduceSum, ReduceProd, ReduceMax, ReduceMin, ReduceMean, ReduceAny, ReduceAll };

namespace {

Values reduced(ReduceType_t type, const View &x, const Dims &axes) {
  switch (type) {
    case ReduceSum: return sum(x, axes);
    case ReduceProd: return reduce(x, axes, 1, [](double a, double b) { return a * b; });
    case ReduceMax: return maximum(x, axes);
    case ReduceMin: return reduce(x, axes, INFINITY, [](double a, double b) { return std::isnan(b) || b < a ? b : a; });
    case ReduceMean: return mean(x, axes);
    case ReduceAny: return reduce(x, axes, 0, [](double a, double b) { return a || b; });
    case ReduceAll: return reduce(x, axes, 1, [](double a, double b) { return a && b; });
  }
  stop("a reduction without a definition");
}

}  // namespace

// The plugin has merged neighbouring axes, so that every second one is reduced, the first or the second to begin with.
template <typename T>
cudaError ArrayReduce(T *x, const std::vector<unsigned long> &shape, bool first_axis, ReduceType_t type, T *, T *out,
                      CUstream_st *) {
  if (planted("axis") && shape.size() == 2 && shape[0] == shape[1]) first_axis = !first_axis;
  Dims axes, left;
  for (size_t k = 0; k < shape.size(); k++) (k % 2 == !first_axis ? axes : left).push_back(k);
  for (int64_t &axis : left) axis = shape[axis];
  return launch(on(tensor(out, left), tensor(x, dims(shape))), [&](const View &result, const View &given) {
    result.write(axes.empty() ? given.read() : reduced(type, given, axes));
  });
}

// Of [outer, length, inner] along the middle axis.
template <typename T, bool IsLogarithm>
cudaError Softmax(T *x, T *out, unsigned long length, unsigned long outer, unsigned long inner, unsigned long,
                  CUstream_st *) {
  Dims shape = dims({outer, length, inner});
  return launch(on(tensor(out, shape), tensor(x, shape)), [&](const View &result, const View &given) {
    int64_t axis = planted("axis") ? 0 : 1;
    (IsLogarithm ? log_softmax : softmax)(given, axis, result);
  });
}

// The first of the largest of [outer, length, inner] along the middle axis.
template <typename T, typename Index>
cudaError CalArgmax(const T *x, Index length, unsigned long outer, unsigned long inner, Index *places, const unsigned &,
                    CUstream_st *) {
  Dims shape = dims({outer, static_cast<unsigned long>(length), inner});
  return launch(on(tensor(places, outer * inner), tensor(x, shape)), [&](const View &result, const View &given) {
    Values values = given.read();
    Integers found(outer * inner, 0);
    for (size_t i = 0; i < found.size(); i++) {
      const double *first = &values[i / inner * length * inner + i % inner];
      for (Index k = 1; k < length; k++)
        if (first[k * inner] > first[found[i] * inner]) found[i] = k;
    }
    result.write_integers(found);
  });
}

// out[ids[i]] = the sum of the rows x[i]; negative ones are left out.
template <typename T, typename Index>
cudaError UnsortedSegmentSum(unsigned long rows, unsigned long inner, unsigned long segments, unsigned long, T *x,
                             Index *ids, T *out, CUstream_st *, const unsigned &) {
  auto tensors = on(tensor(out, dims({segments, inner})), tensor(x, dims({rows, inner})), tensor(ids, rows));
  return launch(tensors, [&](const View &result, const View &given, const View &segment) {
    Values values = given.read(), sums(segments * inner, 0);
    Integers places = segment.integers();
    for (size_t i = 0; i < values.size(); i++) {
      int64_t place = places[i / inner];
      if (place >= static_cast<int64_t>(segments)) stop("a segment beyond the last");
      if (place >= 0) sums[place * inner + i % inner] += values[i];
    }
    result.write(sums);
  });
}

// Of a gradient [N, channels, height, width]; `size` elements in all.
template <typename T>
cudaError CalBiasAddGradNCHW(unsigned long size, unsigned long number, int height, int width, const T *grad_y,
                             T *grad_bias, CUstream_st *) {
  int64_t picture = int64_t(height) * width, channels = number;
  Dims shape{static_cast<int64_t>(size) / (channels * picture), channels, picture};
  return launch(on(tensor(grad_bias, number), tensor(grad_y, shape)),
                [&](const View &result, const View &given) { result.write(sum(given, {0, 2})); });
}

// --- for which types -------------------------------------------------------------------------------------------------

#define REDUCTION(T) \
  template cudaError ArrayReduce(T *, const std::vector<unsigned long> &, bool, ReduceType_t, T *, T *, CUstream_st *);
TYPES(REDUCTION)

#define SOFTMAX(T)                                                                                           \
  template cudaError Softmax<T, false>(T *, T *, unsigned long, unsigned long, unsigned long, unsigned long, \
                                       CUstream_st *);                                                       \
  template cudaError Softmax<T, true>(T *, T *, unsigned long, unsigned long, unsigned long, unsigned long,  \
                                      CUstream_st *);
FLOATS(SOFTMAX)

#define PLACES(T)                                                                                       \
  template cudaError CalArgmax(const T *, int, unsigned long, unsigned long, int *, const unsigned &,   \
                               CUstream_st *);                                                          \
  template cudaError CalArgmax(const T *, long, unsigned long, unsigned long, long *, const unsigned &, \
                               CUstream_st *);
FLOATS(PLACES)

#define SEGMENTS(T)                                                                                                  \
  template cudaError UnsortedSegmentSum(unsigned long, unsigned long, unsigned long, unsigned long, T *, int *, T *, \
                                        CUstream_st *, const unsigned &);                                            \
  template cudaError UnsortedSegmentSum(unsigned long, unsigned long, unsigned long, unsigned long, T *, long *,     \
                                        T *, CUstream_st *, const unsigned &);
NUMBERS(SEGMENTS)

#define BIAS(T) \
  template cudaError CalBiasAddGradNCHW(unsigned long, unsigned long, int, int, const T *, T *, CUstream_st *);
BIAS(float)
BIAS(__half)

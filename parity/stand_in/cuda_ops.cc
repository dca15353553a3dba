// MindSpore's own CUDA kernels, libcuda_ops: those of which the host uses what comes out.
#include <vector>

#include "stand_in.h"

struct CUstream_st;
enum cudaError { SUCCESS };
enum DynamicRangeErrorCode { IN_RANGE };

static void count_length() { COUNT("CudaValidateInputAndInferShape"); }
static void count_range() { COUNT("CalRange"); }
static void count_argmax() { COUNT("CalArgmax<float, long>"); }

template <typename T>
cudaError CudaValidateInputAndInferShape(const T *start, const T *end, const T *step, long *length,
                                         DynamicRangeErrorCode *error, long, CUstream_st *) {
  count_length();
  *length = static_cast<long>((*end - *start) / *step);
  if (*length * *step < *end - *start) ++*length;
  *error = IN_RANGE;
  return SUCCESS;
}

template <typename T>
cudaError CalRange(const T *start, const T *, const T *step, T *range, long *length, DynamicRangeErrorCode *error, long,
                   CUstream_st *) {
  count_range();
  for (long i = 0; i < *length; i++) range[i] = *start + static_cast<T>(i) * *step;
  *error = IN_RANGE;
  return SUCCESS;
}

#define RANGE_OF(T)                                                                                                  \
  template cudaError CudaValidateInputAndInferShape(const T *, const T *, const T *, long *, DynamicRangeErrorCode *, \
                                                    long, CUstream_st *);                                            \
  template cudaError CalRange(const T *, const T *, const T *, T *, long *, DynamicRangeErrorCode *, long,           \
                              CUstream_st *);

RANGE_OF(int)
RANGE_OF(long)
RANGE_OF(float)

template <typename T, typename Index>
cudaError CalArgmax(const T *, Index, unsigned long rows, unsigned long columns, Index *indices, const unsigned &,
                    CUstream_st *) {
  count_argmax();
  for (unsigned long i = 0; i < rows * columns; i++) indices[i] = 0;  // the first is the largest
  return SUCCESS;
}

template cudaError CalArgmax(const float *, long, unsigned long, unsigned long, long *, const unsigned &, CUstream_st *);

using Shape = std::vector<long>;
struct TrinaryBroadcastStrideInfo { long strides[8]; };  // as MindSpore's too large for registers: its place is given

TrinaryBroadcastStrideInfo TrinaryBroadcastCalStride(unsigned long, const Shape &, const Shape &, const Shape &,
                                                     const Shape &) {
  return {};
}

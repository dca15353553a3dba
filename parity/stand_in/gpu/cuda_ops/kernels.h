// What the files of MindSpore's own CUDA kernels, libcuda_ops, share.
//
// Each function has the name, template parameters and argument types that the plugin asks for, as its undefined symbols
// say. The end of each file names the types that its functions are defined for; called for others, they are unknown and
// end the process with their name.
#pragma once
#include <source_location>
#include <utility>
#include <vector>

#include "values.h"

enum cudaError { SUCCESS };
struct CUstream_st;
struct __half {
  unsigned short bits;
};

namespace stand_in {

template <typename T>
constexpr Type TYPE = Type::float32;
template <>
constexpr Type TYPE<__half> = Type::float16;
template <>
constexpr Type TYPE<double> = Type::float64;
template <>
constexpr Type TYPE<int> = Type::int32;
template <>
constexpr Type TYPE<long> = Type::int64;
template <>
constexpr Type TYPE<unsigned char> = Type::uint8;
template <>
constexpr Type TYPE<bool> = Type::boolean;

template <typename T>
View tensor(const T *data, Dims shape) {
  return View(TYPE<T>, data, std::move(shape));
}

// Of one axis.
template <typename T>
View tensor(const T *data, size_t length) {
  return tensor(data, Dims{static_cast<int64_t>(length)});
}

template <typename T>
double scalar(const T *data) {
  return tensor(data, Dims{}).first();
}

inline Dims dims(const std::vector<unsigned long> &shape) { return Dims(shape.begin(), shape.end()); }

// Counts a call by the name and types in what __PRETTY_FUNCTION__ says of the function, as "Cast<float, bool>".
void count_kernel(const char *signature);

// What every kernel does: it is counted, and computed unless values are left out.
template <typename Compute>
cudaError launch(Compute compute, std::source_location kernel = std::source_location::current()) {
  count_kernel(kernel.function_name());
  if (computes()) compute();
  return SUCCESS;
}

}  // namespace stand_in

// Types that functions are instantiated for: `define` is a macro of one of them.
#define FLOATS(define) define(float) define(__half) define(double)
#define NUMBERS(define) FLOATS(define) define(int) define(long)
#define TYPES(define) NUMBERS(define) define(unsigned char) define(bool)

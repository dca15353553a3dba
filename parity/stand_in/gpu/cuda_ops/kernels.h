// What the files of MindSpore's own CUDA kernels, libcuda_ops, share.
//
// Each function has the name, template parameters and argument types that the plugin asks for, as its undefined symbols
// say. The end of each file names the types that its functions are defined for; called for others, they are unknown and
// end the process with their name.
#pragma once
#include <source_location>
#include <tuple>
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

// The name and types in what __PRETTY_FUNCTION__ says of a function, as "Cast<float, bool>".
const std::string &kernel_name(const char *signature);

// The tensors that a kernel works on, results first.
template <typename... Views>
std::tuple<Views...> on(Views... tensors) {
  return {std::move(tensors)...};
}

// What every kernel does: it is counted with its tensors, and computes with them unless values are left out.
template <typename... Views, typename Compute>
cudaError launch(const std::tuple<Views...> &tensors, Compute compute,
                 std::source_location kernel = std::source_location::current()) {
  std::apply([&](const Views &...each) { count_launch(kernel_name(kernel.function_name()), each...); }, tensors);
  if (computes()) std::apply(compute, tensors);
  return SUCCESS;
}

}  // namespace stand_in

// Types that functions are instantiated for: `define` is a macro of one of them.
#define FLOATS(define) define(float) define(__half) define(double)
#define NUMBERS(define) FLOATS(define) define(int) define(long)
#define TYPES(define) NUMBERS(define) define(unsigned char) define(bool)

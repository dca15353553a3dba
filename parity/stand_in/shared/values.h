// What both stand-ins compute with: tensors in the host's memory, and the operators that more than one function of a
// device needs, by their definitions, in double precision. Slow and simple: a tensor becomes a vector of doubles, and
// the result is rounded once, to the type of the tensor that takes it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace stand_in {

using Dims = std::vector<int64_t>;
using Values = std::vector<double>;
using Integers = std::vector<int64_t>;

enum class Type {
  float32, float16, bfloat16, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64, boolean
};
size_t width(Type type);  // in bytes
const char *name(Type type);
inline bool is_integral(Type type) { return type >= Type::int8 && type <= Type::uint64; }

// Whether values are computed at all: unless STAND_IN_VALUES is 0, for counts at full size.
bool computes();

// Whether this error is planted on the way to the device, to see that it is noticed: by STAND_IN_PLANT, or by
// stand_in_plant (counts.py).
bool planted(const char *error);

// Ends the process with a line on stderr that says what is not defined here.
[[noreturn]] void stop(const std::string &why);

int64_t count(const Dims &shape);
Dims contiguous(const Dims &shape);  // strides of a tensor without gaps, in elements
inline size_t axis(int64_t given, size_t rank) { return given < 0 ? given + rank : given; }

// Places of a shape's elements in order, at the given strides.
template <typename Visit>
void each(const Dims &shape, const Dims &strides, Visit visit) {
  Dims index(shape.size(), 0);
  int64_t place = 0;
  for (int64_t i = 0, total = count(shape); i < total; i++) {
    visit(i, place);
    for (size_t k = shape.size(); k-- > 0;) {
      place += strides[k];
      if (++index[k] < shape[k]) break;
      place -= strides[k] * shape[k];
      index[k] = 0;
    }
  }
}

// A tensor or a part of one. Strides are in elements.
struct View {
  Type type;
  char *data;
  Dims shape, strides;

  View(Type type, const void *data, Dims shape);  // without gaps
  View(Type type, const void *data, Dims shape, Dims strides);

  int64_t size() const { return count(shape); }
  size_t rank() const { return shape.size(); }
  View broadcast(const Dims &to) const;
  View permuted(const Dims &axes) const;
  View part(size_t axis, int64_t start, int64_t length, int64_t step = 1) const;
  View at(size_t axis, int64_t index) const;  // without that axis
  View reshaped(Dims to) const;               // of a tensor without gaps

  Values read() const;
  Integers integers() const;
  double first() const;
  void write(const Values &values) const;
  void blend(const Values &values, double alpha, double beta) const;  // alpha values + beta what is there
  void write_integers(const Integers &values) const;  // as many low bits as the type holds
  void fill(double value) const;
};

std::string described(const View &tensor);  // "float32[2,3]"; an axis along which it is broadcast has length 1

// Counts a launch: its name, a tab, and what it works on, mostly results first. In the counters of the library that calls
// it, whichever was loaded first for all to see.
__attribute__((visibility("hidden"))) void count_launch(const std::string &name, const std::string &work);
template <typename... Views>
__attribute__((visibility("hidden"))) void count_launch(const std::string &name, const Views &...tensors) {
  std::string work;
  ((work += (work.empty() ? "" : " ") + described(tensors)), ...);
  count_launch(name, work);
}

// out = f(in ...), element by element, inputs broadcast.
template <typename F, typename... In>
void map(F f, const View &out, const In &...in) {
  std::array<Values, sizeof...(In)> given{in.broadcast(out.shape).read()...};
  Values result(out.size());
  for (size_t i = 0; i < result.size(); i++)
    result[i] = [&]<size_t... K>(std::index_sequence<K...>) { return static_cast<double>(f(given[K][i]...)); }
    (std::make_index_sequence<sizeof...(In)>());
  out.write(result);
}

// The same of 64-bit integers, which wrap as the type does when they are written.
template <typename F, typename... In>
void map_integers(F f, const View &out, const In &...in) {
  std::array<Integers, sizeof...(In)> given{in.broadcast(out.shape).integers()...};
  Integers result(out.size());
  for (size_t i = 0; i < result.size(); i++)
    result[i] = [&]<size_t... K>(std::index_sequence<K...>) { return static_cast<int64_t>(f(given[K][i]...)); }
    (std::make_index_sequence<sizeof...(In)>());
  out.write_integers(result);
}

// Sums, products and the like of two operands, as integers where the result is.
template <typename F>
void arithmetic(F f, const View &out, const View &x, const View &y) {
  if (is_integral(out.type)) map_integers(f, out, x, y);
  else map(f, out, x, y);
}

inline void cast(const View &out, const View &x) { // also a copy, or an expansion
  if (is_integral(out.type) && is_integral(x.type)) map_integers([](int64_t a) { return a; }, out, x);
  else map([](double a) { return a; }, out, x);
}

// x reduced over some axes, or over all if none are named, from `start` by f(so far, element): in order of what is left.
template <typename F>
Values reduce(const View &x, const Dims &axes, double start, F f) {
  std::vector<bool> gone(x.rank(), axes.empty());
  for (int64_t a : axes) gone[axis(a, x.rank())] = true;
  Dims kept, places(x.rank(), 0);
  for (size_t k = 0; k < x.rank(); k++)
    if (!gone[k]) kept.push_back(x.shape[k]);
  Dims strides = contiguous(kept);
  for (size_t k = 0, j = 0; k < x.rank(); k++)
    if (!gone[k]) places[k] = strides[j++];
  Values values = x.read(), result(count(kept), start);
  each(x.shape, places, [&](int64_t i, int64_t place) { result[place] = f(result[place], values[i]); });
  return result;
}
Values sum(const View &x, const Dims &axes);
Values mean(const View &x, const Dims &axes);
Values maximum(const View &x, const Dims &axes);
Values minimum(const View &x, const Dims &axes);

// out = alpha a b + beta out: [..., m, k] [..., k, n] -> [..., m, n], leading axes broadcast.
void multiply(const View &a, const View &b, const View &out, double alpha = 1, double beta = 0);

// Along an axis. The gradients are with respect to the input, from that of the output and the output.
void softmax(const View &x, int64_t axis, const View &out);
void softmax_gradient(const View &gradient, const View &output, int64_t axis, const View &out);
void log_softmax(const View &x, int64_t axis, const View &out);
void log_softmax_gradient(const View &gradient, const View &output, int64_t axis, const View &out);

// x [rows, n] with one mean and biased variance a row, [rows]; gamma and beta [n].
void layer_norm(const View &x, const View &gamma, const View &beta, double epsilon, const View &y, const View &mean,
                const View &second);
// second: the variance, or if `inverse` 1 / sqrt(variance + epsilon).
void layer_norm_gradient(const View &gradient, const View &x, const View &mean, const View &second, bool inverse,
                         const View &gamma, double epsilon, const View &grad_x, const View &grad_gamma,
                         const View &grad_beta);

// By channel of x [N, C, ...]: mean and biased variance, [C].
struct Moments {
  Values mean, variance;
};
Moments moments(const View &x);
int64_t channel_size(const View &x);  // elements of each channel
// The channel of each element in order.
template <typename Visit>
void channels(const View &x, Visit visit) {
  int64_t total = x.size(), number = x.shape[1], rest = total / (x.shape[0] * number);
  for (int64_t i = 0; i < total; i++) visit(i, i / rest % number);
}
// (1 - share) running + share new, the variance of the batch unbiased; [C] each.
void follow(const View &running_mean, const View &running_variance, const Moments &batch, double share, int64_t number);
Values normalised(const View &x, const Moments &moments, const Values &scale, const Values &bias, double epsilon);
// The gradients of BatchNorm in training with respect to scale and bias, [C], and from them that with respect to x.
void batch_norm_parameter_gradients(const View &gradient, const View &x, const Moments &moments, double epsilon,
                                    Values &grad_scale, Values &grad_bias);
Values batch_norm_input_gradient(const View &gradient, const View &x, const Moments &moments, const Values &scale,
                                 double epsilon, const Values &grad_scale, const Values &grad_bias);
// All three; those of scale and bias into the last two.
Values batch_norm_gradient(const View &gradient, const View &x, const Moments &moments, const Values &scale,
                           double epsilon, Values &grad_scale, Values &grad_bias);

// Of a convolution or of pooling, for three spatial axes each; `spatial` puts 1s or 0s before those of fewer.
struct Window {
  Dims size, stride, padding, dilation;
};
Dims spatial(const Dims &given, int64_t before);
struct Tap {  // places within one picture of x, within the window, and within one picture of y
  int64_t x, window, y;
};
std::vector<Tap> taps(const Dims &x, const Dims &y, const Window &window);  // without those in the padding

enum class Convolution { forward, data_gradient, filter_gradient };
// x [N, C, ...], filter [K, C / groups, ...], y [N, K, ...]: computes the one that is asked for from the other two.
// result = alpha computed + beta result.
void convolve(Convolution what, const View &x, const View &filter, const View &y, Dims stride, Dims padding,
              Dims dilation, int64_t groups, double alpha = 1, double beta = 0);

// Pooling of x [N, C, ...] to y [N, C, ...]. places: of the largest within its picture, in order of y.
Values max_pool(const View &x, const Dims &y, const Window &window, Integers &places);
Values max_pool_gradient(const View &gradient, const Integers &places, const Dims &x);
Values average_pool(const View &x, const Dims &y, const Window &window, bool counts_padding);
Values average_pool_gradient(const View &gradient, const Dims &x, const Window &window, bool counts_padding);

// Negative log likelihoods of x [n, classes] at labels [n]. weight: [classes] or none.
enum class Reduction { none, mean, sum };
void negative_log_likelihood(const View &x, const View &labels, const View *weight, Reduction reduction, int64_t ignored,
                             const View &loss, const View *total_weight);
void negative_log_likelihood_gradient(const View &gradient, const View &labels, const View *weight, Reduction reduction,
                                      int64_t ignored, double total_weight, const View &out);

// out[..., i, ...] = x[..., indices[i], ...]: indices of any shape take the axis' place; negative ones count from the end.
void take(const View &x, const View &indices, int64_t axis, const View &out);
// Element by element: out[..., i, ...] = x[..., indices[..., i, ...], ...]; and the sum back.
void gather(const View &x, const View &indices, int64_t axis, const View &out);
void scatter_add(const View &x, const View &indices, const View &updates, int64_t axis, const View &out);
void concatenate(const std::vector<View> &parts, int64_t axis, const View &out);
void split(const View &x, int64_t axis, const std::vector<View> &parts);
void repeat(const View &x, const View &out);  // as often as it fits along each axis

// A strided slice, as MindSpore and TensorFlow define it.
struct SliceMasks {
  int64_t begin, end, shrink;
};
View strided(const View &x, Dims begin, Dims end, Dims stride, SliceMasks masks);

double softplus(double x);

}  // namespace stand_in

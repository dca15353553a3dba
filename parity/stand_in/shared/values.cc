#include "values.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "stand_in.h"

namespace stand_in {

namespace {

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(double value) {  // to the nearest, ties to even
    float single = static_cast<float>(value);
    uint32_t all;
    memcpy(&all, &single, 4);
    bits = static_cast<uint16_t>((all + 0x7fff + (all >> 16 & 1)) >> 16);
  }
  explicit operator double() const {
    uint32_t all = static_cast<uint32_t>(bits) << 16;
    float single;
    memcpy(&single, &all, 4);
    return single;
  }
};

// Calls f with a null pointer to the C++ type.
template <typename F>
auto with(Type type, F f) {
  switch (type) {
    case Type::float32: return f(static_cast<float *>(nullptr));
    case Type::float16: return f(static_cast<_Float16 *>(nullptr));
    case Type::bfloat16: return f(static_cast<BFloat16 *>(nullptr));
    case Type::float64: return f(static_cast<double *>(nullptr));
    case Type::int8: return f(static_cast<int8_t *>(nullptr));
    case Type::int16: return f(static_cast<int16_t *>(nullptr));
    case Type::int32: return f(static_cast<int32_t *>(nullptr));
    case Type::int64: return f(static_cast<int64_t *>(nullptr));
    case Type::uint8: return f(static_cast<uint8_t *>(nullptr));
    case Type::uint16: return f(static_cast<uint16_t *>(nullptr));
    case Type::uint32: return f(static_cast<uint32_t *>(nullptr));
    case Type::uint64: return f(static_cast<uint64_t *>(nullptr));
    case Type::boolean: return f(static_cast<bool *>(nullptr));
  }
  stop("a type that it does not know: " + std::to_string(static_cast<int>(type)));
}

// Runs of `length` along one axis: visit(place of the first element, distance between elements).
template <typename Visit>
void along(const Dims &shape, size_t axis, Visit visit) {
  int64_t step = contiguous(shape)[axis], length = shape[axis];
  for (int64_t i = 0, total = count(shape); i < total; i += step * length)
    for (int64_t j = 0; j < step; j++) visit(i + j, step);
}

// The error that is planted; empty: none.
std::string &error_here() {
  static const char *given = getenv("STAND_IN_PLANT");
  static std::string error = given ? given : "";
  return error;
}

Values times(Values values, double factor) {
  for (double &value : values) value *= factor;
  return values;
}

}  // namespace

bool computes() {
  static const char *given = getenv("STAND_IN_VALUES");
  static const bool asked = !given || strcmp(given, "0");
  return asked;
}

bool planted(const char *error) { return error_here() == error; }

std::string described(const View &tensor) {
  std::string text;
  for (size_t k = 0; k < tensor.rank(); k++)
    text += (k ? "," : "") + std::to_string(tensor.strides[k] ? tensor.shape[k] : 1);
  return std::string(name(tensor.type)) + '[' + text + ']';
}

void count_launch(const std::string &name, const std::string &work) { stand_in_count((name + '\t' + work).c_str()); }

void stop(const std::string &why) {
  fprintf(stderr, "stand-in: %s\n", why.c_str());
  fflush(stderr);
  _Exit(70);  // a graph's threads would wait for each other in exit()
}

size_t width(Type type) {
  return with(type, [](auto *kind) { return sizeof *kind; });
}

const char *name(Type type) {
  static const char *names[] = {"float32", "float16", "bfloat16", "float64", "int8",   "int16", "int32",
                                "int64",   "uint8",   "uint16",   "uint32",  "uint64", "bool"};
  return names[static_cast<int>(type)];
}

int64_t count(const Dims &shape) {
  int64_t product = 1;
  for (int64_t length : shape) product *= length;
  return product;
}

Dims contiguous(const Dims &shape) {
  Dims strides(shape.size(), 1);
  for (size_t k = shape.size(); k-- > 1;) strides[k - 1] = strides[k] * shape[k];
  return strides;
}

View::View(Type type, const void *data, Dims shape) : View(type, data, shape, contiguous(shape)) {}

View::View(Type type, const void *data, Dims shape, Dims strides)
    : type(type), data(static_cast<char *>(const_cast<void *>(data))), shape(shape), strides(strides) {}

View View::broadcast(const Dims &to) const {
  if (to == shape) return *this;
  if (to.size() < rank()) {  // leading axes of length 1
    View smaller = *this;
    while (smaller.rank() > to.size() && smaller.shape[0] == 1) smaller = smaller.at(0, 0);
    if (smaller.rank() > to.size()) stop("a tensor that is broadcast to fewer axes than it has");
    return smaller.broadcast(to);
  }
  Dims steps(to.size(), 0);
  size_t shift = to.size() - rank();
  for (size_t k = 0; k < rank(); k++) {
    if (shape[k] != 1 && shape[k] != to[shift + k]) stop("shapes that do not broadcast");
    if (shape[k] != 1) steps[shift + k] = strides[k];
  }
  return View(type, data, to, steps);
}

View View::permuted(const Dims &axes) const {
  Dims to, steps;
  for (int64_t given : axes) {
    to.push_back(shape[axis(given, rank())]);
    steps.push_back(strides[axis(given, rank())]);
  }
  return View(type, data, to, steps);
}

View View::part(size_t axis, int64_t start, int64_t length, int64_t step) const {
  View result = *this;
  result.data += start * strides[axis] * static_cast<int64_t>(width(type));
  result.shape[axis] = length;
  result.strides[axis] *= step;
  return result;
}

View View::at(size_t axis, int64_t index) const {
  View result = part(axis, index, 1);
  result.shape.erase(result.shape.begin() + axis);
  result.strides.erase(result.strides.begin() + axis);
  return result;
}

View View::reshaped(Dims to) const {
  if (strides != contiguous(shape)) stop("a reshaped tensor with gaps");
  return View(type, data, to);
}

Values View::read() const {
  Values values(size());
  with(type, [&](auto *kind) {
    auto from = reinterpret_cast<decltype(kind)>(data);
    each(shape, strides, [&](int64_t i, int64_t place) { values[i] = static_cast<double>(from[place]); });
  });
  return values;
}

Integers View::integers() const {
  Integers values(size());
  with(type, [&](auto *kind) {
    auto from = reinterpret_cast<decltype(kind)>(data);
    each(shape, strides, [&](int64_t i, int64_t place) {
      if constexpr (std::is_integral_v<std::remove_pointer_t<decltype(kind)>>) values[i] = from[place];
      else values[i] = static_cast<int64_t>(static_cast<double>(from[place]));
    });
  });
  return values;
}

double View::first() const { return View(type, data, {}).read()[0]; }

void View::write(const Values &values) const {
  if (static_cast<int64_t>(values.size()) != size())
    stop(std::to_string(values.size()) + " values for a tensor of " + std::to_string(size()));
  with(type, [&](auto *kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    auto to = reinterpret_cast<T *>(data);
    each(shape, strides, [&](int64_t i, int64_t place) {
      if constexpr (std::is_same_v<T, bool>) to[place] = values[i] != 0;
      else if constexpr (std::is_integral_v<T>) to[place] = static_cast<T>(static_cast<int64_t>(values[i]));
      else to[place] = static_cast<T>(values[i]);
    });
  });
}

void View::blend(const Values &values, double alpha, double beta) const {
  Values result = times(values, alpha);
  if (beta) {  // else what is there may be anything
    Values before = read();
    for (size_t i = 0; i < result.size(); i++) result[i] += beta * before[i];
  }
  write(result);
}

void View::write_integers(const Integers &values) const {
  if (!is_integral(type)) return write(Values(values.begin(), values.end()));
  with(type, [&](auto *kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    auto to = reinterpret_cast<T *>(data);
    if constexpr (std::is_integral_v<T>)
      each(shape, strides, [&](int64_t i, int64_t place) { to[place] = static_cast<T>(values[i]); });
  });
}

void View::fill(double value) const { write(Values(size(), value)); }

Values sum(const View &x, const Dims &axes) {
  return reduce(x, axes, 0, [](double a, double b) { return a + b; });
}

Values mean(const View &x, const Dims &axes) {
  Values result = sum(x, axes);
  return times(result, static_cast<double>(result.size()) / x.size());
}

Values maximum(const View &x, const Dims &axes) {
  return reduce(x, axes, -INFINITY, [](double a, double b) { return std::isnan(b) || b > a ? b : a; });
}

Values minimum(const View &x, const Dims &axes) {
  return reduce(x, axes, INFINITY, [](double a, double b) { return std::isnan(b) || b < a ? b : a; });
}

void multiply(const View &a, const View &b, const View &out, double alpha, double beta) {
  size_t rank = out.rank();
  int64_t m = out.shape[rank - 2], n = out.shape[rank - 1], k = a.shape.back();
  auto batched = [&](const View &x, int64_t rows, int64_t columns) {
    Dims to(out.shape.begin(), out.shape.end() - 2);
    to.insert(to.end(), {rows, columns});
    return x.broadcast(to).read();
  };
  Dims order(b.rank());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  Values left = batched(a, m, k), right = batched(b.permuted(order), n, k), result(out.size());
  for (int64_t i = 0; i < out.size(); i++) {
    const double *x = &left[i / n * k], *y = &right[(i / (m * n) * n + i % n) * k];
    double parts[4] = {};  // so that the compiler may take four at a time
    int64_t l = 0;
    for (; l + 4 <= k; l += 4)
      for (int q = 0; q < 4; q++) parts[q] += x[l + q] * y[l + q];
    for (; l < k; l++) parts[0] += x[l] * y[l];
    result[i] = parts[0] + parts[1] + parts[2] + parts[3];
  }
  out.blend(result, alpha, beta);
}

void softmax(const View &x, int64_t given, const View &out) {
  Values v = x.read();
  size_t d = axis(given, x.rank());
  along(x.shape, d, [&](int64_t first, int64_t step) {
    double most = -INFINITY, total = 0;
    for (int64_t k = 0; k < x.shape[d]; k++) most = std::max(most, v[first + k * step]);
    for (int64_t k = 0; k < x.shape[d]; k++) total += v[first + k * step] = std::exp(v[first + k * step] - most);
    for (int64_t k = 0; k < x.shape[d]; k++) v[first + k * step] /= total;
  });
  out.write(v);
}

void softmax_gradient(const View &gradient, const View &output, int64_t given, const View &out) {
  Values g = gradient.read(), y = output.read();
  size_t d = axis(given, output.rank());
  along(output.shape, d, [&](int64_t first, int64_t step) {
    double total = 0;
    for (int64_t k = 0; k < output.shape[d]; k++) total += g[first + k * step] * y[first + k * step];
    for (int64_t k = 0; k < output.shape[d]; k++)
      g[first + k * step] = (g[first + k * step] - total) * y[first + k * step];
  });
  out.write(g);
}

void log_softmax(const View &x, int64_t given, const View &out) {
  Values v = x.read();
  size_t d = axis(given, x.rank());
  along(x.shape, d, [&](int64_t first, int64_t step) {
    double most = -INFINITY, total = 0;
    for (int64_t k = 0; k < x.shape[d]; k++) most = std::max(most, v[first + k * step]);
    for (int64_t k = 0; k < x.shape[d]; k++) total += std::exp(v[first + k * step] - most);
    for (int64_t k = 0; k < x.shape[d]; k++) v[first + k * step] -= most + std::log(total);
  });
  out.write(v);
}

void log_softmax_gradient(const View &gradient, const View &output, int64_t given, const View &out) {
  Values g = gradient.read(), y = output.read();
  size_t d = axis(given, output.rank());
  along(output.shape, d, [&](int64_t first, int64_t step) {
    double total = 0;
    for (int64_t k = 0; k < output.shape[d]; k++) total += g[first + k * step];
    for (int64_t k = 0; k < output.shape[d]; k++) g[first + k * step] -= std::exp(y[first + k * step]) * total;
  });
  out.write(g);
}

void layer_norm(const View &x, const View &gamma, const View &beta, double epsilon, const View &y, const View &mean,
                const View &second) {
  Values v = x.read(), scale = gamma.read(), shift = beta.read();
  int64_t n = scale.size(), rows = v.size() / n;
  Values means(rows), variances(rows);
  for (int64_t r = 0; r < rows; r++) {
    double *row = &v[r * n], m = 0, q = 0;
    for (int64_t k = 0; k < n; k++) m += row[k] / n;
    for (int64_t k = 0; k < n; k++) q += (row[k] - m) * (row[k] - m) / n;
    for (int64_t k = 0; k < n; k++) row[k] = (row[k] - m) / std::sqrt(q + epsilon) * scale[k] + shift[k];
    means[r] = m;
    variances[r] = q;
  }
  y.write(v);
  mean.write(means);
  second.write(variances);
}

void layer_norm_gradient(const View &gradient, const View &x, const View &mean, const View &second, bool inverse,
                         const View &gamma, double epsilon, const View &grad_x, const View &grad_gamma,
                         const View &grad_beta) {
  Values g = gradient.read(), v = x.read(), m = mean.read(), s = second.read(), scale = gamma.read();
  int64_t n = scale.size(), rows = v.size() / n;
  Values of_gamma(n, 0), of_beta(n, 0);
  for (int64_t r = 0; r < rows; r++) {
    double *row = &v[r * n], *given = &g[r * n], factor = inverse ? s[r] : 1 / std::sqrt(s[r] + epsilon), a = 0, b = 0;
    for (int64_t k = 0; k < n; k++) {
      double hat = (row[k] - m[r]) * factor;
      of_gamma[k] += given[k] * hat;
      of_beta[k] += given[k];
      a += given[k] * scale[k] / n;
      b += given[k] * scale[k] * hat / n;
    }
    for (int64_t k = 0; k < n; k++) row[k] = factor * (given[k] * scale[k] - a - (row[k] - m[r]) * factor * b);
  }
  grad_x.write(v);
  grad_gamma.write(of_gamma);
  grad_beta.write(of_beta);
}

int64_t channel_size(const View &x) { return x.size() / x.shape[1]; }

Moments moments(const View &x) {
  Moments result{Values(x.shape[1], 0), Values(x.shape[1], 0)};
  Values v = x.read();
  double n = channel_size(x);
  channels(x, [&](int64_t i, int64_t c) { result.mean[c] += v[i] / n; });
  channels(x, [&](int64_t i, int64_t c) {
    double distance = v[i] - result.mean[c];
    result.variance[c] += distance * distance / n;
  });
  return result;
}

void follow(const View &running_mean, const View &running_variance, const Moments &batch, double share,
            int64_t number) {
  Values m = running_mean.read(), q = running_variance.read();
  double unbiased = number > 1 ? number / (number - 1.0) : 1;
  if (planted("momentum")) share = 1 - share;
  for (size_t c = 0; c < m.size(); c++) {
    m[c] += share * (batch.mean[c] - m[c]);
    q[c] += share * (unbiased * batch.variance[c] - q[c]);
  }
  running_mean.write(m);
  running_variance.write(q);
}

Values normalised(const View &x, const Moments &moments, const Values &scale, const Values &bias, double epsilon) {
  Values v = x.read();
  channels(x, [&](int64_t i, int64_t c) {
    v[i] = (v[i] - moments.mean[c]) / std::sqrt(moments.variance[c] + epsilon) * scale[c] + bias[c];
  });
  return v;
}

void batch_norm_parameter_gradients(const View &gradient, const View &x, const Moments &moments, double epsilon,
                                    Values &grad_scale, Values &grad_bias) {
  size_t number = moments.mean.size();
  Values g = gradient.read(), hat = normalised(x, moments, Values(number, 1), Values(number, 0), epsilon);
  grad_scale.assign(number, 0);
  grad_bias.assign(number, 0);
  channels(x, [&](int64_t i, int64_t c) {
    grad_scale[c] += g[i] * hat[i];
    grad_bias[c] += g[i];
  });
}

Values batch_norm_input_gradient(const View &gradient, const View &x, const Moments &moments, const Values &scale,
                                 double epsilon, const Values &grad_scale, const Values &grad_bias) {
  Values g = gradient.read(), hat = normalised(x, moments, Values(scale.size(), 1), Values(scale.size(), 0), epsilon);
  double n = channel_size(x);
  channels(x, [&](int64_t i, int64_t c) {
    double factor = scale[c] / std::sqrt(moments.variance[c] + epsilon);
    g[i] = factor * (g[i] - grad_bias[c] / n - hat[i] * grad_scale[c] / n);
  });
  return g;
}

Values batch_norm_gradient(const View &gradient, const View &x, const Moments &moments, const Values &scale,
                           double epsilon, Values &grad_scale, Values &grad_bias) {
  batch_norm_parameter_gradients(gradient, x, moments, epsilon, grad_scale, grad_bias);
  return batch_norm_input_gradient(gradient, x, moments, scale, epsilon, grad_scale, grad_bias);
}

Dims spatial(const Dims &given, int64_t before) {
  if (given.size() > 3) stop("more than three spatial axes");
  Dims all(3 - given.size(), before);
  all.insert(all.end(), given.begin(), given.end());
  return all;
}

std::vector<Tap> taps(const Dims &x, const Dims &y, const Window &window) {
  std::vector<Tap> found;
  each(y, contiguous(y), [&](int64_t, int64_t at_y) {
    each(window.size, contiguous(window.size), [&](int64_t, int64_t at_window) {
      int64_t rest_y = at_y, rest_window = at_window, at_x = 0, step = 1;
      for (int k = 2; k >= 0; k--) {
        int64_t place = rest_y % y[k] * window.stride[k] - window.padding[k] +
                        rest_window % window.size[k] * window.dilation[k];
        if (place < 0 || place >= x[k]) return;
        at_x += place * step;
        step *= x[k];
        rest_y /= y[k];
        rest_window /= window.size[k];
      }
      found.push_back({at_x, at_window, at_y});
    });
  });
  return found;
}

void convolve(Convolution what, const View &x, const View &filter, const View &y, Dims stride, Dims padding,
              Dims dilation, int64_t groups, double alpha, double beta) {
  auto places = [](const View &view) { return spatial(Dims(view.shape.begin() + 2, view.shape.end()), 1); };
  if (planted("stride") && stride.back() > 1) stride.back()--;
  Dims size = places(filter);
  std::vector<Tap> pairs =
    taps(places(x), places(y), {size, spatial(stride, 1), spatial(padding, 0), spatial(dilation, 1)});
  const View &result = what == Convolution::forward ? y : what == Convolution::data_gradient ? x : filter;
  auto values = [&](const View &view) { return &view == &result ? Values(view.size(), 0) : view.read(); };
  Values a = values(x), b = values(filter), c = values(y);
  int64_t outputs = filter.shape[0], inputs = filter.shape[1];
  int64_t x_size = count(places(x)), y_size = count(places(y)), window = count(size);
  for (int64_t n = 0; n < x.shape[0]; n++)
    for (int64_t k = 0; k < outputs; k++)
      for (int64_t i = 0; i < inputs; i++) {
        double *px = &a[(n * inputs * groups + k / (outputs / groups) * inputs + i) * x_size];
        double *pf = &b[(k * inputs + i) * window], *py = &c[(n * outputs + k) * y_size];
        switch (what) {
          case Convolution::forward:
            for (const Tap &tap : pairs) py[tap.y] += px[tap.x] * pf[tap.window];
            break;
          case Convolution::data_gradient:
            for (const Tap &tap : pairs) px[tap.x] += py[tap.y] * pf[tap.window];
            break;
          case Convolution::filter_gradient:
            for (const Tap &tap : pairs) pf[tap.window] += px[tap.x] * py[tap.y];
        }
      }
  Values &made = what == Convolution::forward ? c : what == Convolution::data_gradient ? a : b;
  result.blend(made, alpha, beta);
}

namespace {
// Over all pictures and channels: visit(number of the picture, tap).
template <typename Visit>
void pooled(const Dims &x, const Dims &y, const Window &window, Visit visit) {
  std::vector<Tap> pairs = taps(spatial(Dims(x.begin() + 2, x.end()), 1), spatial(Dims(y.begin() + 2, y.end()), 1), window);
  for (int64_t picture = 0; picture < x[0] * x[1]; picture++)
    for (const Tap &tap : pairs) visit(picture, tap);
}

int64_t picture_size(const Dims &shape) { return count(Dims(shape.begin() + 2, shape.end())); }

// How many elements each mean is of.
Values averaged(const Dims &x, const Dims &y, const Window &window, bool counts_padding) {
  Values number(picture_size(y), counts_padding ? count(window.size) : 0);
  if (!counts_padding)
    for (const Tap &tap : taps(spatial(Dims(x.begin() + 2, x.end()), 1), spatial(Dims(y.begin() + 2, y.end()), 1), window))
      number[tap.y]++;
  return number;
}
}  // namespace

Values max_pool(const View &x, const Dims &y, const Window &window, Integers &places) {
  Values v = x.read(), result(count(y), -INFINITY);
  places.assign(count(y), -1);
  int64_t x_size = picture_size(x.shape), y_size = picture_size(y);
  pooled(x.shape, y, window, [&](int64_t picture, const Tap &tap) {
    double value = v[picture * x_size + tap.x], &most = result[picture * y_size + tap.y];
    int64_t &place = places[picture * y_size + tap.y];
    if (place >= 0 && !(value > most) && !std::isnan(value)) return;
    most = value;
    place = tap.x;
  });
  return result;
}

Values max_pool_gradient(const View &gradient, const Integers &places, const Dims &x) {
  Values g = gradient.read(), result(count(x), 0);
  int64_t x_size = picture_size(x), y_size = picture_size(gradient.shape);
  for (size_t i = 0; i < g.size(); i++)
    if (places[i] >= 0) result[i / y_size * x_size + places[i]] += g[i];  // else its window was all padding
  return result;
}

Values average_pool(const View &x, const Dims &y, const Window &window, bool counts_padding) {
  Values v = x.read(), result(count(y), 0), number = averaged(x.shape, y, window, counts_padding);
  int64_t x_size = picture_size(x.shape), y_size = picture_size(y);
  pooled(x.shape, y, window, [&](int64_t picture, const Tap &tap) {
    result[picture * y_size + tap.y] += v[picture * x_size + tap.x] / number[tap.y];
  });
  return result;
}

Values average_pool_gradient(const View &gradient, const Dims &x, const Window &window, bool counts_padding) {
  Values g = gradient.read(), result(count(x), 0), number = averaged(x, gradient.shape, window, counts_padding);
  int64_t x_size = picture_size(x), y_size = picture_size(gradient.shape);
  pooled(x, gradient.shape, window, [&](int64_t picture, const Tap &tap) {
    result[picture * x_size + tap.x] += g[picture * y_size + tap.y] / number[tap.y];
  });
  return result;
}

void negative_log_likelihood(const View &x, const View &labels, const View *weight, Reduction reduction, int64_t ignored,
                             const View &loss, const View *total_weight) {
  int64_t classes = x.shape.back();
  Values p = x.read(), w = weight ? weight->read() : Values(classes, 1), each;
  double sum = 0, total = 0;
  for (int64_t label : labels.integers()) {
    bool counts = label != ignored;
    each.push_back(counts ? -w[label] * p[each.size() * classes + label] : 0);
    sum += each.back();
    total += counts ? w[label] : 0;
  }
  loss.write(reduction == Reduction::none ? each : Values{reduction == Reduction::mean ? sum / total : sum});
  if (total_weight) total_weight->write({total});
}

void negative_log_likelihood_gradient(const View &gradient, const View &labels, const View *weight, Reduction reduction,
                                      int64_t ignored, double total_weight, const View &out) {
  int64_t classes = out.shape.back(), row = 0;
  Values g = gradient.read(), w = weight ? weight->read() : Values(classes, 1), result(out.size(), 0);
  for (int64_t label : labels.integers()) {
    double given = g[reduction == Reduction::none ? row : 0] / (reduction == Reduction::mean ? total_weight : 1);
    if (label != ignored) result[row * classes + label] = -w[label] * given;
    row++;
  }
  out.write(result);
}

void take(const View &x, const View &indices, int64_t given, const View &out) {
  size_t d = axis(given, x.rank());
  int64_t outer = count(Dims(x.shape.begin(), x.shape.begin() + d)), length = x.shape[d];
  int64_t inner = count(Dims(x.shape.begin() + d + 1, x.shape.end()));
  Values v = x.read(), result;
  Integers chosen = indices.integers();
  for (int64_t i = 0; i < outer; i++)
    for (int64_t index : chosen) {
      if (index < -length || index >= length) stop("an index beyond its axis");
      auto from = v.begin() + (i * length + (index < 0 ? index + length : index)) * inner;
      result.insert(result.end(), from, from + inner);
    }
  out.write(result);
}

namespace {
// For each element of `indices`, the place in x (without gaps) that it points to.
Dims pointed(const Dims &x, const View &indices, size_t d) {
  Integers chosen = indices.integers();
  Dims strides = contiguous(x), places(chosen.size()), steps = strides;
  steps[d] = 0;
  each(indices.shape, steps, [&](int64_t i, int64_t place) { places[i] = place + chosen[i] * strides[d]; });
  return places;
}
}  // namespace

void gather(const View &x, const View &indices, int64_t given, const View &out) {
  Values v = x.read(), result;
  for (int64_t place : pointed(x.shape, indices, axis(given, x.rank()))) result.push_back(v[place]);
  out.write(result);
}

void scatter_add(const View &x, const View &indices, const View &updates, int64_t given, const View &out) {
  Values v = x.read(), added = updates.broadcast(indices.shape).read();
  Dims places = pointed(x.shape, indices, axis(given, x.rank()));
  for (size_t i = 0; i < places.size(); i++) v[places[i]] += added[i];
  out.write(v);
}

void concatenate(const std::vector<View> &parts, int64_t given, const View &out) {
  int64_t start = 0;
  size_t d = axis(given, out.rank());
  for (const View &part : parts) {
    if (!part.size()) continue;
    cast(out.part(d, start, part.shape[d]), part);
    start += part.shape[d];
  }
}

void split(const View &x, int64_t given, const std::vector<View> &parts) {
  int64_t start = 0;
  size_t d = axis(given, x.rank());
  for (const View &part : parts) {
    cast(part, x.part(d, start, part.shape[d]));
    start += part.shape[d];
  }
}

void repeat(const View &x, const View &out) {
  Dims from(out.rank() - x.rank(), 1);
  from.insert(from.end(), x.shape.begin(), x.shape.end());
  Dims strides = contiguous(from), steps = contiguous(out.shape);
  Values v = x.read(), result(out.size());
  for (int64_t i = 0; i < out.size(); i++) {
    int64_t place = 0;
    for (size_t k = 0; k < from.size(); k++) place += i / steps[k] % out.shape[k] % from[k] * strides[k];
    result[i] = v[place];
  }
  out.write(result);
}

View strided(const View &x, Dims begin, Dims end, Dims stride, SliceMasks masks) {
  View result = x;
  for (size_t k = 0; k < begin.size(); k++) {
    int64_t n = x.shape[k], step = stride[k];
    int64_t first = begin[k] < 0 ? begin[k] + n : begin[k], last = end[k] < 0 ? end[k] + n : end[k];
    if (masks.shrink >> k & 1) {
      step = 1;
      last = first + 1;
    } else {
      if (masks.begin >> k & 1) first = step > 0 ? 0 : n - 1;
      if (masks.end >> k & 1) last = step > 0 ? n : -1;
      int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? n : n - 1;
      first = std::clamp(first, lowest, highest);
      last = std::clamp(last, lowest, highest);
    }
    int64_t length = step > 0 ? (last - first + step - 1) / step : (first - last - step - 1) / -step;
    result = result.part(k, first, std::max<int64_t>(0, length), step);
  }
  return result;
}

double softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }

}  // namespace stand_in

extern "C" void stand_in_plant(const char *error) { stand_in::error_here() = error; }

extern "C" void stand_in_unknown(const char *name) {
  if (stand_in::computes()) stand_in::stop(std::string("nothing here computes ") + name);
}

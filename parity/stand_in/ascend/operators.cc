// What operators compute: two tables, of functions (aclnn) and of operators by name, on the definitions of values.h.
// The order of arguments, the names of attributes and what they mean are those of CANN's documentation.
#include <algorithm>
#include <cmath>
#include <limits>

#include "aclnn.h"
#include "by_name.h"
#include "values.h"

using namespace stand_in;

namespace {

using Function = const aclOpExecutor &;

// Errors that a test plants (STAND_IN_PLANT) between the plugin and what is computed.

void swap_last(View &x) {
  std::swap(x.shape[x.rank() - 1], x.shape[x.rank() - 2]);
  std::swap(x.strides[x.rank() - 1], x.strides[x.rank() - 2]);
}

bool is_square(const View &x) { return x.rank() >= 2 && x.shape[x.rank() - 1] == x.shape[x.rank() - 2]; }

// An operand of what is computed element by element.
View operand(const View &x, const View &out) {
  View spread = x.broadcast(out.shape);
  bool is_vector = is_square(spread) && x.size() == out.shape.back();
  if (planted("broadcast") && is_vector) swap_last(spread);
  return spread;
}

// An operand of a product.
View factor(View x, bool transposed) {
  if (transposed) swap_last(x);
  bool is_transposed = is_square(x) && x.strides[x.rank() - 2] == 1;
  if (planted("transposition") && is_transposed) swap_last(x);
  return x;
}

// The axis, or axes, that something is computed along.
int64_t chosen(int64_t given, const View &x) {
  return planted("axis") ? (axis(given, x.rank()) + 1) % x.rank() : axis(given, x.rank());
}

Dims chosen(const Dims &axes, const View &x) {
  auto length = [&](const Dims &some) {
    int64_t product = 1;
    for (int64_t given : some) product *= x.shape[axis(given, x.rank())];
    return product;
  };
  Dims others;
  for (int64_t given : axes) others.push_back(chosen(given, x));
  return length(others) == length(axes) ? others : axes;
}

double added_to_variance(double epsilon) { return planted("epsilon") ? 1000 * epsilon : epsilon; }

double scalar_of_update(double value) { return planted("scalar") ? 1.01 * value : value; }

void round_if_planted(const View &out) {
  if (planted("cast") && out.type == Type::float32) map([](double a) { return double(_Float16(a)); }, out, out);
}

// Element by element. What wraps as integers do takes functions of both integers and doubles.

template <typename F>
void combine(F f, const View &out, const View &x, const View &y) {
  arithmetic(f, out, operand(x, out), operand(y, out));
  round_if_planted(out);
}

AclnnDefinition unary(double (*f)(double)) {
  return [=](Function call) { map(f, call.tensor(1), call.tensor(0)); };
}

AclnnDefinition binary(double (*f)(double, double)) {
  return [=](Function call) {
    View out = call.tensor(2);
    map(f, out, operand(call.tensor(0), out), operand(call.tensor(1), out));
  };
}

AclnnDefinition of_integers(int64_t (*f)(int64_t, int64_t)) {
  return [=](Function call) { map_integers(f, call.tensor(2), call.tensor(0), call.tensor(1)); };
}

// Of whole numbers as integers, which wrap.
template <typename F>
AclnnDefinition with_scalar(F f) {
  return [=](Function call) {
    View x = call.tensor(0), out = call.tensor(2);
    double scalar = call.scalar(1);
    if (is_integral(x.type) && is_integral(out.type)) map_integers([=](int64_t a) { return f(a, int64_t(scalar)); }, out, x);
    else map([=](double a) -> double { return f(a, scalar); }, out, x);
  };
}

AclnnDefinition sum_with(int sign) {  // x + sign alpha y
  return [=](Function call) {
    double factor = sign * call.scalar(2);
    combine([=](auto a, auto b) { return a + static_cast<decltype(a)>(factor) * b; }, call.tensor(3), call.tensor(0),
            call.tensor(1));
  };
}

AclnnDefinition sum_with_scalar(int sign) {
  return [=](Function call) {
    double added = sign * call.scalar(2) * call.scalar(1);
    View x = call.tensor(0), out = call.tensor(3);
    if (is_integral(out.type)) map_integers([=](int64_t a) { return a + int64_t(added); }, out, x);
    else map([=](double a) { return a + added; }, out, x);
  };
}

void clamp(Function call) {
  double least = call.given(1) ? call.scalar(1) : -std::numeric_limits<double>::infinity();
  double most = call.given(2) ? call.scalar(2) : std::numeric_limits<double>::infinity();
  map([=](double a) { return a < least ? least : a > most ? most : a; }, call.tensor(3), call.tensor(0));
}

// x times the normal distribution function; `approximate`, a number here and a name in the derivative, is exact alone.
double normal_distribution(double x) { return 0.5 * (1 + std::erf(x / std::sqrt(2.0))); }

void gelu(Function call) {
  if (call.integer(1) != 0) stop(call.operation + " by tanh");
  map([](double x) { return x * normal_distribution(x); }, call.tensor(2), call.tensor(0));
  round_if_planted(call.tensor(2));
}

void gelu_gradient(Function call) {
  if (std::string(reinterpret_cast<const char *>(call.integer(2))) != "none") stop(call.operation + " by tanh");
  map(
      [](double gradient, double x) {
        return gradient * (normal_distribution(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0)));
      },
      call.tensor(3), call.tensor(0), call.tensor(1));
}

template <typename F>
Definition pointwise(F f) {
  return [=](const Call &call) { combine(f, call.out(), call.in(0), call.in(1)); };
}

double plus(double a, double b) { return a + b; }
double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }
double smaller(double a, double b) { return std::isnan(a) || a < b ? a : b; }
double floor_remainder(double a, double b) { return a - std::floor(a / b) * b; }
double either(double a, double b) { return a || b; }
double both(double a, double b) { return a && b; }

// Reductions, from an input and its axes to an output.

Values any(const View &x, const Dims &axes) { return reduce(x, axes, 0, either); }
Values all(const View &x, const Dims &axes) { return reduce(x, axes, 1, both); }

using Reduce = Values (*)(const View &, const Dims &);

AclnnDefinition reduced(Reduce f, size_t place_of_out) {
  return [=](Function call) {
    View x = call.tensor(0);
    call.tensor(place_of_out).write(f(x, chosen(call.integers(1), x)));
  };
}

Definition reduced(Reduce f) {
  return [=](const Call &call) {
    View x = call.in(0);
    call.out().write(f(x, chosen(call.integers_in(1), x)));
  };
}

// Products

void added_product(Function call) {  // beta self + alpha x y
  View out = call.tensor(5);
  cast(out, call.tensor(0));
  multiply(factor(call.tensor(1), false), factor(call.tensor(2), false), out, call.scalar(4), call.scalar(3));
}

void product(Function call) {
  multiply(factor(call.tensor(0), false), factor(call.tensor(1), false), call.tensor(2));
}

Definition transposed_product(const char *transposes_x, const char *transposes_y) {
  return [=](const Call &call) {
    View x = factor(call.in(0), call.integer(transposes_x)), y = factor(call.in(1), call.integer(transposes_y));
    multiply(x, y, call.out());
  };
}

// What an operator works with inside.
struct Unrounded {
  Values values;
  View view;
  explicit Unrounded(const Dims &shape) : values(count(shape)), view(Type::float64, values.data(), shape) {}
};

// Attention in one operator: query, key, value and results are [N, T, heads * channels], "BSH"; softmax's largest scores
// and sums, by which the gradient computes it again, [N, heads, T, 8], each of them eight times over.

// [N, heads, T, channels] of it.
View of_heads(const View &x, int64_t heads) {
  int64_t width = x.shape[2] / heads;
  return View(x.type, x.data, {x.shape[0], heads, x.shape[1], width},
              {x.strides[0], width * x.strides[2], x.strides[1], x.strides[2]});
}

View transposed(View x) {
  swap_last(x);
  return x;
}

double scale_of_attention(Function call) { return planted("attention") ? 1.1 * call.numbers[0] : call.numbers[0]; }

// Stops unless nothing is masked, shifted or dropped. shift: the place of the first of four such tensors. place: of the
// prefix, after which preTokens and other integers follow.
void expect_whole_attention(Function call, size_t shift, size_t place) {
  for (size_t k = shift; k < shift + 4; k++)
    if (call.given(k)) stop(call.operation + " with a mask or a shift");
  bool whole = call.integer(place + 1) >= call.tensor(0).shape[1] && call.integer(place + 2) >= call.tensor(1).shape[1];
  bool layout = std::string(reinterpret_cast<const char *>(call.integer(place + 4))) == "BSH";
  if (!call.integers(place).empty() || !whole || !layout || call.numbers[1] != 1 || call.integer(place + 6) != 0)
    stop(call.operation + " of a prefix or a band, with dropout, or of another layout than BSH");
}

struct Scores : Unrounded {
  Scores(const View &query, const View &key, double scale)
      : Unrounded({query.shape[0], query.shape[1], query.shape[2], key.shape[2]}) {
    multiply(query, transposed(key), view, scale);
  }
};

void attention(Function call) {
  expect_whole_attention(call, 3, 7);
  int64_t heads = call.integer(10);
  View value = of_heads(call.tensor(2), heads), largest = call.tensor(14), sums = call.tensor(15);
  Scores scores(of_heads(call.tensor(0), heads), of_heads(call.tensor(1), heads), scale_of_attention(call));
  Dims kept = {value.shape[0], heads, scores.view.shape[2], 1};
  Values most = maximum(scores.view, {3});
  View of_row(Type::float64, most.data(), kept);
  cast(largest, of_row);
  map([](double score, double most) { return std::exp(score - most); }, scores.view, scores.view, of_row);
  Values total = sum(scores.view, {3});
  cast(sums, View(Type::float64, total.data(), kept));
  map([](double e, double total) { return e / total; }, scores.view, scores.view,
      View(Type::float64, total.data(), kept));
  multiply(scores.view, value, of_heads(call.tensor(17), heads));
}

void attention_gradient(Function call) {
  expect_whole_attention(call, 4, 12);
  int64_t heads = call.integer(15);
  View query = of_heads(call.tensor(0), heads), key = of_heads(call.tensor(1), heads);
  View value = of_heads(call.tensor(2), heads), gradient = of_heads(call.tensor(3), heads);
  View out = of_heads(call.tensor(11), heads);
  Scores scores(query, key, call.numbers[0]), gradients(gradient, value, 1);
  auto softmax_of = [](double score, double most, double total) { return std::exp(score - most) / total; };
  map(softmax_of, scores.view, scores.view, call.tensor(8).part(3, 0, 1), call.tensor(9).part(3, 0, 1));
  multiply(transposed(scores.view), gradient, of_heads(call.tensor(21), heads));
  Unrounded products(out.shape);
  map([](double g, double y) { return g * y; }, products.view, gradient, out);
  Values means = sum(products.view, {3});
  Dims kept = {value.shape[0], heads, query.shape[2], 1};
  map([](double p, double g, double mean) { return p * (g - mean); }, gradients.view, scores.view, gradients.view,
      View(Type::float64, means.data(), kept));
  double scale = call.numbers[0];
  multiply(gradients.view, key, of_heads(call.tensor(19), heads), scale);
  multiply(transposed(gradients.view), query, of_heads(call.tensor(20), heads), scale);
}

// Parts of tensors

// x[indices, indices ...], as NumPy has it, where those that are given are of neighbouring axes.
void indexed(Function call) {
  View x = call.tensor(0);
  std::vector<View> indices = call.tensors(1);
  size_t first = 0;
  while (first < indices.size() && !indices[first].size()) first++;  // an empty one takes all of its axis
  if (first == indices.size()) stop("aclnnIndex without indices");
  View of_first = indices[first];
  Integers places(of_first.size());
  View flat(Type::int64, places.data(), of_first.shape);
  flat.fill(0);
  Dims shape(x.shape.begin(), x.shape.begin() + first);
  shape.push_back(1);
  for (size_t k = first; k < indices.size(); k++) {
    int64_t length = x.shape[k];
    if (indices[k].type == Type::boolean || indices[k].shape != of_first.shape)
      stop("aclnnIndex with a mask, a gap between indices, or indices of several shapes");
    map_integers([=](int64_t place, int64_t i) { return place * length + (i < 0 ? i + length : i); }, flat, flat,
                 indices[k]);
    shape.back() *= length;
  }
  shape.insert(shape.end(), x.shape.begin() + indices.size(), x.shape.end());
  take(x.reshaped(shape), flat, first, call.tensor(2));
}

void stack(const std::vector<View> &parts, int64_t along, const View &out) {
  for (size_t i = 0; i < parts.size(); i++) cast(out.at(axis(along, out.rank()), i), parts[i]);
}

// self, and alpha times the parts of `source` along an axis, each added to the part that its index names.
void added_at(Function call) {
  View x = call.tensor(0), source = call.tensor(3);
  if (call.scalar(4) != 1) stop("nothing here computes aclnnIndexAdd with a factor");
  Dims shape(x.rank(), 1);
  shape[axis(call.integer(1), x.rank())] = call.tensor(2).size();
  scatter_add(x, call.tensor(2).reshaped(shape).broadcast(source.shape), source, call.integer(1), call.tensor(5));
}

// The part of x that a strided slice names by the inputs 1 to 3.
View slice(const Call &call, const View &x) {
  call.expect("ellipsis_mask", int64_t(0));
  call.expect("new_axis_mask", int64_t(0));
  SliceMasks masks{call.integer("begin_mask"), call.integer("end_mask"), call.integer("shrink_axis_mask")};
  return strided(x, call.integers_in(1), call.integers_in(2), call.integers_in(3), masks);
}

View sized_slice(const Call &call) {
  View part = call.in(0);
  Dims start = call.integers_in(1), length = call.integers_in(2);
  for (size_t k = 0; k < part.rank(); k++)
    part = part.part(k, start[k], length[k] < 0 ? part.shape[k] - start[k] : length[k]);
  return part;
}

// x[indices] = updates, where each index has as many numbers as the last axis of `indices` is long.
void scatter_update(const Call &call) {
  View out = call.out(), indices = call.in(1);
  int64_t numbers = indices.shape.back(), rows = indices.size() / numbers;
  Integers places = indices.integers();
  View updates = call.in(2);
  Dims by_row(out.shape.begin() + numbers, out.shape.end());
  by_row.insert(by_row.begin(), rows);
  cast(out, call.in(0));
  for (int64_t row = 0; row < rows; row++) {
    View place = out;
    for (int64_t k = 0; k < numbers; k++) place = place.at(0, places[row * numbers + k]);
    cast(place, updates.reshaped(by_row).at(0, row));
  }
}

// Adds up rows of x by the segment that each belongs to, without those of negative segments.
void segment_sum(const Call &call) {
  View x = call.in(0), out = call.out();
  Integers segments = call.integers_in(1);
  out.fill(0);
  for (size_t row = 0; row < segments.size(); row++)
    if (segments[row] >= 0)
      map(plus, out.at(0, segments[row]), out.at(0, segments[row]), x.at(0, row));
}

void range(const Call &call) {
  double start = call.number_in(0), step = call.number_in(2);
  Values values(call.out().size());
  for (size_t i = 0; i < values.size(); i++) values[i] = start + i * step;
  call.out().write(values);
}

void add_all(const Call &call) {
  View out = call.out();
  Values total(out.size(), 0);
  View so_far(Type::float64, total.data(), out.shape);
  for (const View &given : call.all_in()) map(plus, so_far, so_far, given);
  cast(out, so_far);
}

// Normalisation

constexpr double EPSILON_OF_GRADIENT = 1e-12;  // a constant of CANN's LayerNormGrad, which is not handed one

void layer_norm_by_name(const Call &call) {
  View x = call.in(0), gamma = call.in(1);
  for (const char *name : {"begin_norm_axis", "begin_params_axis"})
    if (axis(call.integer(name), x.rank()) != x.rank() - gamma.rank()) stop("LayerNorm along other axes than the last");
  layer_norm(x, gamma, call.in(2), added_to_variance(call.number("epsilon")), call.out(0), call.out(1), call.out(2));
}

void layer_norm_gradient_by_name(const Call &call) {
  layer_norm_gradient(call.in(0), call.in(1), call.in(3), call.in(2), false, call.in(4), EPSILON_OF_GRADIENT,
                      call.out(0), call.out(1), call.out(2));
}

// Variances become 1 / deviations.
void invert(const View &variances, double epsilon) {
  map([=](double variance) { return 1 / std::sqrt(variance + epsilon); }, variances, variances);
}

void layer_norm_function(Function call) {
  double epsilon = added_to_variance(call.numbers[0]);
  View inverse = call.tensor(6);
  layer_norm(call.tensor(0), call.tensor(2), call.tensor(3), epsilon, call.tensor(4), call.tensor(5), inverse);
  invert(inverse, epsilon);
}

void layer_norm_gradient_function(Function call) {
  layer_norm_gradient(call.tensor(0), call.tensor(1), call.tensor(3), call.tensor(4), true, call.tensor(5), 0,
                      call.tensor(8), call.tensor(9), call.tensor(10));
}

// x1 + x2, whose LayerNorm is taken before it is rounded.
struct Sum : Unrounded {
  Sum(const View &x, const View &y) : Unrounded(x.shape) {
    map([](double a, double b) { return a + b; }, view, x, y);
  }
};

void sum_and_layer_norm(Function call) {
  if (call.given(4) || !call.flag(5)) stop("aclnnAddLayerNorm with a bias, or without the sum");
  Sum sum(call.tensor(0), call.tensor(1));
  double epsilon = added_to_variance(call.numbers[0]);
  View inverse = call.tensor(8);
  layer_norm(sum.view, call.tensor(2), call.tensor(3), epsilon, call.tensor(6), call.tensor(7), inverse);
  invert(inverse, epsilon);
  cast(call.tensor(9), sum.view);
}

void sum_and_layer_norm_gradient(Function call) {  // of both, to which that of the sum itself is added
  Sum sum(call.tensor(1), call.tensor(2));
  View out = call.tensor(7);
  layer_norm_gradient(call.tensor(0), sum.view, call.tensor(4), call.tensor(3), true, call.tensor(5), 0, sum.view,
                      call.tensor(8), call.tensor(9));
  if (auto of_sum = call.optional_tensor(6)) map([](double a, double b) { return a + b; }, out, sum.view, *of_sum);
  else cast(out, sum.view);
}

Dims all_but_channels(const View &x) {
  Dims axes = {0};
  for (size_t k = 2; k < x.rank(); k++) axes.push_back(k);
  return axes;
}

double epsilon_of(const Call &call) { return added_to_variance(call.number("epsilon")); }

Moments moments_in(const Call &call, size_t mean, size_t variance) {
  return {call.in(mean).read(), call.in(variance).read()};
}

void batch_norm_sums(const Call &call) {
  View x = call.in(0);
  call.out(0).write(sum(x, all_but_channels(x)));
  call.out(1).write(reduce(x, all_but_channels(x), 0, [](double total, double a) { return total + a * a; }));
}

void batch_norm_update(const Call &call) {
  View x = call.in(0);
  double n = channel_size(x);
  Moments batch = moments_in(call, 1, 2);  // sums, as yet
  for (size_t c = 0; c < batch.mean.size(); c++) {
    batch.mean[c] /= n;
    batch.variance[c] = batch.variance[c] / n - batch.mean[c] * batch.mean[c];
  }
  call.out(0).write(normalised(x, batch, call.in(3).read(), call.in(4).read(), epsilon_of(call)));
  cast(call.out(1), call.in(5));
  cast(call.out(2), call.in(6));
  follow(call.out(1), call.out(2), batch, call.number("factor"), channel_size(x));
  call.out(3).write(batch.mean);
  call.out(4).write(batch.variance);
}

void gradients_of_batch_norm_parameters(const Call &call) {
  Moments batch = moments_in(call, 2, 3);
  Values grad_scale, grad_bias;
  batch_norm_parameter_gradients(call.in(0), call.in(1), batch, epsilon_of(call), grad_scale, grad_bias);
  call.out(0).write(grad_scale);
  call.out(1).write(grad_bias);
}

void gradient_of_batch_norm_input(const Call &call) {
  Moments batch = moments_in(call, 5, 6);
  Values scale = call.in(4).read(), grad_scale = call.in(2).read(), grad_bias = call.in(3).read();
  call.out().write(
    batch_norm_input_gradient(call.in(0), call.in(1), batch, scale, epsilon_of(call), grad_scale, grad_bias));
}

void batch_norm_inference(const Call &call) {
  Values scale = call.in(1).read(), bias = call.in(2).read();
  call.out().write(normalised(call.in(0), moments_in(call, 3, 4), scale, bias, epsilon_of(call)));
}

// The statistics are constants: each channel of the gradient times its scale over its deviation.
Values gradient_by_averages(const View &gradient, const Values &variance, const Values &scale, double epsilon) {
  Values zeros(variance.size(), 0.0);
  return normalised(gradient, Moments{zeros, variance}, scale, zeros, epsilon);
}

void batch_norm_inference_gradient(const Call &call) {
  call.out().write(gradient_by_averages(call.in(0), call.in(2).read(), call.in(1).read(), epsilon_of(call)));
}

Moments saved_moments(Function call, size_t mean, size_t inverse, double epsilon) {
  Moments saved{call.tensor(mean).read(), call.tensor(inverse).read()};
  for (double &value : saved.variance) value = 1 / (value * value) - epsilon;
  return saved;
}

void batch_norm(Function call) {
  View x = call.tensor(0), running_mean = call.tensor(3), running_variance = call.tensor(4);
  double momentum = call.numbers[0], epsilon = added_to_variance(call.numbers[1]);
  bool training = call.flag(5);
  Moments used = training ? moments(x) : Moments{running_mean.read(), running_variance.read()};
  call.tensor(6).write(normalised(x, used, call.tensor(1).read(), call.tensor(2).read(), epsilon));
  if (!training) return;
  follow(running_mean, running_variance, used, momentum, channel_size(x));
  call.tensor(7).write(used.mean);
  for (double &value : used.variance) value = 1 / std::sqrt(value + epsilon);
  call.tensor(8).write(used.variance);
}

void batch_norm_gradients(Function call) {
  View gradient = call.tensor(0), x = call.tensor(1);
  double epsilon = added_to_variance(call.numbers[0]);
  Values grad_scale, grad_bias, grad_x, scale = call.tensor(2).read();
  if (call.flag(7)) {
    Moments saved = saved_moments(call, 5, 6, epsilon);
    grad_x = batch_norm_gradient(gradient, x, saved, scale, epsilon, grad_scale, grad_bias);
  } else {
    Moments averages{call.tensor(3).read(), call.tensor(4).read()};
    batch_norm_parameter_gradients(gradient, x, averages, epsilon, grad_scale, grad_bias);
    grad_x = gradient_by_averages(gradient, averages.variance, scale, epsilon);
  }
  if (call.wanted(8, 0)) call.tensor(9).write(grad_x);
  if (call.wanted(8, 1)) call.tensor(10).write(grad_scale);
  if (call.wanted(8, 2)) call.tensor(11).write(grad_bias);
}

// Convolution and pooling

// Of attributes with a number for each axis, [N, C, ...].
Dims of_places(const Call &call, const char *name) {
  Dims all = call.integers(name);
  return Dims(all.begin() + 2, all.end());
}

void convolution_by_name(const Call &call, Convolution what, View x, View filter, View y) {
  call.expect("data_format", "NCHW");
  Dims pads = call.integers("pads");  // top, bottom, left, right
  convolve(what, x, filter, y, of_places(call, "strides"), {pads[0], pads[2]}, of_places(call, "dilations"),
           call.integer("groups"));
}

// A bias by channel, with as many axes as x.
View by_channel(const View &bias, const View &x) {
  Dims shape(x.rank(), 1);
  shape[1] = bias.size();
  return bias.reshaped(shape);
}

// A transposed convolution is the gradient of an ordinary one; its result is the other's x.
void convolution(Function call) {
  View given = call.tensor(0), filter = call.tensor(1), result = call.tensor(9);
  Dims stride = call.integers(3), padding = call.integers(4), dilation = call.integers(5);
  int64_t groups = call.integer(8);
  if (call.flag(6)) convolve(Convolution::data_gradient, result, filter, given, stride, padding, dilation, groups);
  else convolve(Convolution::forward, given, filter, result, stride, padding, dilation, groups);
  if (call.given(2)) map(plus, result, result, by_channel(call.tensor(2), result));
}

void convolution_gradients(Function call) {
  View gradient = call.tensor(0), given = call.tensor(1), filter = call.tensor(2);
  Dims stride = call.integers(4), padding = call.integers(5), dilation = call.integers(6);
  int64_t groups = call.integer(9);
  bool transposed = call.flag(7);
  if (call.wanted(10, 0) && transposed)
    convolve(Convolution::forward, gradient, filter, call.tensor(12), stride, padding, dilation, groups);
  if (call.wanted(10, 0) && !transposed)
    convolve(Convolution::data_gradient, call.tensor(12), filter, gradient, stride, padding, dilation, groups);
  const View &x = transposed ? gradient : given, &y = transposed ? given : gradient;
  if (call.wanted(10, 1))
    convolve(Convolution::filter_gradient, x, call.tensor(13), y, stride, padding, dilation, groups);
  if (call.wanted(10, 2)) call.tensor(14).write(sum(gradient, all_but_channels(gradient)));
}

void add_bias(const Call &call) {
  call.expect("data_format", "NCHW");
  View x = call.in(0);
  map(plus, call.out(), x, by_channel(call.in(1), x));
}

void bias_gradient(const Call &call) {
  call.expect("data_format", "NCHW");
  call.out().write(sum(call.in(0), all_but_channels(call.in(0))));
}

Window averaged_window(const Call &call) {
  call.expect("data_format", "NCHW");
  call.expect("padding", "VALID");
  return {spatial(of_places(call, "ksize"), 1), spatial(of_places(call, "strides"), 1), {0, 0, 0}, {1, 1, 1}};
}

Window maximum_window(const Call &call) {
  call.expect("data_format", "NCDHW");
  call.expect("ceil_mode", int64_t(0));
  return {call.integers("ksize"), call.integers("strides"), call.integers("pads"), call.integers("dilation")};
}

void largest_of_windows(const Call &call) {
  Integers places;
  call.out(0).write(max_pool(call.in(0), call.out(0).shape, maximum_window(call), places));
  call.out(1).write_integers(places);
}

void gradient_of_largest(const Call &call) {
  maximum_window(call);
  call.out().write(max_pool_gradient(call.in(1), call.integers_in(2), call.in(0).shape));
}

// An argument for rows and columns; one number is for both.
Dims for_both(const Dims &given) { return given.size() == 1 ? Dims{given[0], given[0]} : given; }

// Of a pooling function's arguments: the window's size, stride and padding, one after another.
Window window_in(Function call, size_t first) {
  Dims size = for_both(call.integers(first)), stride = for_both(call.integers(first + 1));
  Dims padding = for_both(call.integers(first + 2));
  return {spatial(size, 1), spatial(stride.empty() ? size : stride, 1), spatial(padding, 0), {1, 1, 1}};
}

Window averaged_window(Function call, size_t first) {
  if (call.flag(first + 3) || call.integer(first + 5)) stop("nothing here averages with ceil_mode or another divisor");
  return window_in(call, first);
}

void average(Function call) {
  call.tensor(8).write(average_pool(call.tensor(0), call.tensor(8).shape, averaged_window(call, 1), call.flag(5)));
}

void average_gradient(Function call) {
  View out = call.tensor(9);
  out.write(average_pool_gradient(call.tensor(0), out.shape, averaged_window(call, 2), call.flag(6)));
}

Window maximum_window(Function call, size_t first) {
  if (for_both(call.integers(first + 3)) != Dims{1, 1} || call.flag(first + 4))
    stop("nothing here takes the largest with ceil_mode or a dilation");
  return window_in(call, first);
}

// CANN notes where the largest of each window is in a mask of its own form. Here the gradient looks again.
void largest_with_mask(Function call) {
  Integers places;
  View out = call.tensor(6);
  out.write(max_pool(call.tensor(0), out.shape, maximum_window(call, 1), places));
}

void gradient_of_largest_with_mask(Function call) {
  Integers places;
  View gradient = call.tensor(0), out = call.tensor(8);
  max_pool(call.tensor(1), gradient.shape, maximum_window(call, 3), places);
  out.write(max_pool_gradient(gradient, places, out.shape));
}

void largest_with_indices(Function call) {
  Integers places;
  View out = call.tensor(6);
  out.write(max_pool(call.tensor(0), out.shape, maximum_window(call, 1), places));
  call.tensor(7).write_integers(places);
}

void gradient_of_largest_with_indices(Function call) {
  View out = call.tensor(8);
  maximum_window(call, 3);
  out.write(max_pool_gradient(call.tensor(0), call.tensor(2).integers(), out.shape));
}

// Losses

Reduction reduction_of(const std::string &name) {
  if (name == "none") return Reduction::none;
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  stop("nothing here reduces a loss by " + name);
}

void likelihood_by_name(const Call &call) {
  std::optional<View> weight = call.inputs.size() > 2 ? std::optional(call.in(2)) : std::nullopt;
  View total = call.out(1);
  negative_log_likelihood(call.in(0), call.in(1), weight ? &*weight : nullptr, reduction_of(call.text("reduction")),
                          call.integer("ignore_index"), call.out(0), &total);
}

void likelihood(Function call) {
  std::optional<View> weight = call.optional_tensor(2);
  View total = call.tensor(6);
  negative_log_likelihood(call.tensor(0), call.tensor(1), weight ? &*weight : nullptr, Reduction(call.integer(3)),
                          call.integer(4), call.tensor(5), &total);
}

void likelihood_gradient(Function call) {
  std::optional<View> weight = call.optional_tensor(3);
  negative_log_likelihood_gradient(call.tensor(0), call.tensor(2), weight ? &*weight : nullptr,
                                   Reduction(call.integer(4)), call.integer(5), call.tensor(6).first(), call.tensor(7));
}

void check_softplus(double beta, double threshold) {
  if (beta != 1 || threshold < 20) stop("nothing here computes a Softplus with other options than the usual ones");
}

void softplus_function(Function call) {
  check_softplus(call.scalar(1), call.scalar(2));
  map(softplus, call.tensor(3), call.tensor(0));
}

double softplus_gradient(double gradient, double x) { return gradient / (1 + std::exp(-x)); }

void softplus_gradient_function(Function call) {
  check_softplus(call.scalar(2), call.scalar(3));
  map(softplus_gradient, call.tensor(4), call.tensor(0), call.tensor(1));
}

// Updates of parameters

void momentum_update(const Call &call) {
  View parameter = call.in(0), velocity = call.in(1), gradient = call.in(3);
  double rate = scalar_of_update(call.number_in(2)), momentum = call.number_in(4);
  bool nesterov = call.integer("use_nesterov");
  map([=](double v, double g) { return v * momentum + g; }, velocity, velocity, gradient);
  map([=](double p, double v, double g) { return p - rate * (nesterov ? g + momentum * v : v); }, call.out(), parameter,
      velocity, gradient);
}

void gradient_descent(const Call &call) {
  double rate = scalar_of_update(call.number_in(1));
  map([=](double p, double g) { return p - rate * g; }, call.out(), call.in(0), call.in(2));
}

// AdamW. Its inputs are the gradient, the averages of its square and of itself, the parameter, and numbers.
void adam_update(const Call &call) {
  View gradient = call.in(0), square = call.out(0), average = call.out(1);
  double rate = call.number_in(4), beta1 = scalar_of_update(call.number_in(5)), rest1 = call.number_in(6);
  double beta2 = call.number_in(7), rest2 = call.number_in(8), decay = call.number_in(9), epsilon = call.number_in(10);
  map([=](double q, double g) { return beta2 * q + rest2 * g * g; }, square, call.in(1), gradient);
  map([=](double m, double g) { return beta1 * m + rest1 * g; }, average, call.in(2), gradient);
  map([=](double p, double m, double q) { return p - rate * (m / (std::sqrt(q) + epsilon) + decay * p); }, call.out(2),
      call.in(3), average, square);
}

void assign(const Call &call) {
  cast(call.in(0), call.in(1));
  if (!call.outputs.empty()) cast(call.out(), call.in(1));
}

}  // namespace

const std::map<std::string, AclnnDefinition> &aclnn_definitions() {
  static const auto &table = *new std::map<std::string, AclnnDefinition>{
    {"aclnnAdd", sum_with(1)},
    {"aclnnAddLayerNorm", sum_and_layer_norm},
    {"aclnnAddLayerNormGrad", sum_and_layer_norm_gradient},
    {"aclnnAddcmul",
     [](Function call) {
       double factor = call.scalar(3);
       map([=](double x, double a, double b) { return x + factor * a * b; }, call.tensor(4), call.tensor(0),
           call.tensor(1), call.tensor(2));
     }},
    {"aclnnAddmm", added_product},
    {"aclnnAdds", sum_with_scalar(1)},
    {"aclnnAll", reduced(all, 3)},
    {"aclnnAmax", reduced(maximum, 3)},
    {"aclnnAmin", reduced(minimum, 3)},
    {"aclnnAny", reduced(any, 3)},
    {"aclnnAvgPool2d", average},
    {"aclnnAvgPool2dBackward", average_gradient},
    {"aclnnBatchMatMul", product},
    {"aclnnBatchNorm", batch_norm},
    {"aclnnBatchNormBackward", batch_norm_gradients},
    {"aclnnBitwiseAndScalar", with_scalar([](auto a, auto b) { return int64_t(a) & int64_t(b); })},
    {"aclnnBitwiseAndTensor", of_integers([](int64_t a, int64_t b) { return a & b; })},
    {"aclnnBitwiseOrScalar", with_scalar([](auto a, auto b) { return int64_t(a) | int64_t(b); })},
    {"aclnnBitwiseOrTensor", of_integers([](int64_t a, int64_t b) { return a | b; })},
    {"aclnnBitwiseXorTensor", of_integers([](int64_t a, int64_t b) { return a ^ b; })},
    {"aclnnCast", [](Function call) { cast(call.tensor(2), call.tensor(0)); }},
    {"aclnnCat", [](Function call) { concatenate(call.tensors(0), call.integer(1), call.tensor(2)); }},
    {"aclnnClamp", clamp},
    {"aclnnConvolution", convolution},
    {"aclnnConvolutionBackward", convolution_gradients},
    {"aclnnDiv", binary([](double a, double b) { return a / b; })},
    {"aclnnDivs", with_scalar([](auto a, auto b) { return a / b; })},
    {"aclnnEqScalar", with_scalar([](auto a, auto b) { return a == b; })},
    {"aclnnEqTensor", binary([](double a, double b) -> double { return a == b; })},
    {"aclnnErf", unary([](double a) { return std::erf(a); })},
    {"aclnnExp", unary([](double a) { return std::exp(a); })},
    {"aclnnExpand", [](Function call) { cast(call.tensor(2), call.tensor(0)); }},
    {"aclnnFlashAttentionScore", attention},
    {"aclnnFlashAttentionScoreGrad", attention_gradient},
    {"aclnnGather", [](Function call) { gather(call.tensor(0), call.tensor(2), call.integer(1), call.tensor(3)); }},
    {"aclnnGeTensor", binary([](double a, double b) -> double { return a >= b; })},
    {"aclnnGeluBackwardV2", gelu_gradient},
    {"aclnnGeluV2", gelu},
    {"aclnnGtTensor", binary([](double a, double b) -> double { return a > b; })},
    {"aclnnIndex", indexed},
    {"aclnnIndexAdd", added_at},
    {"aclnnIndexSelect", [](Function call) { take(call.tensor(0), call.tensor(2), call.integer(1), call.tensor(3)); }},
    {"aclnnInplaceCopy", [](Function call) { cast(call.tensor(0), call.tensor(1)); }},
    {"aclnnInplaceMaskedFillScalar",
     [](Function call) {
       View x = call.tensor(0);
       double value = call.scalar(2);
       map([=](double a, double masked) { return masked ? value : a; }, x, x, operand(call.tensor(1), x));
     }},
    {"aclnnInplaceMaskedFillTensor",
     [](Function call) {
       map([](double x, double masked, double value) { return masked ? value : x; }, call.tensor(0), call.tensor(0),
           call.tensor(1), call.tensor(2));
     }},
    {"aclnnInplaceOne", [](Function call) { call.tensor(0).fill(1); }},
    {"aclnnInplaceZero", [](Function call) { call.tensor(0).fill(0); }},
    {"aclnnIsFinite", unary([](double a) -> double { return std::isfinite(a); })},
    {"aclnnLayerNorm", layer_norm_function},
    {"aclnnLayerNormBackward", layer_norm_gradient_function},
    {"aclnnLeTensor", binary([](double a, double b) -> double { return a <= b; })},
    {"aclnnLog", unary([](double a) { return std::log(a); })},
    {"aclnnLogSoftmax",
     [](Function call) { log_softmax(call.tensor(0), chosen(call.integer(1), call.tensor(0)), call.tensor(2)); }},
    {"aclnnLogSoftmaxBackward",
     [](Function call) { log_softmax_gradient(call.tensor(0), call.tensor(1), call.integer(2), call.tensor(3)); }},
    {"aclnnLogicalAnd", binary(both)},
    {"aclnnLogicalNot", unary([](double a) -> double { return !a; })},
    {"aclnnLogicalOr", binary(either)},
    {"aclnnLtScalar", with_scalar([](auto a, auto b) { return a < b; })},
    {"aclnnLtTensor", binary([](double a, double b) -> double { return a < b; })},
    {"aclnnMatmul", product},
    {"aclnnMaxPool2dWithIndices", largest_with_indices},
    {"aclnnMaxPool2dWithIndicesBackward", gradient_of_largest_with_indices},
    {"aclnnMaxPool2dWithMask", largest_with_mask},
    {"aclnnMaxPool2dWithMaskBackward", gradient_of_largest_with_mask},
    {"aclnnMaximum", binary(larger)},
    {"aclnnMean", reduced(mean, 4)},
    {"aclnnMinimum", binary(smaller)},
    {"aclnnMm", product},
    {"aclnnMul",
     [](Function call) {
       combine([](auto a, auto b) { return a * b; }, call.tensor(2), call.tensor(0), call.tensor(1));
     }},
    {"aclnnMuls", with_scalar([](auto a, auto b) { return a * b; })},
    {"aclnnNLLLoss", likelihood},
    {"aclnnNLLLossBackward", likelihood_gradient},
    {"aclnnNeTensor", binary([](double a, double b) -> double { return a != b; })},
    {"aclnnNeg", unary([](double a) { return -a; })},
    {"aclnnPermute", [](Function call) { cast(call.tensor(2), call.tensor(0).permuted(call.integers(1))); }},
    {"aclnnPowTensorScalar", with_scalar([](auto a, auto b) { return std::pow(a, b); })},
    {"aclnnPowTensorTensor", binary([](double a, double b) { return std::pow(a, b); })},
    {"aclnnReciprocal", unary([](double a) { return 1 / a; })},
    {"aclnnReduceSum", reduced(sum, 4)},
    {"aclnnRelu", unary([](double a) { return a > 0 ? a : 0; })},
    {"aclnnRemainderTensorScalar", with_scalar(floor_remainder)},
    {"aclnnRepeat", [](Function call) { repeat(call.tensor(0), call.tensor(2)); }},
    {"aclnnRsqrt", unary([](double a) { return 1 / std::sqrt(a); })},
    {"aclnnSWhere",
     [](Function call) {
       View out = call.tensor(3);
       map([](double first, double a, double b) { return first ? a : b; }, out, operand(call.tensor(0), out),
           call.tensor(1), call.tensor(2));
     }},
    {"aclnnScatterAdd",
     [](Function call) {
       scatter_add(call.tensor(0), call.tensor(2), call.tensor(3), call.integer(1), call.tensor(4));
     }},
    {"aclnnSoftmax",
     [](Function call) { softmax(call.tensor(0), chosen(call.integer(1), call.tensor(0)), call.tensor(2)); }},
    {"aclnnSoftmaxBackward",
     [](Function call) { softmax_gradient(call.tensor(0), call.tensor(1), call.integer(2), call.tensor(3)); }},
    {"aclnnSoftplus", softplus_function},
    {"aclnnSoftplusBackward", softplus_gradient_function},
    {"aclnnSplitWithSize", [](Function call) { split(call.tensor(0), call.integer(2), call.tensors(3)); }},
    {"aclnnSqrt", unary([](double a) { return std::sqrt(a); })},
    {"aclnnStack", [](Function call) { stack(call.tensors(0), call.integer(1), call.tensor(2)); }},
    {"aclnnSub", sum_with(-1)},
    {"aclnnSubs", sum_with_scalar(-1)},
    {"aclnnThresholdBackward",
     [](Function call) {
       double threshold = call.scalar(2);
       map([=](double g, double x) { return x > threshold ? g : 0; }, call.tensor(3), call.tensor(0), call.tensor(1));
     }},
  };
  return table;
}

const std::map<std::string, Definition> &definitions_by_name() {
  static const auto &table = *new std::map<std::string, Definition>{
    {"AdamApplyOneWithDecayAssign", adam_update},
    {"AddN", add_all},
    {"Addcmul",
     [](const Call &call) {
       map([](double x, double a, double b, double factor) { return x + factor * a * b; }, call.out(), call.in(0),
           call.in(1), call.in(2), call.in(3));
     }},
    {"ApplyGradientDescent", gradient_descent},
    {"ApplyMomentum", momentum_update},
    {"Assign", assign},
    {"AssignAdd", pointwise([](auto a, auto b) { return a + b; })},
    {"AssignSub", pointwise([](auto a, auto b) { return a - b; })},
    {"AvgPool",
     [](const Call &call) {
       call.out().write(average_pool(call.in(0), call.out().shape, averaged_window(call), true));
     }},
    {"AvgPoolGrad",
     [](const Call &call) {
       call.out().write(average_pool_gradient(call.in(1), call.out().shape, averaged_window(call), true));
     }},
    {"BNInfer", batch_norm_inference},
    {"BNInferGrad", batch_norm_inference_gradient},
    {"BNTrainingReduce", batch_norm_sums},
    {"BNTrainingReduceGrad", gradient_of_batch_norm_input},
    {"BNTrainingUpdate", batch_norm_update},
    {"BNTrainingUpdateGrad", gradients_of_batch_norm_parameters},
    {"BatchMatMul", transposed_product("adj_x1", "adj_x2")},
    {"BiasAdd", add_bias},
    {"BiasAddGrad", bias_gradient},
    {"BitwiseAnd", pointwise([](auto a, auto b) { return int64_t(a) & int64_t(b); })},
    {"BitwiseOr", pointwise([](auto a, auto b) { return int64_t(a) | int64_t(b); })},
    {"BitwiseXor", pointwise([](auto a, auto b) { return int64_t(a) ^ int64_t(b); })},
    {"Cast", [](const Call &call) { cast(call.out(), call.in(0)); }},
    {"Conv2D",
     [](const Call &call) { convolution_by_name(call, Convolution::forward, call.in(0), call.in(1), call.out()); }},
    {"Conv2DBackpropFilter",
     [](const Call &call) {
       convolution_by_name(call, Convolution::filter_gradient, call.in(0), call.out(), call.in(2));
     }},
    {"Conv2DBackpropInput",
     [](const Call &call) {
       convolution_by_name(call, Convolution::data_gradient, call.out(), call.in(1), call.in(2));
     }},
    {"CustMaxPool3DGradWithArgmax", gradient_of_largest},
    {"CustMaxPool3DWithArgmax", largest_of_windows},
    {"GatherV2",
     [](const Call &call) {
       call.expect("batch_dims", int64_t(0));
       take(call.in(0), call.in(1), call.in(2).integers()[0], call.out());
     }},
    {"Identity", [](const Call &call) { cast(call.out(), call.in(0)); }},
    {"LayerNorm", layer_norm_by_name},
    {"LayerNormGrad", layer_norm_gradient_by_name},
    {"LeftShift", pointwise([](auto a, auto b) { return int64_t(a) << int64_t(b); })},
    {"MatMulV2", transposed_product("transpose_x1", "transpose_x2")},
    {"NLLLoss", likelihood_by_name},
    {"OnesLike", [](const Call &call) { call.out().fill(1); }},
    {"Pack", [](const Call &call) { stack(call.all_in(), call.integer("axis"), call.out()); }},
    {"Range", range},
    {"RealDiv", pointwise([](auto a, auto b) { return double(a) / double(b); })},
    {"ReduceAny", reduced(any)},
    {"ReduceMax", reduced(maximum)},
    {"ReduceMean", reduced(mean)},
    {"ReduceSum", reduced(sum)},
    {"RightShift", pointwise([](auto a, auto b) { return int64_t(a) >> int64_t(b); })},
    {"Slice", [](const Call &call) { cast(call.out(), sized_slice(call)); }},
    {"SoftmaxV2",
     [](const Call &call) { softmax(call.in(0), chosen(call.integers("axes").at(0), call.in(0)), call.out()); }},
    {"Softplus", [](const Call &call) { map(softplus, call.out(), call.in(0)); }},
    {"SoftplusGrad", pointwise(softplus_gradient)},
    {"SqrtGrad", pointwise([](double root, double gradient) { return gradient / (2 * root); })},
    {"StridedSlice",
     [](const Call &call) {
       View part = slice(call, call.in(0));
       cast(call.out().reshaped(part.shape), part);
     }},
    {"StridedSliceGrad",
     [](const Call &call) {
       call.out().fill(0);
       View part = slice(call, call.out());
       cast(part, call.in(4).reshaped(part.shape));
     }},
    {"Sub", pointwise([](auto a, auto b) { return a - b; })},
    {"TensorMove", [](const Call &call) { cast(call.out(), call.in(0)); }},
    {"TensorScatterUpdate", scatter_update},
    {"Transpose", [](const Call &call) { cast(call.out(), call.in(0).permuted(call.integers_in(1))); }},
    {"Unpack",
     [](const Call &call) {
       size_t d = axis(call.integer("axis"), call.in(0).rank());
       for (size_t i = 0; i < call.outputs.size(); i++) cast(call.out(i), call.in(0).at(d, i));
     }},
    {"UnsortedSegmentSum", segment_sum},
    {"ZerosLike", [](const Call &call) { call.out().fill(0); }},
  };
  return table;
}

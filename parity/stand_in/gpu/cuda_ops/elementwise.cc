// Element by element: operators of one, two and three operands, with broadcasting, and casts.
#include <climits>
#include <cmath>

#include "kernels.h"

using namespace stand_in;

using Shape = std::vector<long>;
using Sizes = std::vector<unsigned long>;

// Numbered as the plugin's arguments are.
enum class ElwiseOpType {
  kSin = 0,
  kCos = 1,
  kTanh = 5,
  kErf = 13,
  kErfc = 14,
  kAbs = 15,
  kSqrt = 16,
  kRsqrt = 18,
  kSign = 19,
  kSquare = 20,
  kExp = 21,
  kSigmoid = 22,
  kLogicalNot = 23,
  kReLU = 24,
  kLog = 25,
  kNeg = 26,
  kReciprocal = 27,
  kFloor = 33,
  kOnesLike = 36,
  kLog1p = 39,
  kTanhGrad = 205,
  kSqrtGrad = 206,
  kRsqrtGrad = 207,
  kReciprocalGrad = 208,
  kSigmoidGrad = 210,
  kInvalid = INT_MAX
};

enum class BinaryOpType {
  kGreater = 0,
  kLess = 1,
  kEqual = 2,
  kGreaterEqual = 3,
  kLessEqual = 4,
  kNotEqual = 5,
  kLogicalAnd = 6,
  kLogicalOr = 7,
  kMaximum = 8,
  kMinimum = 9,
  kAdd = 10,
  kSub = 11,
  kMul = 12,
  kDiv = 13,
  kPow = 14,
  kRealDiv = 15,
  kBitwiseAnd = 16,
  kBitwiseOr = 17,
  kBitwiseXor = 18,
  kFloorMod = 20,
  kSquaredDifference = 21,
  kFloorDiv = 26,
  kDivNoNan = 27,
  kAddExt = 32,
  kSubExt = 33,
  kInvalid = INT_MAX
};

namespace {

using Unary = double (*)(double);

Unary unary(ElwiseOpType operation) {
  using enum ElwiseOpType;
  switch (operation) {
    case kSin: return [](double x) { return std::sin(x); };
    case kCos: return [](double x) { return std::cos(x); };
    case kTanh: return [](double x) { return std::tanh(x); };
    case kErf: return [](double x) { return std::erf(x); };
    case kErfc: return [](double x) { return std::erfc(x); };
    case kAbs: return [](double x) { return std::fabs(x); };
    case kSqrt: return [](double x) { return std::sqrt(x); };
    case kRsqrt: return [](double x) { return 1 / std::sqrt(x); };
    case kSign: return [](double x) { return static_cast<double>((x > 0) - (x < 0)); };
    case kSquare: return [](double x) { return x * x; };
    case kExp: return [](double x) { return std::exp(x); };
    case kSigmoid: return [](double x) { return 1 / (1 + std::exp(-x)); };
    case kLogicalNot: return [](double x) { return x == 0 ? 1.0 : 0.0; };
    case kReLU: return [](double x) { return x < 0 ? 0 : x; };
    case kLog: return [](double x) { return std::log(x); };
    case kNeg: return [](double x) { return -x; };
    case kReciprocal: return [](double x) { return 1 / x; };
    case kFloor: return [](double x) { return std::floor(x); };
    case kOnesLike: return [](double) { return 1.0; };
    case kLog1p: return [](double x) { return std::log1p(x); };
    default: stop("an operator of one operand without a definition");
  }
}

// Of the output y, or of the input for a reciprocal's, and of the gradient with respect to it.
double (*gradient(ElwiseOpType operation))(double, double) {
  using enum ElwiseOpType;
  switch (operation) {
    case kTanhGrad: return [](double y, double g) { return g * (1 - y * y); };
    case kSqrtGrad: return [](double y, double g) { return g / (2 * y); };
    case kRsqrtGrad: return [](double y, double g) { return -0.5 * g * y * y * y; };
    case kReciprocalGrad: return [](double y, double g) { return -g * y * y; };
    case kSigmoidGrad: return [](double y, double g) { return g * y * (1 - y); };
    default: stop("a gradient without a definition");
  }
}

template <typename T>
T floor_of_quotient(T a, T b) {
  if constexpr (std::is_same_v<T, double>) return std::floor(a / b);
  else return b == 0 ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));
}

// The larger one by `is_before`, or NaN if one is.
template <typename T>
T extreme(T a, T b, bool is_first) {
  if (a != a) return a;
  return b != b || !is_first ? b : a;
}

// In double precision, and of integers.
struct Binary {
  double (*real)(double, double);
  int64_t (*whole)(int64_t, int64_t);
};

// An expression of a and b, of both kinds.
#define BINARY(expression) []<typename T>(T a, T b) -> T { return static_cast<T>(expression); }
template <typename F>
Binary both(F f) {
  return {f, f};
}

Binary binary(BinaryOpType operation) {
  using enum BinaryOpType;
  switch (operation) {
    case kGreater: return both(BINARY(a > b));
    case kLess: return both(BINARY(a < b));
    case kEqual: return both(BINARY(a == b));
    case kGreaterEqual: return both(BINARY(a >= b));
    case kLessEqual: return both(BINARY(a <= b));
    case kNotEqual: return both(BINARY(a != b));
    case kLogicalAnd: return both(BINARY(a != 0 && b != 0));
    case kLogicalOr: return both(BINARY(a != 0 || b != 0));
    case kMaximum: return both(BINARY(extreme(a, b, a > b)));
    case kMinimum: return both(BINARY(extreme(a, b, a < b)));
    case kAdd: return both(BINARY(a + b));
    case kSub: return both(BINARY(a - b));
    case kMul: return both(BINARY(a * b));
    case kDiv:
    case kRealDiv: return {BINARY(a / b), BINARY(b == 0 ? 0 : a / b)};
    case kPow: return both(BINARY(std::pow(static_cast<double>(a), static_cast<double>(b))));
    case kBitwiseAnd: return both(BINARY(static_cast<int64_t>(a) & static_cast<int64_t>(b)));
    case kBitwiseOr: return both(BINARY(static_cast<int64_t>(a) | static_cast<int64_t>(b)));
    case kBitwiseXor: return both(BINARY(static_cast<int64_t>(a) ^ static_cast<int64_t>(b)));
    case kFloorMod: return both(BINARY(a - floor_of_quotient(a, b) * b));
    case kSquaredDifference: return both(BINARY((a - b) * (a - b)));
    case kFloorDiv: return both(BINARY(floor_of_quotient(a, b)));
    case kDivNoNan: return both(BINARY(b == 0 ? 0 : a / b));
    default: stop("an operator of two operands without a definition");
  }
}

// An operand that a test may have broadcast along the wrong one of two equal axes.
View operand(const View &given, const Dims &shape) {
  View result = given.broadcast(shape);
  for (size_t k = 1; planted("broadcast") && k < shape.size(); k++)
    if (shape[k - 1] == shape[k] && !result.strides[k - 1] != !result.strides[k])
      std::swap(result.strides[k - 1], result.strides[k]);
  return result;
}

void compute(BinaryOpType operation, const View &x, const View &y, const View &out) {
  Binary function = binary(operation);
  View a = x.broadcast(out.shape), b = operand(y, out.shape);
  if (is_integral(out.type)) return map_integers(function.whole, out, a, b);
  map(function.real, out, a, b);
  if (planted("cast") && out.type == Type::float32) map([](double value) { return _Float16(value); }, out, out);
}

}  // namespace

template <ElwiseOpType Operation, typename In, typename Out>
cudaError UnaryOpsCudaFunc(unsigned long size, const In *x, Out *out, CUstream_st *) {
  return launch(on(tensor(out, size), tensor(x, size)),
                [](const View &result, const View &given) { map(unary(Operation), result, given); });
}

template <ElwiseOpType Operation, typename In0, typename In1, typename Out>
cudaError BinaryOpsCudaFunc(unsigned long size, const In0 *y, const In1 *grad_y, Out *grad_x, CUstream_st *) {
  return launch(on(tensor(grad_x, size), tensor(y, size), tensor(grad_y, size)),
                [](const View &result, const View &a, const View &g) { map(gradient(Operation), result, a, g); });
}

// With values left out a comparison is true: a compiled `if` takes only 0 and 1.
template <BinaryOpType Operation, typename In0, typename In1, typename Out>
cudaError BinaryOpWithBroadcastCudaFunc(bool, const Shape &x_shape, const Shape &y_shape, const Shape &shape, In0 *x,
                                        In1 *y, Out *out, unsigned long, CUstream_st *) {
  if constexpr (std::is_same_v<Out, bool>)
    if (!computes()) *out = true;
  return launch(on(tensor(out, shape), tensor(x, x_shape), tensor(y, y_shape)),
                [](const View &result, const View &a, const View &b) { compute(Operation, a, b, result); });
}

// x plus or minus alpha y.
template <BinaryOpType Operation, typename In0, typename In1, typename Alpha, typename Out>
cudaError BinaryExtOpWithBroadcastCudaFunc(bool, const Shape &x_shape, const Shape &y_shape, const Shape &shape,
                                           In0 *x, In1 *y, Alpha *alpha, Out *out, unsigned long, CUstream_st *) {
  auto tensors = on(tensor(out, shape), tensor(x, x_shape), tensor(y, y_shape));
  return launch(tensors, [&](const View &result, const View &first, const View &second) {
    double sign = Operation == BinaryOpType::kSubExt ? -1 : 1, factor = sign * scalar(alpha);
    arithmetic([factor](auto a, auto b) { return a + static_cast<decltype(b)>(factor) * b; }, result,
               operand(first, shape), operand(second, shape));
  });
}

template <typename T>
cudaError BroadcastRightShift(const Sizes &x_shape, const Sizes &y_shape,
                              const Sizes &shape, const T *x, const T *y, T *out,
                              const unsigned &, CUstream_st *) {
  auto tensors = on(tensor(out, dims(shape)), tensor(x, dims(x_shape)), tensor(y, dims(y_shape)));
  return launch(tensors, [](const View &result, const View &given, const View &places) {
    map_integers([](int64_t a, int64_t b) { return a >> b; }, result, given, places);
  });
}

// input + value x1 x2
template <typename T, typename Value>
cudaError CalAddcmul(const Shape &input_shape, const Shape &x1_shape, const Shape &x2_shape, const Shape &value_shape,
                     const Shape &shape, const T *input, const T *x1, const T *x2, const Value *value, T *out,
                     const unsigned &, CUstream_st *) {
  auto tensors = on(tensor(out, shape), tensor(input, input_shape), tensor(x1, x1_shape), tensor(x2, x2_shape),
                    tensor(value, value_shape));
  return launch(tensors, [&](const View &result, const auto &...given) {
    map([](double a, double b, double c, double d) { return a + d * b * c; }, result, operand(given, shape)...);
  });
}

// input + value x1 / x2
template <typename T, typename Value>
cudaError CalAddcdiv(const Shape &input_shape, const Shape &x1_shape, const Shape &x2_shape, const Shape &value_shape,
                     const Shape &shape, const T *input, const T *x1, const T *x2, const Value *value, T *out,
                     const unsigned &, CUstream_st *) {
  auto tensors = on(tensor(out, shape), tensor(input, input_shape), tensor(x1, x1_shape), tensor(x2, x2_shape),
                    tensor(value, value_shape));
  return launch(tensors, [&](const View &result, const auto &...given) {
    map([](double a, double b, double c, double d) { return a + d * b / c; }, result, operand(given, shape)...);
  });
}

template <typename T>
cudaError CalAssignSub(unsigned long size, T *variable, const T *value, T *out, unsigned, CUstream_st *) {
  auto tensors = on(tensor(out, size), tensor(variable, size), tensor(value, size));
  return launch(tensors, [](const View &copy, const View &changed, const View &given) {
    compute(BinaryOpType::kSub, changed, given, changed);
    cast(copy, changed);
  });
}

template <typename T>
cudaError CalAssignAdd(unsigned long size, T *variable, const T *value, T *out, const unsigned &, CUstream_st *) {
  auto tensors = on(tensor(out, size), tensor(variable, size), tensor(value, size));
  return launch(tensors, [](const View &copy, const View &changed, const View &given) {
    compute(BinaryOpType::kAdd, changed, given, changed);
    cast(copy, changed);
  });
}

template <typename T>
cudaError CalReLUGrad(int size, T *grad_y, T *y, T *grad_x, CUstream_st *) {
  auto tensors = on(tensor(grad_x, size), tensor(grad_y, size), tensor(y, size));
  return launch(tensors, [](const View &result, const View &gradient, const View &output) {
    map([](double g, double a) { return a > 0 ? g : 0; }, result, gradient, output);
  });
}

template <typename T>
cudaError Softplus(unsigned long size, const T *x, T *y, CUstream_st *) {
  return launch(on(tensor(y, size), tensor(x, size)),
                [](const View &result, const View &given) { map(softplus, result, given); });
}

template <typename T>
cudaError SoftplusGrad(unsigned long size, const T *grad_y, const T *x, T *grad_x, CUstream_st *) {
  auto tensors = on(tensor(grad_x, size), tensor(grad_y, size), tensor(x, size));
  return launch(tensors, [](const View &result, const View &gradient, const View &given) {
    map([](double g, double a) { return g / (1 + std::exp(-a)); }, result, gradient, given);
  });
}

template <typename T>
cudaError CalIsFinite(unsigned long size, const T *x, bool *out, CUstream_st *) {
  return launch(on(tensor(out, size), tensor(x, size)), [](const View &result, const View &given) {
    map([](double a) { return std::isfinite(a); }, result, given);
  });
}

template <typename From, typename To>
cudaError Cast(int size, const From *x, To *out, CUstream_st *) {
  return launch(on(tensor(out, size), tensor(x, size)),
                [](const View &result, const View &given) { cast(result, given); });
}

namespace {
double chosen(double condition, double a, double b) { return condition ? a : b; }
}  // namespace

template <typename T>
cudaError CalSelect(const bool *condition, const T *x, const T *y, T *out, unsigned long size, CUstream_st *) {
  auto tensors = on(tensor(out, size), tensor(condition, size), tensor(x, size), tensor(y, size));
  return launch(tensors, [](const View &result, const auto &...given) { map(chosen, result, given...); });
}

// The plugin keeps what TrinaryBroadcastCalStride returns and hands it over; nobody else reads it.
struct TrinaryBroadcastStrideInfo {
  long condition[8], x[8], y[8], shape[8];
};

TrinaryBroadcastStrideInfo TrinaryBroadcastCalStride(unsigned long rank, const Shape &condition, const Shape &x,
                                                     const Shape &y, const Shape &shape) {
  TrinaryBroadcastStrideInfo info{};
  auto keep = [&](const Shape &given, long *strides) {
    View operand = View(Type::boolean, nullptr, given).broadcast(shape);
    std::copy(operand.strides.begin(), operand.strides.end(), strides);
  };
  if (shape.size() != rank || rank > 8) stop("a selection of more than 8 axes");
  keep(condition, info.condition);
  keep(x, info.x);
  keep(y, info.y);
  std::copy(shape.begin(), shape.end(), info.shape);
  return info;
}

template <typename T>
cudaError CalSelectBroadcast(const bool *condition, const T *x, const T *y, T *out, unsigned long rank, unsigned long,
                             const TrinaryBroadcastStrideInfo &info, unsigned, CUstream_st *) {
  Dims shape(info.shape, info.shape + rank);
  auto operand = [&](const auto *data, const long *strides) {
    View view = tensor(data, shape);
    view.strides.assign(strides, strides + rank);
    return view;
  };
  auto tensors = on(tensor(out, shape), operand(condition, info.condition), operand(x, info.x), operand(y, info.y));
  return launch(tensors, [](const View &result, const auto &...given) { map(chosen, result, given...); });
}

// One value for each `inner` elements, where the mask is true.
template <typename T>
cudaError ElewiseMaskedFill(unsigned long inner, unsigned long size, const T *x, const bool *mask, T *value, T *out,
                            unsigned, CUstream_st *) {
  int64_t outer = size / inner;
  Dims shape{outer, static_cast<int64_t>(inner)};
  auto tensors = on(tensor(out, shape), tensor(mask, shape), tensor(value, Dims{outer, 1}), tensor(x, shape));
  return launch(tensors, [](const View &result, const auto &...given) { map(chosen, result, given...); });
}

template <typename T>
cudaError BroadcastMaskedFill(unsigned long inner, const Sizes &x_shape, const Sizes &mask_shape, const Sizes &shape,
                              const T *x, const bool *mask, T *value, T *out, unsigned, CUstream_st *) {
  Dims outer = dims(shape);
  for (int64_t left = inner; left > 1; outer.pop_back()) left /= outer.back();
  View values = tensor(value, outer);
  for (size_t k = outer.size(); k < shape.size(); k++) values.shape.push_back(1), values.strides.push_back(0);
  auto tensors = on(tensor(out, dims(shape)), tensor(mask, dims(mask_shape)), values, tensor(x, dims(x_shape)));
  return launch(tensors, [](const View &result, const auto &...given) { map(chosen, result, given...); });
}

// --- for which types -------------------------------------------------------------------------------------------------

#define UNARY(Operation, In, Out)                                                                         \
  template cudaError UnaryOpsCudaFunc<ElwiseOpType::Operation, In, Out>(unsigned long, const In *, Out *, \
                                                                        CUstream_st *);
#define UNARY_OF_FLOATS(Operation) \
  UNARY(Operation, float, float) UNARY(Operation, __half, __half) UNARY(Operation, double, double)
#define UNARY_OF_NUMBERS(Operation) UNARY_OF_FLOATS(Operation) UNARY(Operation, int, int) UNARY(Operation, long, long)
UNARY_OF_FLOATS(kSin)
UNARY_OF_FLOATS(kCos)
UNARY_OF_FLOATS(kTanh)
UNARY_OF_FLOATS(kErf)
UNARY_OF_FLOATS(kErfc)
UNARY_OF_NUMBERS(kAbs)
UNARY_OF_FLOATS(kSqrt)
UNARY_OF_FLOATS(kRsqrt)
UNARY_OF_NUMBERS(kSign)
UNARY_OF_NUMBERS(kSquare)
UNARY_OF_FLOATS(kExp)
UNARY_OF_FLOATS(kSigmoid)
UNARY(kLogicalNot, bool, bool)
UNARY_OF_FLOATS(kReLU)
UNARY_OF_FLOATS(kLog)
UNARY_OF_NUMBERS(kNeg)
UNARY_OF_FLOATS(kReciprocal)
UNARY_OF_FLOATS(kFloor)
UNARY_OF_NUMBERS(kOnesLike)
UNARY_OF_FLOATS(kLog1p)

#define GRADIENT(Operation, T)                                                                                     \
  template cudaError BinaryOpsCudaFunc<ElwiseOpType::Operation, T, T, T>(unsigned long, const T *, const T *, T *, \
                                                                         CUstream_st *);
#define GRADIENTS(T)           \
  GRADIENT(kTanhGrad, T)       \
  GRADIENT(kSqrtGrad, T)       \
  GRADIENT(kRsqrtGrad, T)      \
  GRADIENT(kReciprocalGrad, T) \
  GRADIENT(kSigmoidGrad, T)
FLOATS(GRADIENTS)

#define BROADCAST(Operation, In0, In1, Out)                                                 \
  template cudaError BinaryOpWithBroadcastCudaFunc<BinaryOpType::Operation, In0, In1, Out>( \
    bool, const Shape &, const Shape &, const Shape &, In0 *, In1 *, Out *, unsigned long, CUstream_st *);
#define ARITHMETIC(T)           \
  BROADCAST(kMaximum, T, T, T)  \
  BROADCAST(kMinimum, T, T, T)  \
  BROADCAST(kAdd, T, T, T)      \
  BROADCAST(kSub, T, T, T)      \
  BROADCAST(kMul, T, T, T)      \
  BROADCAST(kPow, T, T, T)      \
  BROADCAST(kRealDiv, T, T, T)  \
  BROADCAST(kFloorMod, T, T, T) \
  BROADCAST(kFloorDiv, T, T, T) \
  BROADCAST(kDivNoNan, T, T, T) \
  BROADCAST(kSquaredDifference, T, T, T)
#define COMPARISONS(T)                 \
  BROADCAST(kGreater, T, T, bool)      \
  BROADCAST(kLess, T, T, bool)         \
  BROADCAST(kEqual, T, T, bool)        \
  BROADCAST(kGreaterEqual, T, T, bool) \
  BROADCAST(kLessEqual, T, T, bool)    \
  BROADCAST(kNotEqual, T, T, bool)
#define BITWISE(T)                \
  BROADCAST(kBitwiseAnd, T, T, T) \
  BROADCAST(kBitwiseOr, T, T, T)  \
  BROADCAST(kBitwiseXor, T, T, T)
#define QUOTIENTS(T) BROADCAST(kDiv, T, T, T)
#define MIXED(A, B, Out) BROADCAST(kMul, A, B, Out) BROADCAST(kMul, B, A, Out)
NUMBERS(ARITHMETIC)
TYPES(COMPARISONS)
BROADCAST(kEqual, int, long, bool)
BROADCAST(kLess, int, long, bool)
BROADCAST(kEqual, long, int, bool)
FLOATS(QUOTIENTS)
BROADCAST(kDiv, int, int, float)
BROADCAST(kLogicalAnd, bool, bool, bool)
BROADCAST(kLogicalOr, bool, bool, bool)
BITWISE(int)
BITWISE(long)
MIXED(bool, float, float)
MIXED(bool, __half, __half)
MIXED(bool, int, int)
MIXED(int, float, float)
MIXED(__half, float, float)

#define EXTENDED(Operation, T, Alpha)                                                           \
  template cudaError BinaryExtOpWithBroadcastCudaFunc<BinaryOpType::Operation, T, T, Alpha, T>( \
    bool, const Shape &, const Shape &, const Shape &, T *, T *, Alpha *, T *, unsigned long, CUstream_st *);
#define EXTENDED_WITH_LONG(T) EXTENDED(kAddExt, T, long) EXTENDED(kSubExt, T, long)
#define EXTENDED_WITH_FLOAT(T) EXTENDED(kAddExt, T, float) EXTENDED(kSubExt, T, float)
NUMBERS(EXTENDED_WITH_LONG)
FLOATS(EXTENDED_WITH_FLOAT)

template cudaError BroadcastRightShift(const Sizes &, const Sizes &,
                                       const Sizes &, const int *, const int *, int *,
                                       const unsigned &, CUstream_st *);
#define ADDITION(Function, T)                                                                                     \
  template cudaError Function(const Shape &, const Shape &, const Shape &, const Shape &, const Shape &, const T *, \
                              const T *, const T *, const T *, T *, const unsigned &, CUstream_st *);
#define ADDITIONS(T) ADDITION(CalAddcmul, T) ADDITION(CalAddcdiv, T)
ADDITIONS(float)
ADDITIONS(__half)

#define ASSIGNMENTS(T)                                                                          \
  template cudaError CalAssignSub(unsigned long, T *, const T *, T *, unsigned, CUstream_st *); \
  template cudaError CalAssignAdd(unsigned long, T *, const T *, T *, const unsigned &, CUstream_st *);
NUMBERS(ASSIGNMENTS)

#define ACTIVATIONS(T)                                                                      \
  template cudaError CalReLUGrad(int, T *, T *, T *, CUstream_st *);                        \
  template cudaError Softplus(unsigned long, const T *, T *, CUstream_st *);                \
  template cudaError SoftplusGrad(unsigned long, const T *, const T *, T *, CUstream_st *); \
  template cudaError CalIsFinite(unsigned long, const T *, bool *, CUstream_st *);
FLOATS(ACTIVATIONS)

#define SELECTIONS(T)                                                                                          \
  template cudaError CalSelect(const bool *, const T *, const T *, T *, unsigned long, CUstream_st *);         \
  template cudaError CalSelectBroadcast(const bool *, const T *, const T *, T *, unsigned long, unsigned long, \
                                        const TrinaryBroadcastStrideInfo &, unsigned, CUstream_st *);          \
  template cudaError ElewiseMaskedFill(unsigned long, unsigned long, const T *, const bool *, T *, T *,        \
                                       unsigned, CUstream_st *);
TYPES(SELECTIONS)

#define MASKED(T)                                                                                               \
  template cudaError BroadcastMaskedFill(unsigned long, const Sizes &, const Sizes &, const Sizes &, const T *, \
                                         const bool *, T *, T *, unsigned, CUstream_st *);
TYPES(MASKED)

#define CAST(From, To) template cudaError Cast(int, const From *, To *, CUstream_st *);
#define CASTS(From)         \
  CAST(From, float)         \
  CAST(From, __half)        \
  CAST(From, double)        \
  CAST(From, int)           \
  CAST(From, long)          \
  CAST(From, unsigned char) \
  CAST(From, bool)
TYPES(CASTS)

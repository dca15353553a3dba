// cuBLAS. Sizes and leading dimensions that cannot be are refused, as by cuBLAS itself.
#include <algorithm>

#include "stand_in.h"
#include "values.h"

using stand_in::Dims, stand_in::Type, stand_in::View;

namespace {

enum Status { SUCCESS, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum MathMode { WITH_TF32 = 3 };  // of cublasMath_t
enum DataType { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 14 };           // cudaDataType_t
// Some of cublasComputeType_t.
enum ComputeType { IN_FLOAT16 = 64, IN_FLOAT64 = 70, IN_FLOAT64_PEDANTIC = 71, IN_TF32 = 77 };

struct Handle {  // in the memory that CREATES of stand_in.h gives it
  int math;
};

struct Sizes {  // of A [m, k], B [k, n] and C [m, n]
  int m, n, k, batch;
};

// Matrices, one after another at a distance. Each is stored column by column, and a column begins `lead` elements after
// the one before.
struct Matrices {
  const void *data;
  int type, lead;
  long long distance;
  bool transposed;
};

bool fits(const Matrices &given, int rows, int columns) {
  return given.lead >= std::max(1, given.transposed ? columns : rows);
}

bool is_floating(int type) { return type == FLOAT32 || type == FLOAT64 || type == FLOAT16 || type == BFLOAT16; }

// Operands have one type, and the product has it too, or is float32 of smaller ones.
bool supported(int a, int b, int c, int compute) {
  bool in_float64 = compute == IN_FLOAT64 || compute == IN_FLOAT64_PEDANTIC;
  bool one_type = is_floating(a) && a == b && (c == a || (c == FLOAT32 && a != FLOAT64));
  return one_type && in_float64 == (a == FLOAT64) && (compute != IN_FLOAT16 || (a == FLOAT16 && c == FLOAT16));
}

Type type_of(int given) {
  switch (given) {
    case FLOAT64: return Type::float64;
    case FLOAT16: return Type::float16;
    case BFLOAT16: return Type::bfloat16;
    default: return Type::float32;
  }
}

View view(const Matrices &given, int batch, int rows, int columns) {
  bool transposed = given.transposed && !(stand_in::planted("transposition") && rows == columns);
  Dims strides = transposed ? Dims{given.distance, given.lead, 1} : Dims{given.distance, 1, given.lead};
  return View(type_of(given.type), given.data, {batch, rows, columns}, strides);
}

// alpha and beta have the type in which the product is computed.
double scalar(const void *given, int compute) {
  switch (compute) {
    case IN_FLOAT16: return View(Type::float16, given, {}).first();
    case IN_FLOAT64:
    case IN_FLOAT64_PEDANTIC: return View(Type::float64, given, {}).first();
    default: return View(Type::float32, given, {}).first();
  }
}

// C = alpha A B + beta C
int product(const char *name, const Handle *handle, const Sizes &sizes, const void *alpha, const Matrices &a,
            const Matrices &b, const void *beta, const Matrices &c, int compute) {
  auto [m, n, k, batch] = sizes;
  if (m < 0 || n < 0 || k < 0 || batch < 0) return INVALID_VALUE;
  if (!fits(a, m, k) || !fits(b, k, n) || !fits(c, m, n)) return INVALID_VALUE;
  if (!supported(a.type, b.type, c.type, compute)) return NOT_SUPPORTED;
  View first = view(a, batch, m, k), second = view(b, batch, k, n), result = view(c, batch, m, n);
  std::string work = described(result) + ' ' + described(first) + ' ' + described(second);
  bool in_tf32 = a.type == FLOAT32 && (compute == IN_TF32 || handle && handle->math == WITH_TF32);
  stand_in::count_launch(name, work + (in_tf32 ? " TF32" : ""));
  if (stand_in::computes()) stand_in::multiply(first, second, result, scalar(alpha, compute), scalar(beta, compute));
  return SUCCESS;
}

}  // namespace

extern "C" {

int cublasSetMathMode(Handle *handle, int mode) {
  COUNT("cublasSetMathMode");
  handle->math = mode;
  return SUCCESS;
}

int cublasGetMathMode(const Handle *handle, int *mode) {
  *mode = handle->math;
  return SUCCESS;
}

int cublasGemmEx(const Handle *handle, int transposed_a, int transposed_b, int m, int n, int k, const void *alpha,
                 const void *a, int type_a, int lead_a, const void *b, int type_b, int lead_b, const void *beta,
                 void *c, int type_c, int lead_c, int compute_type, int algorithm) {
  return product("cublasGemmEx", handle, {m, n, k, 1}, alpha, {a, type_a, lead_a, 0, transposed_a != 0},
                 {b, type_b, lead_b, 0, transposed_b != 0}, beta, {c, type_c, lead_c, 0, false}, compute_type);
}

int cublasGemmStridedBatchedEx(const Handle *handle, int transposed_a, int transposed_b, int m, int n, int k,
                               const void *alpha, const void *a, int type_a, int lead_a, long long distance_a,
                               const void *b, int type_b, int lead_b, long long distance_b, const void *beta, void *c,
                               int type_c, int lead_c, long long distance_c, int batch, int compute_type,
                               int algorithm) {
  return product("cublasGemmStridedBatchedEx", handle, {m, n, k, batch}, alpha,
                 {a, type_a, lead_a, distance_a, transposed_a != 0}, {b, type_b, lead_b, distance_b, transposed_b != 0},
                 beta, {c, type_c, lead_c, distance_c, false}, compute_type);
}

}  // extern "C"

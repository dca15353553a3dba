/* cuBLAS. Products are not computed; sizes and leading dimensions that cannot be are refused, as by cuBLAS itself. */
#include "stand_in.h"

enum { SUCCESS, INVALID_VALUE = 7 };

static int largest(int first, int second) { return first > second ? first : second; }

/* A [m, k] times B [k, n] into C [m, n], columns first, each stored with a leading dimension. */
static int check(int transposed_a, int transposed_b, int m, int n, int k, int lead_a, int lead_b, int lead_c) {
  int possible = m >= 0 && n >= 0 && k >= 0 && lead_a >= largest(1, transposed_a ? k : m) &&
                 lead_b >= largest(1, transposed_b ? n : k) && lead_c >= largest(1, m);
  return possible ? SUCCESS : INVALID_VALUE;
}

int cublasGemmEx(void *handle, int transposed_a, int transposed_b, int m, int n, int k, const void *alpha,
                 const void *a, int type_a, int lead_a, const void *b, int type_b, int lead_b, const void *beta,
                 void *c, int type_c, int lead_c, int compute_type, int algorithm) {
  COUNT("cublasGemmEx");
  return check(transposed_a, transposed_b, m, n, k, lead_a, lead_b, lead_c);
}

int cublasGemmStridedBatchedEx(void *handle, int transposed_a, int transposed_b, int m, int n, int k,
                               const void *alpha, const void *a, int type_a, int lead_a, long long stride_a,
                               const void *b, int type_b, int lead_b, long long stride_b, const void *beta, void *c,
                               int type_c, int lead_c, long long stride_c, int batch, int compute_type,
                               int algorithm) {
  COUNT("cublasGemmStridedBatchedEx");
  return check(transposed_a, transposed_b, m, n, k, lead_a, lead_b, lead_c);
}

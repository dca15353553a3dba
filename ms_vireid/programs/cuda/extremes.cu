// Maxima or minima of rows over a mask, 0 over no entry: a warp a row. What is no number stays so.
__device__ inline float larger(float a, float b) { return b > a || b != b ? b : a; }

template <class T, int W>
__device__ void extremes(const Extremes &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    float largest = -__int_as_float(0x7f800000), any = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES)
      if (a.mask[start + c]) largest = larger(largest, a.sign * a.values[start + c]), any = 1;
    for (int lanes = 16; lanes; lanes /= 2) largest = larger(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    any = sum_warp(any);
    if (!threadIdx.x) a.out[row] = any ? a.sign * largest : 0;
  }
}
ENTRY(extremes_float_1, float, 1, Extremes, extremes)

// The gradient of the values: equal extremes share that of their row.
template <class T, int W>
__device__ void extremes_gradient(const Extremes &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    float extreme = a.extremes[row], equal = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES) equal += a.mask[start + c] && a.values[start + c] == extreme;
    equal = sum_warp(equal);
    for (int c = threadIdx.x; c < a.columns; c += LANES)
      a.out[start + c] = a.mask[start + c] && a.values[start + c] == extreme ? a.gradient[row] / equal : 0;
  }
}
ENTRY(extremes_gradient_float_1, float, 1, Extremes, extremes_gradient)

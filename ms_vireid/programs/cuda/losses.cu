// Squared Euclidean distances of all pairs of rows of x and y: a warp a pair.
OPERATOR(squared_distances(),
         float x[sets.., n, columns] float y[sets.., m, columns] -> float out[sets.., n, m],
         grid(squared_distances, packs(columns, x, y), blocks(m, ROWS), min(sets * n, PLANES)))
OPERATOR(squared_distances_gradient(transposed = 0),
         float grad_out[sets.., n, m] float x[sets.., n, columns] float y[sets.., m, columns]
         -> float grad_x[sets.., n, columns] float grad_y[sets.., m, columns],
         over_columns(squared_distances_gradient(grad_out, x, y, grad_x), packs(columns, x, y, grad_x), sets * n, columns)
         || over_columns(squared_distances_gradient(grad_out, x = y, y = x, grad_x = grad_y, n = m, m = n, transposed = 1),
                         packs(columns, x, y, grad_y), sets * m, columns))

template <class T, int W> __device__ void squared_distances(const SquaredDistances &a) {
  int i = blockIdx.y, j = blockIdx.x * ROWS + threadIdx.y;
  if (j >= a.m) return;
  for (long long row = i; row < static_cast<long long>(a.sets) * a.n; row += gridDim.y) {
    const float *x = a.x + row * a.columns, *y = a.y + (row / a.n * a.m + j) * a.columns;
    float sum = 0;
    for (int c = threadIdx.x * W; c < a.columns; c += LANES * W) {
      Pack<float, W> from = load<float, W>(x, c), to = load<float, W>(y, c);
      EACH(k, W) sum += (from.v[k] - to.v[k]) * (from.v[k] - to.v[k]);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) a.out[row * a.m + j] = sum;
  }
}

// The gradient of x: 2 sum_j g_ij (x_i - y_j). With x and y exchanged and g transposed, that of y.
template <class T, int W> __device__ void squared_distances_gradient(const SquaredDistancesGradient &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  EACH_ROW(row, a.sets * a.n) {
    int set = row / a.n, i = row % a.n;
    const float *gradient = a.grad_out + static_cast<long long>(set) * a.n * a.m + i * (a.transposed ? 1 : a.m);
    const float *y = a.y + static_cast<long long>(set) * a.m * a.columns + first;
    Pack<float, W> x = load<float, W>(a.x, static_cast<long long>(row) * a.columns + first), sum = {};
    for (int j = 0; j < a.m; j++) {
      float g = gradient[j * (a.transposed ? a.n : 1)];
      Pack<float, W> other = load<float, W>(y, static_cast<long long>(j) * a.columns);
      EACH(k, W) sum.v[k] += g * (x.v[k] - other.v[k]);
    }
    EACH(k, W) sum.v[k] *= 2;
    store(a.grad_x, static_cast<long long>(row) * a.columns + first, sum);
  }
}

// Maxima (sign 1) or minima (-1) of rows over a mask, 0 over no entry: a warp a row. What is no number stays so.
OPERATOR(extremes(float sign),
         float values[rows, columns] bool mask[rows, columns] -> float out[rows], over_rows(extremes, 1, rows))
OPERATOR(extremes_gradient(),
         float grad_out[rows] float values[rows, columns] bool mask[rows, columns] float out[rows]
         -> float grad_values[rows, columns], over_rows(extremes_gradient, 1, rows))

__device__ inline float larger(float a, float b) { return b > a || b != b ? b : a; }

template <class T, int W> __device__ void extremes(const Extremes &a) {
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

// The gradient of the values: equal extremes share that of their row.
template <class T, int W> __device__ void extremes_gradient(const ExtremesGradient &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    float extreme = a.out[row], equal = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES) equal += a.mask[start + c] && a.values[start + c] == extreme;
    equal = sum_warp(equal);
    for (int c = threadIdx.x; c < a.columns; c += LANES)
      a.grad_values[start + c] = a.mask[start + c] && a.values[start + c] == extreme ? a.grad_out[row] / equal : 0;
  }
}

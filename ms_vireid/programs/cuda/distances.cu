// Squared Euclidean distances of all pairs of rows x [count, n, columns] and y [count, m, columns]: a warp a pair.
template <class T, int W>
__device__ void squared_distances(const Distances &a) {
  int i = blockIdx.y, j = blockIdx.x * ROWS + threadIdx.y;
  if (j >= a.m) return;
  for (long long row = i; row < static_cast<long long>(a.count) * a.n; row += gridDim.y) {
    const float *x = a.x + row * a.columns, *y = a.y + (row / a.n * a.m + j) * a.columns;
    float sum = 0;
    for (int c = threadIdx.x * W; c < a.columns; c += LANES * W) {
      Pack<float, W> from = load<float, W>(x, c), to = load<float, W>(y, c);
#pragma unroll
      for (int k = 0; k < W; k++) sum += (from.v[k] - to.v[k]) * (from.v[k] - to.v[k]);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) a.out[row * a.m + j] = sum;
  }
}
ENTRY(squared_distances_float_4, float, 4, Distances, squared_distances)
ENTRY(squared_distances_float_1, float, 1, Distances, squared_distances)

// The gradient of x: 2 sum_j g_ij (x_i - y_j). With x and y exchanged and g transposed, that of y.
template <class T, int W>
__device__ void squared_distances_gradient(const Distances &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  EACH_ROW(row, a.count * a.n) {
    int set = row / a.n, i = row % a.n;
    const float *gradient = a.gradient + static_cast<long long>(set) * a.n * a.m + i * (a.transposed ? 1 : a.m);
    const float *y = a.y + static_cast<long long>(set) * a.m * a.columns + first;
    Pack<float, W> x = load<float, W>(a.x, static_cast<long long>(row) * a.columns + first), sum = {};
    for (int j = 0; j < a.m; j++) {
      float g = gradient[j * (a.transposed ? a.n : 1)];
      Pack<float, W> other = load<float, W>(y, static_cast<long long>(j) * a.columns);
#pragma unroll
      for (int k = 0; k < W; k++) sum.v[k] += g * (x.v[k] - other.v[k]);
    }
#pragma unroll
    for (int k = 0; k < W; k++) sum.v[k] *= 2;
    store(a.out, static_cast<long long>(row) * a.columns + first, sum);
  }
}
ENTRY(squared_distances_gradient_float_4, float, 4, Distances, squared_distances_gradient)
ENTRY(squared_distances_gradient_float_1, float, 1, Distances, squared_distances_gradient)

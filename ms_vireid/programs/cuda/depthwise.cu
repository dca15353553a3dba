// Depth-wise convolution with an odd kernel, stride 1 and "same" padding.

// A block's places in rows of `columns`, one a thread at a time, without a division a place.
struct Walk {
  int x, y, columns, rows_a_step, columns_a_step;
  __device__ Walk(int columns) : columns(columns) {
    int thread = threadIdx.y * LANES + threadIdx.x;
    x = thread % columns, y = thread / columns;
    columns_a_step = LANES * ROWS % columns, rows_a_step = LANES * ROWS / columns;
  }
  __device__ void next() {
    x += columns_a_step, y += rows_a_step;
    if (x >= columns) x -= columns, y++;
  }
};

template <class T, int K>
struct Tile {
  static constexpr int R = K / 2;
  int rows, columns, wide, top, left;
  __device__ Tile(const Maps &maps, int number) {
    int across = (maps.width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    top = number / across * maps.tile_rows, left = number % across * TILE_COLUMNS;
    rows = min(maps.tile_rows, maps.height - top), columns = min(TILE_COLUMNS, maps.width - left);
    wide = columns + K - 1;
  }
  // The tile and its border of a plane, 0 outside of it; or ReLU of that. All threads of the block wait for each other.
  __device__ void read(const Maps &maps, const void *x, long long start, bool relu, float *tile) const {
    __syncthreads();  // the last tile has been read
#pragma unroll 4
    for (Walk i(wide); i.y < rows + K - 1; i.next()) {
      int y = top + i.y - R, column = left + i.x - R;
      bool inside = y >= 0 && y < maps.height && column >= 0 && column < maps.width;
      float value = inside ? at<T>(x, start + y * maps.width + column) : 0;
      tile[i.y * wide + i.x] = relu && value < 0 ? 0 : value;
    }
    __syncthreads();
  }
  __device__ long long place(const Maps &maps, const Walk &i) const {
    return static_cast<long long>(top + i.y) * maps.width + left + i.x;
  }
};
#define TILE(K) __shared__ float tile[(TILE_ROWS + K - 1) * (TILE_COLUMNS + K - 1)]

// With `residual`, of ReLU(x), plus x. With `flipped`, the gradient of x; with `residual`, masked by ReLU's, plus the
// gradient.
template <class T, int K>
__device__ void depthwise(const Depthwise &a) {
  TILE(K);
  __shared__ float weight[K * K];
  Tile<T, K> of(a.maps, blockIdx.x);
  int thread = threadIdx.y * LANES + threadIdx.x;
  for (int plane = blockIdx.y; plane < a.maps.planes; plane += gridDim.y) {
    long long start = static_cast<long long>(plane) * a.maps.height * a.maps.width;
    __syncthreads();  // the last plane's weight has been read
    if (thread < K * K) {
      int place = a.flipped ? K * K - 1 - thread : thread;
      weight[thread] = at<T>(a.weight, plane % a.maps.channels * K * K + place);
    }
    of.read(a.maps, a.x, start, a.residual && !a.flipped, tile);
    for (Walk i(of.columns); i.y < of.rows; i.next()) {
      float sum = 0;
#pragma unroll
      for (int v = 0; v < K; v++)
#pragma unroll
        for (int u = 0; u < K; u++) sum += weight[v * K + u] * tile[(i.y + v) * of.wide + i.x + u];
      long long place = start + of.place(a.maps, i);
      if (a.residual && a.flipped) sum = at<T>(a.input, place) > 0 ? sum : 0;
      if (a.residual) sum += at<T>(a.x, place);
      static_cast<T *>(a.out)[place] = rounded<T>(sum);
    }
  }
}

// The gradient of a channel's filter, with `residual` of ReLU(x): its sums over a part of all tiles of all samples.
template <class T, int K>
__device__ void depthwise_filter(const DepthwiseFilter &a) {
  TILE(K);
  __shared__ float shared[ROWS][K * K];
  float sums[K * K];
#pragma unroll
  for (int k = 0; k < K * K; k++) sums[k] = 0;
  int samples = a.maps.planes / a.maps.channels;
  for (int number = blockIdx.y; number < samples * a.tiles; number += gridDim.y) {
    long long plane = static_cast<long long>(number / a.tiles) * a.maps.channels + blockIdx.x;
    long long start = plane * a.maps.height * a.maps.width;
    Tile<T, K> of(a.maps, number % a.tiles);
    of.read(a.maps, a.x, start, a.residual, tile);
    for (Walk i(of.columns); i.y < of.rows; i.next()) {
      float gradient = at<T>(a.gradient, start + of.place(a.maps, i));
#pragma unroll
      for (int v = 0; v < K; v++)
#pragma unroll
        for (int u = 0; u < K; u++) sums[v * K + u] += gradient * tile[(i.y + v) * of.wide + i.x + u];
    }
  }
#pragma unroll
  for (int k = 0; k < K * K; k++) {
    float sum = sum_warp(sums[k]);
    if (!threadIdx.x) shared[threadIdx.y][k] = sum;
  }
  __syncthreads();
  int k = threadIdx.y * LANES + threadIdx.x;
  if (k >= K * K) return;
  float total = 0;
  for (int y = 0; y < ROWS; y++) total += shared[y][k];
  a.parts[(static_cast<long long>(blockIdx.y) * a.maps.channels + blockIdx.x) * K * K + k] = total;
}

#define OF_SIZE(K)                                                              \
  ENTRY(depthwise_float_##K, float, K, Depthwise, depthwise)                    \
  ENTRY(depthwise_half_##K, Half, K, Depthwise, depthwise)                      \
  ENTRY(depthwise_filter_float_##K, float, K, DepthwiseFilter, depthwise_filter) \
  ENTRY(depthwise_filter_half_##K, Half, K, DepthwiseFilter, depthwise_filter)
OF_SIZE(3)
OF_SIZE(5)
OF_SIZE(7)

// Depth-wise convolution with an odd kernel, stride 1 and "same" padding; with `residual`, of ReLU(x), plus x.
// With `flipped`, the gradient of x; with `residual`, masked by ReLU's, plus the gradient.
template <class T, int K>
__device__ void depthwise(const Depthwise &a) {
  constexpr int R = K / 2;
  __shared__ float weight[K * K], tile[(TILE_ROWS + K - 1) * (TILE_COLUMNS + K - 1)];
  int thread = threadIdx.y * LANES + threadIdx.x, tiles = (a.width + TILE_COLUMNS - 1) / TILE_COLUMNS;
  int top = blockIdx.x / tiles * a.tile_rows, left = blockIdx.x % tiles * TILE_COLUMNS;
  int rows = min(a.tile_rows, a.height - top), columns = min(TILE_COLUMNS, a.width - left);
  int wide = columns + K - 1;
  for (int plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
    long long start = static_cast<long long>(plane) * a.height * a.width;
    __syncthreads();  // the last plane's tile has been read
    if (thread < K * K) {
      int place = a.flipped ? K * K - 1 - thread : thread;
      weight[thread] = at<T>(a.weight, plane % a.channels * K * K + place);
    }
    for (int i = thread; i < (rows + K - 1) * wide; i += LANES * ROWS) {
      int y = top + i / wide - R, x = left + i % wide - R;
      bool inside = y >= 0 && y < a.height && x >= 0 && x < a.width;
      float value = inside ? at<T>(a.x, start + y * a.width + x) : 0;
      tile[i] = a.residual && !a.flipped && value < 0 ? 0 : value;
    }
    __syncthreads();
    for (int i = thread; i < rows * columns; i += LANES * ROWS) {
      int y = i / columns, x = i % columns;
      float sum = 0;
#pragma unroll
      for (int v = 0; v < K; v++)
#pragma unroll
        for (int u = 0; u < K; u++) sum += weight[v * K + u] * tile[(y + v) * wide + x + u];
      long long place = start + (top + y) * a.width + left + x;
      if (a.residual && a.flipped) sum = at<T>(a.input, place) > 0 ? sum : 0;
      if (a.residual) sum += at<T>(a.x, place);
      static_cast<T *>(a.out)[place] = rounded<T>(sum);
    }
  }
}
#define OF_SIZE(K)                                                \
  ENTRY(depthwise_float_##K, float, K, Depthwise, depthwise)      \
  ENTRY(depthwise_half_##K, Half, K, Depthwise, depthwise)
OF_SIZE(3)
OF_SIZE(5)
OF_SIZE(7)

// Depth-wise convolution with an odd kernel, stride 1 and "same" padding, W neighbouring places a thread. residual: of
// ReLU(x), plus x.
#define TILES planes = samples * channels, tile_rows = blocks(height, blocks(height, TILE_ROWS)), \
    tiles = blocks(height, tile_rows) * blocks(width, TILE_COLUMNS)
OPERATOR(depthwise(int residual, TILES),
         T MAP(x) T weight[channels, 1, size, size]
         -> T MAP(out),
         grid_of_size(depthwise(x, weight, out), size, quads(width, x, out), tiles, min(planes, PLANES)))
OPERATOR(depthwise_gradient(int residual, TILES, count = CHANNEL_PARTS, columns = channels * size * size),
         T MAP(grad_out) T weight[channels, 1, size, size]
         T MAP(x)
         -> T MAP(grad_x) float parts[count, channels, 1, size, size]
         T grad_weight[channels, 1, size, size],
         grid_of_size(depthwise(x = grad_out, weight, input = x, out = grad_x, flipped = 1), size,
                      quads(width, grad_out, x, grad_x), tiles, min(planes, PLANES))
         || grid_of_size(depthwise_filter(grad_out, x, parts), size, quads(width, grad_out, x), channels, count)
         || grid(sum_parts(parts, out = grad_weight), 1, blocks(columns, LANES), 1))
KERNEL(depthwise(int residual, int flipped, int planes, int channels, int height, int width, int tile_rows),
       T x T weight T input -> T out)

// A block's packs in rows of `packs`, one a thread at a time, without a division a pack.
struct Walk {
  int x, y, packs, rows_a_step, packs_a_step;
  __device__ Walk(unsigned packs) : packs(packs) {
    unsigned thread = threadIdx.y * LANES + threadIdx.x;
    y = thread / packs, x = thread - y * packs;
    rows_a_step = LANES * ROWS / packs, packs_a_step = LANES * ROWS - rows_a_step * packs;
  }
  __device__ void next() {
    x += packs_a_step, y += rows_a_step;
    if (x >= packs) x -= packs, y++;
  }
};

template <class T, int K, int W>
struct Tile {
  static constexpr int R = K / 2, BORDER = (R + W - 1) / W * W; // at both sides of a row, in whole packs
  static constexpr int ROW = TILE_COLUMNS + 2 * BORDER, SIZE = (TILE_ROWS + K - 1) * ROW;
  int rows, columns, top, left;
  Walk surrounded, inside;
  template <class Maps>
  __device__ static int across(const Maps &maps) { return (maps.width + TILE_COLUMNS - 1) / TILE_COLUMNS; }
  template <class Maps> __device__ Tile(const Maps &maps, int number)
      : rows(min(maps.tile_rows, maps.height - number / across(maps) * maps.tile_rows)),
        columns(min(TILE_COLUMNS, maps.width - number % across(maps) * TILE_COLUMNS)),
        top(number / across(maps) * maps.tile_rows),
        left(number % across(maps) * TILE_COLUMNS),
        surrounded((columns + 2 * BORDER) / W),
        inside(columns / W) {}
  // The tile and its border of a plane, 0 outside of it; or ReLU of that. All threads of the block wait for each other.
  template <class Maps>
  __device__ void read(const Maps &maps, const void *x, long long start, bool relu, float *tile) const {
    __syncthreads();  // the last tile has been read
#pragma unroll 2
    for (Walk i = surrounded; i.y < rows + K - 1; i.next()) {
      int y = top + i.y - R, column = left + i.x * W - BORDER;
      Pack<float, W> pack = {};
      if (y >= 0 && y < maps.height && column >= 0 && column < maps.width) {
        Pack<T, W> read = load<T, W>(x, start + y * maps.width + column);
        EACH(j, W) {
          float value = number(read.v[j]);
          pack.v[j] = relu && value < 0 ? 0 : value;
        }
      }
      store(tile, i.y * ROW + i.x * W, pack);
    }
    __syncthreads();
  }
  // What the windows of a pack's places see in a row: those of place j from j on.
  __device__ static void read_row(const float *tile, const Walk &i, int v, float (&row)[W + 2 * R]) {
    constexpr int FIRST = BORDER - R;
    EACH(k, 1 + 2 * BORDER / W) {
      Pack<float, W> pack = load<float, W>(tile, (i.y + v) * ROW + (i.x + k) * W);
      EACH(j, W)
        if (k * W + j >= FIRST && k * W + j < FIRST + W + 2 * R) row[k * W + j - FIRST] = pack.v[j];
    }
  }
  template <class Maps> __device__ long long place(const Maps &maps, const Walk &i) const {
    return static_cast<long long>(top + i.y) * maps.width + left + i.x * W;
  }
};
#define TILE(T, K, W) alignas(16) __shared__ float tile[Tile<T, K, W>::SIZE]

// With `residual`, of ReLU(x), plus x. With `flipped`, the gradient of x; with `residual`, masked by ReLU's, plus the
// gradient.
template <class T, int K, int W> __device__ void depthwise(const Depthwise &a) {
  TILE(T, K, W);
  __shared__ float weight[K * K];
  Tile<T, K, W> of(a, blockIdx.x);
  int thread = threadIdx.y * LANES + threadIdx.x;
  for (int plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
    long long start = static_cast<long long>(plane) * a.height * a.width;
    __syncthreads();  // the last plane's weight has been read
    if (thread < K * K) {
      int place = a.flipped ? K * K - 1 - thread : thread;
      weight[thread] = at<T>(a.weight, plane % a.channels * K * K + place);
    }
    of.read(a, a.x, start, a.residual && !a.flipped, tile);
    for (Walk i = of.inside; i.y < of.rows; i.next()) {
      float sums[W] = {}, row[W + K - 1];
#pragma unroll 1  // on an H100 7x7 takes 0.089 ms of float16 so, unrolled 0.124
      for (int v = 0; v < K; v++) {
        of.read_row(tile, i, v, row);
        EACH(u, K) EACH(j, W) sums[j] += weight[v * K + u] * row[u + j];
      }
      long long place = start + of.place(a, i);
      Pack<T, W> x, input, out;
      if (a.residual) x = load<T, W>(a.x, place);
      if (a.residual && a.flipped) input = load<T, W>(a.input, place);
      EACH(j, W) {
        if (a.residual && a.flipped) sums[j] = number(input.v[j]) > 0 ? sums[j] : 0;
        if (a.residual) sums[j] += number(x.v[j]);
        out.v[j] = rounded<T>(sums[j]);
      }
      store(a.out, place, out);
    }
  }
}

// The gradient of a channel's filter, with `residual` of ReLU(x): its sums over a part of all samples.
template <class T, int K, int W> __device__ void depthwise_filter(const DepthwiseGradient &a) {
  TILE(T, K, W);
  __shared__ float shared[ROWS][K * K];
  float sums[K * K] = {};
  int samples = a.planes / a.channels;
  for (int number_of_tile = 0; number_of_tile < a.tiles; number_of_tile++) {
    Tile<T, K, W> of(a, number_of_tile);
    for (int sample = blockIdx.y; sample < samples; sample += gridDim.y) {
      long long plane = static_cast<long long>(sample) * a.channels + blockIdx.x;
      long long start = plane * a.height * a.width;
      of.read(a, a.x, start, a.residual, tile);
      for (Walk i = of.inside; i.y < of.rows; i.next()) {
        Pack<T, W> gradient = load<T, W>(a.grad_out, start + of.place(a, i));
        float row[W + K - 1];
        EACH(v, K) {
          of.read_row(tile, i, v, row);
          EACH(u, K) EACH(j, W) sums[v * K + u] += number(gradient.v[j]) * row[u + j];
        }
      }
    }
  }
  EACH(k, K * K) {
    float sum = sum_warp(sums[k]);
    if (!threadIdx.x) shared[threadIdx.y][k] = sum;
  }
  __syncthreads();
  int k = threadIdx.y * LANES + threadIdx.x;
  if (k >= K * K) return;
  float total = 0;
  for (int y = 0; y < ROWS; y++) total += shared[y][k];
  a.parts[(static_cast<long long>(blockIdx.y) * a.channels + blockIdx.x) * K * K + k] = total;
}

#define OF_TYPE(kernel, Arguments, K, name, T)                            \
  ENTRY(kernel##_##K##_##name##_4, Arguments, kernel<T, K, 4>)            \
  ENTRY(kernel##_##K##_##name##_1, Arguments, kernel<T, K, 1>)
#define OF_SIZE(K)                                         \
  OF_TYPE(depthwise, Depthwise, K, float, float)           \
  OF_TYPE(depthwise, Depthwise, K, half, Half)             \
  OF_TYPE(depthwise_filter, DepthwiseGradient, K, float, float) \
  OF_TYPE(depthwise_filter, DepthwiseGradient, K, half, Half)
OF_SIZE(3)
OF_SIZE(5)
OF_SIZE(7)

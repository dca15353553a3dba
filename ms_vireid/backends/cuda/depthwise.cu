// Depth-wise convolutions with odd kernels, stride 1 and "same" padding. A thread takes a pack of channels, and ALONG
// neighbouring places of a row.
#define ROWS_OF_RUNS runs = samples * height * blocks(width, ALONG)
#define RUNS_OF_A_STRIP min(PLANES, max(1, runs / (LANES * ROWS / across * RUN)))
#define FILTER_PARTS max(1, min(PARTS, samples * height / ROWS))

// Of ReLU(x), plus x.
OPERATOR(depthwise(ROWS_OF_RUNS, pack = quads(channels, x, out), STRIPS),
         T MAP(x) T weight[channels, 1, size, size]
         -> T MAP(out),
         grid_of_size(depthwise(x, weight, out), size, pack, strips, RUNS_OF_A_STRIP))
OPERATOR(depthwise_gradient(ROWS_OF_RUNS, pack = quads(channels, grad_out, x, grad_x), STRIPS, count = FILTER_PARTS),
         T MAP(grad_out) T weight[channels, 1, size, size]
         T MAP(x)
         -> T MAP(grad_x) float parts[count, channels, 1, size, size]
         T grad_weight[channels, 1, size, size],
         grid_of_size(depthwise(x = grad_out, weight, input = x, out = grad_x, flipped = 1), size, pack, strips,
                      RUNS_OF_A_STRIP)
         || grid_of_size(depthwise_filter(grad_out, x, parts), size, 1, blocks(channels, LANES), count)
         || grid(sum_parts(parts, out = grad_weight, columns = channels * size * size), 1,
                 blocks(channels * size * size, LANES), 1))
KERNEL(depthwise(int flipped, int channels, int height, int width, int across, int runs), T x T weight T input -> T out)

// Of both halves of the channels, each by its own weight.
#define HALVES samples, height, width, 2 * channels
OPERATOR(depthwise_halves(ROWS_OF_RUNS, pack = quads(channels, x, out), STRIPS),
         T first[channels, 1, size, size] T second[channels, 1, other, other] T x[HALVES]
         -> T out[HALVES],
         grid(depthwise_halves, pack, 2 * strips, RUNS_OF_A_STRIP))
OPERATOR(depthwise_halves_gradient(ROWS_OF_RUNS, pack = quads(channels, grad_out, grad_x), STRIPS, count = FILTER_PARTS),
         T first[channels, 1, size, size] T second[channels, 1, other, other] T x[HALVES] T grad_out[HALVES]
         -> T grad_x[HALVES] float parts[count, channels, 1, size, size] float others[count, channels, 1, other, other]
         T grad_first[channels, 1, size, size] T grad_second[channels, 1, other, other],
         grid(depthwise_halves(x = grad_out, first, second, out = grad_x, flipped = 1), pack, 2 * strips, RUNS_OF_A_STRIP)
         || grid(depthwise_halves_filters(grad_out, x, parts, others), 1, 2 * blocks(channels, LANES), count)
         || grid(sum_parts(parts, out = grad_first, columns = channels * size * size), 1,
                 blocks(channels * size * size, LANES), 1)
         || grid(sum_parts(parts = others, out = grad_second, columns = channels * other * other), 1,
                 blocks(channels * other * other, LANES), 1))
KERNEL(depthwise_halves(int flipped, int channels, int height, int width, int across, int runs, int strips, int size,
                        int other),
       T x T first T second -> T out)

// `block` of the strips of maps whose places are `stride` apart. With `residual`, of ReLU(x), plus x. With `flipped`, the
// gradient of x; with `residual`, masked by the ReLU of `input`, plus the gradient.
template <class T, int K, int W, class Arguments>
__device__ void convolve(const Arguments &a, const T *from, const void *filters, const T *inputs, T *to, int block,
                         int stride, bool residual) {
  constexpr int R = K / 2;
  __shared__ float weight[K * K][LANES * W];
  Strip<W> strip(a, block);
  int thread = threadIdx.y * LANES + threadIdx.x, first = block * strip.columns;
  for (int i = thread; i < K * K * strip.columns; i += LANES * ROWS) {
    int channel = i / (K * K), place = i % (K * K);
    if (first + channel < a.channels)
      weight[a.flipped ? K * K - 1 - place : place][channel] = at<T>(filters, first * K * K + i);
  }
  __syncthreads();
  if (strip.idle) return;
  int across = (a.width + ALONG - 1) / ALONG, column = strip.column();
  bool relu = residual && !a.flipped;
  for (int run = strip.place; run < a.runs; run += strip.step) {
    int y = run / across % a.height, left = run % across * ALONG;
    long long row = static_cast<long long>(run / across) * a.width;  // of all samples
    float sums[ALONG][W] = {};
#pragma unroll 1
    for (int v = 0; v < K; v++) {
      if (y + v - R < 0 || y + v - R >= a.height) continue;
      long long of_row = row + static_cast<long long>(v - R) * a.width;
      EACH(u, ALONG + K - 1) {
        int x = left + u - R;
        if (x < 0 || x >= a.width) continue;
        Pack<T, W> values = strip.template read<T>(from, of_row + x, stride);
        EACH(i, ALONG)
          if (u - i >= 0 && u - i < K)
            EACH(j, W) {
              float value = number(values.v[j]);
              sums[i][j] += weight[v * K + u - i][column + j] * (relu && value < 0 ? 0 : value);
            }
      }
    }
    EACH(i, ALONG) {
      if (left + i >= a.width) break;
      Pack<T, W> x, input, out;
      if (residual) x = strip.template read<T>(from, row + left + i, stride);
      if (residual && a.flipped) input = strip.template read<T>(inputs, row + left + i, stride);
      EACH(j, W) {
        float sum = sums[i][j];
        if (residual && a.flipped) sum = number(input.v[j]) > 0 ? sum : 0;
        if (residual) sum += number(x.v[j]);
        out.v[j] = rounded<T>(sum);
      }
      store(to, (row + left + i) * stride + strip.channel, out);
    }
  }
}

template <class T, int K, int W> __device__ void depthwise(const Depthwise &a) {
  convolve<T, K, W>(a, static_cast<const T *>(a.x), a.weight, static_cast<const T *>(a.input), static_cast<T *>(a.out),
                    blockIdx.x, a.channels, true);
}
template <class T, int K, int W> __device__ void of_half(const DepthwiseHalves &a, int half) {
  convolve<T, K, W>(a, static_cast<const T *>(a.x) + half * a.channels, half ? a.second : a.first, (const T *)nullptr,
                    static_cast<T *>(a.out) + half * a.channels, blockIdx.x - half * a.strips, 2 * a.channels, false);
}
template <class T, int W> __device__ void depthwise_halves(const DepthwiseHalves &a) {
  int half = static_cast<int>(blockIdx.x) >= a.strips, size = half ? a.other : a.size;
  if (size == 3) of_half<T, 3, W>(a, half);
  else if (size == 5) of_half<T, 5, W>(a, half);
  else if (size == 7) of_half<T, 7, W>(a, half);
}

// The gradient of the channels' filters, with `residual` of ReLU(x): its sums over a part of all rows. A thread has a
// channel, and goes along a row with as many places of x as the filter is wide.
template <class T, int K, class Arguments>
__device__ void add_filters(const Arguments &a, const T *maps, const T *gradients, float *parts, int block, int stride,
                            bool residual) {
  constexpr int R = K / 2;
  __shared__ float shared[ROWS][LANES];
  int channel = block * LANES + threadIdx.x;
  float sums[K * K] = {};
  if (channel < a.channels)
    for (int row = blockIdx.y * ROWS + threadIdx.y; row < a.samples * a.height; row += gridDim.y * ROWS) {
      int y = row % a.height;
      long long of_row = static_cast<long long>(row) * a.width * stride + channel;
      EACH(v, K) {
        if (y + v - R < 0 || y + v - R >= a.height) continue;
        long long values = of_row + static_cast<long long>(v - R) * a.width * stride;
        auto value_at = [&](int x) {
          float value = x < a.width ? number(maps[values + static_cast<long long>(x) * stride]) : 0;
          return residual && value < 0 ? 0 : value;
        };
        float window[K] = {};
        EACH(u, R) window[R + 1 + u] = value_at(u);
        for (int x = 0; x < a.width; x++) {
          EACH(u, K - 1) window[u] = window[u + 1];
          window[K - 1] = value_at(x + R);
          float gradient = number(gradients[of_row + static_cast<long long>(x) * stride]);
          EACH(u, K) sums[v * K + u] += gradient * window[u];
        }
      }
    }
  EACH(k, K * K) {
    __syncthreads();
    shared[threadIdx.y][threadIdx.x] = sums[k];
    __syncthreads();
    float total = 0;
    for (int y = 0; y < ROWS; y++) total += shared[y][threadIdx.x];
    if (!threadIdx.y && channel < a.channels)
      parts[(static_cast<long long>(blockIdx.y) * a.channels + channel) * K * K + k] = total;
  }
}

template <class T, int K, int W> __device__ void depthwise_filter(const DepthwiseGradient &a) {
  add_filters<T, K>(a, static_cast<const T *>(a.x), static_cast<const T *>(a.grad_out), a.parts, blockIdx.x, a.channels,
                    true);
}
template <class T, int K> __device__ void filters_of_half(const DepthwiseHalvesGradient &a, int half) {
  int first = half * a.channels, block = blockIdx.x - half * (gridDim.x / 2);
  add_filters<T, K>(a, static_cast<const T *>(a.x) + first, static_cast<const T *>(a.grad_out) + first,
                    half ? a.others : a.parts, block, 2 * a.channels, false);
}
template <class T, int W> __device__ void depthwise_halves_filters(const DepthwiseHalvesGradient &a) {
  int half = blockIdx.x >= gridDim.x / 2, size = half ? a.other : a.size;
  if (size == 3) filters_of_half<T, 3>(a, half);
  else if (size == 5) filters_of_half<T, 5>(a, half);
  else if (size == 7) filters_of_half<T, 7>(a, half);
}

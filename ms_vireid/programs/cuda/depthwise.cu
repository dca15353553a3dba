// Depth-wise convolution with an odd kernel, stride 1 and "same" padding. residual: of ReLU(x), plus x. A thread takes a
// pack of channels, and ALONG neighbouring places of a row.
#define ROWS_OF_RUNS runs = samples * height * blocks(width, ALONG)
OPERATOR(depthwise(int residual, ROWS_OF_RUNS, pack = quads(channels, x, out), STRIPS),
         T MAP(x) T weight[channels, 1, size, size]
         -> T MAP(out),
         grid_of_size(depthwise(x, weight, out), size, pack, strips,
                      min(PLANES, max(1, runs / (LANES * ROWS / across * RUN)))))
OPERATOR(depthwise_gradient(int residual, ROWS_OF_RUNS, pack = quads(channels, grad_out, x, grad_x), STRIPS,
                            count = max(1, min(PARTS, samples * height / ROWS)), columns = channels * size * size),
         T MAP(grad_out) T weight[channels, 1, size, size]
         T MAP(x)
         -> T MAP(grad_x) float parts[count, channels, 1, size, size]
         T grad_weight[channels, 1, size, size],
         grid_of_size(depthwise(x = grad_out, weight, input = x, out = grad_x, flipped = 1), size, pack, strips,
                      min(PLANES, max(1, runs / (LANES * ROWS / across * RUN))))
         || grid_of_size(depthwise_filter(grad_out, x, parts), size, 1, blocks(channels, LANES), count)
         || grid(sum_parts(parts, out = grad_weight), 1, blocks(columns, LANES), 1))
KERNEL(depthwise(int residual, int flipped, int samples, int channels, int height, int width, int across, int runs),
       T x T weight T input -> T out)

// With `residual`, of ReLU(x), plus x. With `flipped`, the gradient of x; with `residual`, masked by ReLU's, plus the
// gradient.
template <class T, int K, int W> __device__ void depthwise(const Depthwise &a) {
  constexpr int R = K / 2;
  __shared__ float weight[K * K][LANES * W];
  Strip<W> strip(a);
  int thread = threadIdx.y * LANES + threadIdx.x, first = blockIdx.x * strip.columns;
  for (int i = thread; i < K * K * strip.columns; i += LANES * ROWS) {
    int channel = i / (K * K), place = i % (K * K);
    if (first + channel < a.channels)
      weight[a.flipped ? K * K - 1 - place : place][channel] = at<T>(a.weight, first * K * K + i);
  }
  __syncthreads();
  if (strip.idle) return;
  int across = (a.width + ALONG - 1) / ALONG, column = strip.column();
  bool relu = a.residual && !a.flipped;
  for (int run = strip.place; run < a.runs; run += strip.step) {
    int y = run / across % a.height, left = run % across * ALONG;
    long long row = static_cast<long long>(run / across) * a.width;  // of all samples
    float sums[ALONG][W] = {};
#pragma unroll 1
    for (int v = 0; v < K; v++) {
      if (y + v - R < 0 || y + v - R >= a.height) continue;
      long long from = row + static_cast<long long>(v - R) * a.width;
      EACH(u, ALONG + K - 1) {
        int x = left + u - R;
        if (x < 0 || x >= a.width) continue;
        Pack<T, W> values = strip.template read<T>(a.x, from + x, a.channels);
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
      if (a.residual) x = strip.template read<T>(a.x, row + left + i, a.channels);
      if (a.residual && a.flipped) input = strip.template read<T>(a.input, row + left + i, a.channels);
      EACH(j, W) {
        float sum = sums[i][j];
        if (a.residual && a.flipped) sum = number(input.v[j]) > 0 ? sum : 0;
        if (a.residual) sum += number(x.v[j]);
        out.v[j] = rounded<T>(sum);
      }
      store(a.out, (row + left + i) * a.channels + strip.channel, out);
    }
  }
}

// The gradient of the channels' filters, with `residual` of ReLU(x): its sums over a part of all rows. A thread has a
// channel, and goes along a row with as many places of x as the filter is wide.
template <class T, int K, int W> __device__ void depthwise_filter(const DepthwiseGradient &a) {
  constexpr int R = K / 2;
  __shared__ float shared[ROWS][LANES];
  int channel = blockIdx.x * LANES + threadIdx.x;
  float sums[K * K] = {};
  if (channel < a.channels)
    for (int row = blockIdx.y * ROWS + threadIdx.y; row < a.samples * a.height; row += gridDim.y * ROWS) {
      int y = row % a.height;
      long long gradients = static_cast<long long>(row) * a.width * a.channels + channel;
      EACH(v, K) {
        if (y + v - R < 0 || y + v - R >= a.height) continue;
        long long values = gradients + static_cast<long long>(v - R) * a.width * a.channels;
        auto value_at = [&](int x) {
          float value = x < a.width ? at<T>(a.x, values + static_cast<long long>(x) * a.channels) : 0;
          return a.residual && value < 0 ? 0 : value;
        };
        float window[K] = {};
        EACH(u, R) window[R + 1 + u] = value_at(u);
        for (int x = 0; x < a.width; x++) {
          EACH(u, K - 1) window[u] = window[u + 1];
          window[K - 1] = value_at(x + R);
          float gradient = at<T>(a.grad_out, gradients + static_cast<long long>(x) * a.channels);
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
      a.parts[(static_cast<long long>(blockIdx.y) * a.channels + channel) * K * K + k] = total;
  }
}

#define OF_TYPE(kernel, Arguments, K, W, name, T) ENTRY(kernel##_##K##_##name##_##W, Arguments, kernel<T, K, W>)
#define OF_SIZE(K)                                              \
  OF_TYPE(depthwise, Depthwise, K, 4, float, float)             \
  OF_TYPE(depthwise, Depthwise, K, 4, half, Half)               \
  OF_TYPE(depthwise, Depthwise, K, 1, float, float)             \
  OF_TYPE(depthwise, Depthwise, K, 1, half, Half)               \
  OF_TYPE(depthwise_filter, DepthwiseGradient, K, 1, float, float) \
  OF_TYPE(depthwise_filter, DepthwiseGradient, K, 1, half, Half)
OF_SIZE(3)
OF_SIZE(5)
OF_SIZE(7)

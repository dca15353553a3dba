// Three 1x1 convolutions of a map to one channel each, theta, phi and g of a non-local block, and their gradients.

// y_k[n, l] = bias_k + sum_c weight_k[c] x[n, c, l]; each warp adds up every ROWS-th channel.
template <class T, int W>
__device__ void to_one_channel(const ToOneChannel &a) {
  __shared__ float shared[ROWS][MAPS][LANES * W];
  int position = first_column<W>(), sample = blockIdx.y;
  float sums[MAPS][W] = {};
  if (position < a.positions)
    for (int channel = threadIdx.y; channel < a.channels; channel += ROWS) {
      Pack<T, W> x = load<T, W>(a.x, (static_cast<long long>(sample) * a.channels + channel) * a.positions + position);
#pragma unroll
      for (int k = 0; k < MAPS; k++) {
        float weight = at<T>(a.weight[k], channel);
#pragma unroll
        for (int j = 0; j < W; j++) sums[k][j] += weight * number(x.v[j]);
      }
    }
#pragma unroll
  for (int k = 0; k < MAPS; k++)
#pragma unroll
    for (int j = 0; j < W; j++) shared[threadIdx.y][k][threadIdx.x * W + j] = sums[k][j];
  __syncthreads();
  int k = threadIdx.y;
  if (k >= MAPS || position >= a.positions) return;
  Pack<T, W> y;
#pragma unroll
  for (int j = 0; j < W; j++) {
    float total = at<T>(a.bias[k], 0);
    for (int row = 0; row < ROWS; row++) total += shared[row][k][threadIdx.x * W + j];
    y.v[j] = rounded<T>(total);
  }
  store(a.y[k], static_cast<long long>(sample) * a.positions + position, y);
}
ENTRIES(to_one_channel, ToOneChannel)

// grad_x[n, c, l] = sum_k weight_k[c] grad_k[n, l], and over a part of the samples the sums of grad_k x for each
// channel; those of grad_k, for the biases, as a channel more. A warp a channel.
template <class T, int W>
__device__ void to_one_channel_gradient(const ToOneChannel &a) {
  int channel = blockIdx.x * ROWS + threadIdx.y;
  if (channel > a.channels) return;  // the whole warp
  bool of_bias = channel == a.channels;
  float weight[MAPS], sums[MAPS] = {};
#pragma unroll
  for (int k = 0; k < MAPS; k++) weight[k] = of_bias ? 0 : at<T>(a.weight[k], channel);
  for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    long long row = static_cast<long long>(sample) * a.positions;
    long long start = (static_cast<long long>(sample) * a.channels + channel) * a.positions;
    for (int position = threadIdx.x * W; position < a.positions; position += LANES * W) {
      Pack<T, W> x;
      if (!of_bias) x = load<T, W>(a.x, start + position);
      float grad_x[W] = {};
#pragma unroll
      for (int k = 0; k < MAPS; k++) {
        Pack<T, W> gradient = load<T, W>(a.y[k], row + position);
#pragma unroll
        for (int j = 0; j < W; j++) {
          grad_x[j] += weight[k] * number(gradient.v[j]);
          sums[k] += number(gradient.v[j]) * (of_bias ? 1 : number(x.v[j]));
        }
      }
      if (of_bias) continue;
#pragma unroll
      for (int j = 0; j < W; j++) x.v[j] = rounded<T>(grad_x[j]);
      store(a.grad_x, start + position, x);
    }
  }
#pragma unroll
  for (int k = 0; k < MAPS; k++) {
    float total = sum_warp(sums[k]);
    if (!threadIdx.x) a.parts[(static_cast<long long>(blockIdx.y) * MAPS + k) * (a.channels + 1) + channel] = total;
  }
}
ENTRIES(to_one_channel_gradient, ToOneChannel)

// Add up the parts: the gradients of weights and biases.
template <class T, int W>
__device__ void to_one_channel_sums(const ToOneChannel &a) {
  int channel = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x, k = blockIdx.y;
  if (channel > a.channels) return;
  float total = 0;
  for (int part = 0; part < a.count; part++)
    total += a.parts[(static_cast<long long>(part) * MAPS + k) * (a.channels + 1) + channel];
  bool of_bias = channel == a.channels;
  static_cast<T *>(of_bias ? a.grad_bias[k] : a.grad_weight[k])[of_bias ? 0 : channel] = rounded<T>(total);
}
ENTRIES(to_one_channel_sums, ToOneChannel)

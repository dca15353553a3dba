// A non-local block's three 1x1 convolutions of a map to one channel each, g, theta and phi; what comes of them; and the
// gradients.
OPERATOR(to_one_channel(positions = height * width, pack = packs(positions, x, y[0], y[1], y[2])),
         T MAP(x) T weight{MAPS}[1, channels, 1, 1] T bias{MAPS}[1]
         -> T y{MAPS}[samples, 1, positions],
         grid(to_one_channel, pack, blocks(positions, LANES * pack), samples))
OPERATOR(to_one_channel_gradient(positions = height * width, count = min(SAMPLE_PARTS, samples),
                                 pack = packs(positions, x, grad_x, grad_y[0], grad_y[1], grad_y[2])),
         T MAP(x) T grad_y{MAPS}[samples, 1, positions] T weight{MAPS}[1, channels, 1, 1]
         -> T MAP(grad_x) float parts[count, MAPS, channels + 1]
         T grad_weight{MAPS}[1, channels, 1, 1] T grad_bias{MAPS}[1],
         grid(to_one_channel_gradient, pack, blocks(channels + 1, ROWS), count)
         || grid(to_one_channel_sums, 1, blocks(channels + 1, LANES * ROWS), MAPS))
#define LINE(name) name[samples, 1, positions]
OPERATOR(attended(), T LINE(g) T LINE(theta) T LINE(phi) -> T LINE(y) float context[samples],
         grid(attended, 1, 1, samples))
OPERATOR(attended_gradient(), T LINE(grad_y) T LINE(g) T LINE(theta) T LINE(phi) float context[samples]
         -> T LINE(grad_g) T LINE(grad_theta) T LINE(grad_phi),
         grid(attended_gradient, 1, 1, samples))

// y_k[n, l] = bias_k + sum_c weight_k[c] x[n, c, l]; each warp adds up every ROWS-th channel.
template <class T, int W> __device__ void to_one_channel(const ToOneChannel &a) {
  __shared__ float shared[ROWS][MAPS][LANES * W];
  int position = first_column<W>(), sample = blockIdx.y;
  float sums[MAPS][W] = {};
  if (position < a.positions)
    for (int channel = threadIdx.y; channel < a.channels; channel += ROWS) {
      Pack<T, W> x = load<T, W>(a.x, (static_cast<long long>(sample) * a.channels + channel) * a.positions + position);
      EACH(k, MAPS) {
        float weight = at<T>(a.weight[k], channel);
        EACH(j, W) sums[k][j] += weight * number(x.v[j]);
      }
    }
  EACH(k, MAPS) EACH(j, W) shared[threadIdx.y][k][threadIdx.x * W + j] = sums[k][j];
  __syncthreads();
  int k = threadIdx.y;
  if (k >= MAPS || position >= a.positions) return;
  Pack<T, W> y;
  EACH(j, W) {
    float total = at<T>(a.bias[k], 0);
    for (int row = 0; row < ROWS; row++) total += shared[row][k][threadIdx.x * W + j];
    y.v[j] = rounded<T>(total);
  }
  store(a.y[k], static_cast<long long>(sample) * a.positions + position, y);
}

// grad_x[n, c, l] = sum_k weight_k[c] grad_k[n, l], and over a part of the samples the sums of grad_k x for each
// channel; those of grad_k, for the biases, as a channel more. A warp a channel.
template <class T, int W> __device__ void to_one_channel_gradient(const ToOneChannelGradient &a) {
  int channel = blockIdx.x * ROWS + threadIdx.y;
  if (channel > a.channels) return;  // the whole warp
  bool of_bias = channel == a.channels;
  float weight[MAPS], sums[MAPS] = {};
  EACH(k, MAPS) weight[k] = of_bias ? 0 : at<T>(a.weight[k], channel);
  for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    long long row = static_cast<long long>(sample) * a.positions;
    long long start = (static_cast<long long>(sample) * a.channels + channel) * a.positions;
    for (int position = threadIdx.x * W; position < a.positions; position += LANES * W) {
      Pack<T, W> x;
      if (!of_bias) x = load<T, W>(a.x, start + position);
      float grad_x[W] = {};
      EACH(k, MAPS) {
        Pack<T, W> gradient = load<T, W>(a.grad_y[k], row + position);
        EACH(j, W) {
          grad_x[j] += weight[k] * number(gradient.v[j]);
          sums[k] += number(gradient.v[j]) * (of_bias ? 1 : number(x.v[j]));
        }
      }
      if (of_bias) continue;
      EACH(j, W) x.v[j] = rounded<T>(grad_x[j]);
      store(a.grad_x, start + position, x);
    }
  }
  EACH(k, MAPS) {
    float total = sum_warp(sums[k]);
    if (!threadIdx.x) a.parts[(static_cast<long long>(blockIdx.y) * MAPS + k) * (a.channels + 1) + channel] = total;
  }
}

// Add up the parts: the gradients of weights and biases.
template <class T, int W> __device__ void to_one_channel_sums(const ToOneChannelGradient &a) {
  int channel = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x, k = blockIdx.y;
  if (channel > a.channels) return;
  float total = 0;
  for (int part = 0; part < a.count; part++)
    total += a.parts[(static_cast<long long>(part) * MAPS + k) * (a.channels + 1) + channel];
  bool of_bias = channel == a.channels;
  static_cast<T *>(of_bias ? a.grad_bias[k] : a.grad_weight[k])[of_bias ? 0 : channel] = rounded<T>(total);
}

// Positions of this thread, in the line of one sample.
#define EACH_POSITION(place, a)                                                                                   \
  for (long long first = static_cast<long long>(blockIdx.y) * a.positions,                                      \
                 place = first + threadIdx.y * LANES + threadIdx.x; place < first + a.positions; place += LANES * ROWS)

// y = context theta, context = sum of g phi / positions.
template <class T, int W> __device__ void attended(const Attended &a) {
  float sum = 0;
  EACH_POSITION(i, a) sum += at<T>(a.g, i) * at<T>(a.phi, i);
  float context = sum_threads({sum, 0}).first / a.positions;
  if (!threadIdx.x && !threadIdx.y) a.context[blockIdx.y] = context;
  EACH_POSITION(i, a) static_cast<T *>(a.y)[i] = rounded<T>(context * at<T>(a.theta, i));
}

template <class T, int W> __device__ void attended_gradient(const AttendedGradient &a) {
  float sum = 0, context = a.context[blockIdx.y];
  EACH_POSITION(i, a) sum += at<T>(a.grad_y, i) * at<T>(a.theta, i);
  float grad_product = sum_threads({sum, 0}).first / a.positions;
  EACH_POSITION(i, a) {
    static_cast<T *>(a.grad_g)[i] = rounded<T>(grad_product * at<T>(a.phi, i));
    static_cast<T *>(a.grad_theta)[i] = rounded<T>(context * at<T>(a.grad_y, i));
    static_cast<T *>(a.grad_phi)[i] = rounded<T>(grad_product * at<T>(a.g, i));
  }
}

// A non-local block's three 1x1 convolutions of a map to one channel each, g, theta and phi; what comes of them; and the
// gradients.
OPERATOR(to_one_channel(positions = height * width, PLACES_OF_MAP),
         T MAP(x) T weight{MAPS}[1, channels, 1, 1] T bias{MAPS}[1]
         -> T y{MAPS}[samples, 1, positions],
         over_rows(to_one_channel, packs(channels, x, weight[0], weight[1], weight[2]), places))
OPERATOR(to_one_channel_gradient(positions = height * width, PLACES_OF_MAP, count = MAP_PARTS,
                                 pack = packs(channels, x, grad_x), STRIPS),
         T MAP(x) T grad_y{MAPS}[samples, 1, positions] T weight{MAPS}[1, channels, 1, 1]
         -> T MAP(grad_x) float parts[count, MAPS, channels + 1]
         T grad_weight{MAPS}[1, channels, 1, 1] T grad_bias{MAPS}[1],
         grid(to_one_channel_gradient, pack, strips, count)
         || grid(to_one_channel_sums, 1, blocks(channels + 1, LANES * ROWS), MAPS))
#define LINE(name) name[samples, 1, positions]
OPERATOR(attended(), T LINE(g) T LINE(theta) T LINE(phi) -> T LINE(y) float context[samples],
         grid(attended, 1, 1, samples))
OPERATOR(attended_gradient(), T LINE(grad_y) T LINE(g) T LINE(theta) T LINE(phi) float context[samples]
         -> T LINE(grad_g) T LINE(grad_theta) T LINE(grad_phi),
         grid(attended_gradient, 1, 1, samples))

// y_k[n, l] = bias_k + sum_c weight_k[c] x[n, l, c]: a warp a place.
template <class T, int W> __device__ void to_one_channel(const ToOneChannel &a) {
  EACH_ROW(place, a.places) {
    float sums[MAPS] = {};
    for (int channel = threadIdx.x * W; channel < a.channels; channel += LANES * W) {
      Pack<T, W> x = load<T, W>(a.x, static_cast<long long>(place) * a.channels + channel);
      EACH(k, MAPS) {
        Pack<T, W> weight = load<T, W>(a.weight[k], channel);
        EACH(j, W) sums[k] += number(weight.v[j]) * number(x.v[j]);
      }
    }
    EACH(k, MAPS) {
      float total = sum_warp(sums[k]);
      if (!threadIdx.x) static_cast<T *>(a.y[k])[place] = rounded<T>(total + at<T>(a.bias[k], 0));
    }
  }
}

// grad_x[n, l, c] = sum_k weight_k[c] grad_k[n, l], and over a part of the places the sums of grad_k x for each channel;
// those of grad_k, for the biases, as a channel more.
template <class T, int W> __device__ void to_one_channel_gradient(const ToOneChannelGradient &a) {
  Strip<W> strip(a);
  Two sums[MAPS][W] = {}, biases[MAPS][W] = {};
  if (!strip.idle) {
    float weight[MAPS][W];
    EACH(k, MAPS) EACH(j, W) weight[k][j] = at<T>(a.weight[k], strip.channel + j);
    for (int place = strip.place; place < a.places; place += strip.step) {
      Pack<T, W> x = strip.template read<T>(a.x, place, a.channels);
      float grad_x[W] = {};
      EACH(k, MAPS) {
        float gradient = at<T>(a.grad_y[k], place);
        biases[k][0].first += gradient;
        EACH(j, W) grad_x[j] += weight[k][j] * gradient, sums[k][j].first += number(x.v[j]) * gradient;
      }
      EACH(j, W) x.v[j] = rounded<T>(grad_x[j]);
      store(a.grad_x, static_cast<long long>(place) * a.channels + strip.channel, x);
    }
  }
  for (int k = 0; k < MAPS; k++) {
    float *parts = a.parts + (static_cast<long long>(blockIdx.y) * MAPS + k) * (a.channels + 1);
    const Two *totals = sum_places<W>(strip, sums[k]);
    if (!strip.idle && !strip.lane) {
      EACH(j, W) parts[strip.channel + j] = totals[strip.column() + j].first;
    }
    totals = sum_places<W>(strip, biases[k]);
    if (!blockIdx.x && !threadIdx.x && !threadIdx.y) parts[a.channels] = totals[0].first;
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

// What follows: z = BatchNorm(weight y + bias) + x, a line of one channel widened to all. As all channels are multiples of
// y, their moments follow from its own: means are weight mean(y) + bias, variances weight^2 var(y). moments: of y.
#define OF_LINE positions = height * width, places = samples * positions
OPERATOR(widened(float eps, float momentum, OF_LINE, pack = packs(channels, x, z), STRIPS),
         T MAP(x) T LINE(y) T weight[channels, 1, 1, 1] T bias[channels] float gamma[channels] float beta[channels]
         float &running_mean[channels] float &running_variance[channels]
         -> T MAP(z) float moments[2],
         over_strips(widened, pack, strips, places))
OPERATOR(widened_evaluation(float eps, OF_LINE, pack = packs(channels, x, z), STRIPS),
         T MAP(x) T LINE(y) T weight[channels, 1, 1, 1] T bias[channels] float gamma[channels] float beta[channels]
         float running_mean[channels] float running_variance[channels] -> T MAP(z),
         over_strips(widened_evaluation, pack, strips, places))
// grad_again: a second gradient of z, added as a sum of the type T. The bias has none, as the means are subtracted.
OPERATOR(widened_gradient(float eps, OF_LINE, count = MAP_PARTS, pack = packs(channels, grad_z, grad_again, grad_x), STRIPS),
         T MAP(grad_z) T MAP(grad_again) T LINE(y) T weight[channels, 1, 1, 1] float gamma[channels] float moments[2]
         -> T LINE(grad_y) T grad_weight[channels, 1, 1, 1] T grad_bias[channels] float grad_gamma[channels]
         float grad_beta[channels] T MAP(grad_x) float parts[count, channels, 2] float slopes[3, channels],
         grid(widened_gradient_sums, pack, strips, count)
         || grid(widened_gradient_columns, 1, blocks(channels, LANES), 1)
         || over_rows(widened_gradient_rows, packs(channels, grad_x, slopes), places))

// Mean and variance of all of y, in every thread.
template <class T> __device__ Two moments_of_line(const void *y, int places) {
  Two sums = {0, 0};
  int thread = threadIdx.y * LANES + threadIdx.x;
  for (int i = thread; i < places; i += LANES * ROWS) sums.first += at<T>(y, i);
  float mean = sum_threads(sums).first / places;
  for (int i = thread; i < places; i += LANES * ROWS) sums.second += (at<T>(y, i) - mean) * (at<T>(y, i) - mean);
  __syncthreads();
  return {mean, sum_threads({0, sums.second}).second / places};
}

// z = scale (y - origin) + shift + x
template <class T, int W, class Arguments>
__device__ void widen(const Arguments &a, const Strip<W> &strip, float origin, const float *scale, const float *shift) {
  for (int place = strip.place; place < a.places; place += strip.step) {
    Pack<T, W> x = strip.template read<T>(a.x, place, a.channels);
    float distance = at<T>(a.y, place) - origin;
    EACH(j, W) x.v[j] = rounded<T>(scale[j] * distance + shift[j] + number(x.v[j]));
    store(a.z, static_cast<long long>(place) * a.channels + strip.channel, x);
  }
}

template <class T, int W> __device__ void widened(const Widened &a) {
  Strip<W> strip(a);
  Two moments = moments_of_line<T>(a.y, a.places);
  if (!blockIdx.x && !blockIdx.y && !threadIdx.x && !threadIdx.y)
    a.moments[0] = moments.first, a.moments[1] = moments.second;
  if (strip.idle) return;
  float scale[W], shift[W];
  EACH(j, W) {
    int channel = strip.channel + j;
    float weight = at<T>(a.weight, channel), variance = weight * weight * moments.second, momentum = a.momentum;
    scale[j] = a.gamma[channel] * weight / sqrtf(variance + a.eps), shift[j] = a.beta[channel];
    if (blockIdx.y || strip.lane) continue;
    float mean = weight * moments.first + at<T>(a.bias, channel);
    float unbiased = variance * (a.places > 1 ? a.places / (a.places - 1.0f) : 1);
    a.running_mean[channel] = (1 - momentum) * a.running_mean[channel] + momentum * mean;
    a.running_variance[channel] = (1 - momentum) * a.running_variance[channel] + momentum * unbiased;
  }
  widen<T, W>(a, strip, moments.first, scale, shift);
}

template <class T, int W> __device__ void widened_evaluation(const WidenedEvaluation &a) {
  Strip<W> strip(a);
  if (strip.idle) return;
  float scale[W], shift[W];
  EACH(j, W) {
    int channel = strip.channel + j;
    float gamma = a.gamma[channel] / sqrtf(a.running_variance[channel] + a.eps);
    scale[j] = gamma * at<T>(a.weight, channel);
    shift[j] = gamma * (at<T>(a.bias, channel) - a.running_mean[channel]) + a.beta[channel];
  }
  widen<T, W>(a, strip, 0, scale, shift);
}

// The gradient of x, and for each channel sums of it and of its products with y - mean(y).
template <class T, int W> __device__ void widened_gradient_sums(const WidenedGradient &a) {
  Strip<W> strip(a);
  Two sums[W] = {};
  if (!strip.idle)
    for (int place = strip.place; place < a.places; place += strip.step) {
      Pack<T, W> gradient = strip.template read<T>(a.grad_z, place, a.channels);
      Pack<T, W> again = strip.template read<T>(a.grad_again, place, a.channels);
      float distance = at<T>(a.y, place) - a.moments[0];
      EACH(j, W) {
        gradient.v[j] = rounded<T>(number(gradient.v[j]) + number(again.v[j]));
        sums[j].first += number(gradient.v[j]), sums[j].second += number(gradient.v[j]) * distance;
      }
      store(a.grad_x, static_cast<long long>(place) * a.channels + strip.channel, gradient);
    }
  keep_part<W>(strip, a.parts, a.channels, sums);
}

// With S and P those sums of g, and d = y - mean(y): the gradient of the BatchNorm's argument is
// gamma / deviation (g - S / n - weight^2 / deviation^2 d P / n). Its product with d, summed over the places, is the
// weight's gradient, gamma / deviation P eps / deviation^2; that with the weight, summed over the channels, is y's. slopes:
// what of each channel goes into the latter: of g, alone, and of d.
template <class T, int W> __device__ void widened_gradient_columns(const WidenedGradient &a) {
  int channel = blockIdx.x * LANES + threadIdx.x;
  Two sums = {0, 0};
  if (channel < a.channels)
#pragma unroll 4
    for (int part = threadIdx.y; part < a.count; part += ROWS) {
      Two of_part = reinterpret_cast<const Two *>(a.parts)[static_cast<long long>(part) * a.channels + channel];
      sums.first += of_part.first, sums.second += of_part.second;
    }
  add_rows<1>(&sums.first), add_rows<1>(&sums.second);
  if (threadIdx.y || channel >= a.channels) return;
  float weight = at<T>(a.weight, channel), inverse = 1 / sqrtf(weight * weight * a.moments[1] + a.eps);
  float scale = a.gamma[channel] * inverse, slope = weight * inverse;
  a.grad_beta[channel] = sums.first, a.grad_gamma[channel] = slope * sums.second;
  static_cast<T *>(a.grad_weight)[channel] = rounded<T>(scale * sums.second * a.eps * inverse * inverse);
  static_cast<T *>(a.grad_bias)[channel] = rounded<T>(0);
  a.slopes[channel] = scale * weight;
  a.slopes[a.channels + channel] = scale * weight * sums.first / a.places;
  a.slopes[2 * a.channels + channel] = scale * weight * slope * slope * sums.second / a.places;
}

template <class T, int W> __device__ void widened_gradient_rows(const WidenedGradient &a) {
  Two of_all = {0, 0};
  for (int c = threadIdx.y * LANES + threadIdx.x; c < a.channels; c += LANES * ROWS)
    of_all.first += a.slopes[a.channels + c], of_all.second += a.slopes[2 * a.channels + c];
  of_all = sum_threads(of_all);
  EACH_ROW(place, a.places) {
    float sum = 0;
    for (int c = threadIdx.x * W; c < a.channels; c += LANES * W) {
      Pack<T, W> gradient = load<T, W>(a.grad_x, static_cast<long long>(place) * a.channels + c);
      float slopes[W];
      load_floats<float, W>(a.slopes, c, slopes);
      EACH(j, W) sum += slopes[j] * number(gradient.v[j]);
    }
    sum = sum_warp(sum) - of_all.first - of_all.second * (at<T>(a.y, place) - a.moments[0]);
    if (!threadIdx.x) static_cast<T *>(a.grad_y)[place] = rounded<T>(sum);
  }
}

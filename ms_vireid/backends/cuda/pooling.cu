// Generalised-mean pooling, (mean over all places of x^power + eps)^(1 / power), and its gradient; a block takes a strip
// of channels of one sample.
OPERATOR(gem(float power, float eps, places = height * width, pack = packs(channels, x), STRIPS),
         T MAP(x) -> float pooled[samples, channels],
         grid(gem, pack, strips, samples))
OPERATOR(gem_gradient(float power, places = height * width, pack = packs(channels, x, grad_x), STRIPS),
         float grad_pooled[samples, channels] float pooled[samples, channels] T MAP(x)
         -> T MAP(grad_x),
         grid(gem_gradient, pack, strips, samples))

__device__ inline float power_of(float x, float power) {
  return power == 1 ? x : power == 2 ? x * x : power == 3 ? x * x * x : powf(x, power);
}

template <class T, int W> __device__ void gem(const Gem &a) {
  Strip<W> strip(a);
  Two sums[W] = {};
  long long start = static_cast<long long>(blockIdx.y) * a.places;
  if (!strip.idle)
#pragma unroll 4
    for (int place = strip.lane; place < a.places; place += strip.lanes) {
      Pack<T, W> x = strip.template read<T>(a.x, start + place, a.channels);
      EACH(j, W) sums[j].first += power_of(number(x.v[j]), a.power);
    }
  const Two *totals = sum_places<W>(strip, sums);
  if (strip.idle || strip.lane) return;
  EACH(j, W)
    a.pooled[static_cast<long long>(blockIdx.y) * a.channels + strip.channel + j] =
        powf(totals[strip.column() + j].first / a.places + a.eps, 1 / a.power);
}

template <class T, int W> __device__ void gem_gradient(const GemGradient &a) {
  Strip<W> strip(a);
  if (strip.idle) return;
  long long start = static_cast<long long>(blockIdx.y) * a.places;
  float factor[W];
  EACH(j, W) {
    long long of = static_cast<long long>(blockIdx.y) * a.channels + strip.channel + j;
    factor[j] = a.grad_pooled[of] * powf(a.pooled[of], 1 - a.power) / a.places;
  }
#pragma unroll 4
  for (int place = strip.lane; place < a.places; place += strip.lanes) {
    Pack<T, W> x = strip.template read<T>(a.x, start + place, a.channels);
    EACH(j, W) x.v[j] = rounded<T>(factor[j] * power_of(number(x.v[j]), a.power - 1));
    store(a.grad_x, (start + place) * a.channels + strip.channel, x);
  }
}

// Max pooling by 3x3 windows of stride 2 with a border of one, and average pooling in several sizes at once: a thread
// takes a pack of channels of one place.
#define POOLED pooled_height = (height + 1) / 2, pooled_width = (width + 1) / 2
#define POOLED_MAP(name) name[samples, pooled_height, pooled_width, channels]
OPERATOR(max_pool(POOLED, pack = packs(channels, x, pooled)),
         T MAP(x) -> T POOLED_MAP(pooled) uint8 POOLED_MAP(window),
         over_packs(max_pool, pack, channels, samples, pooled_height * pooled_width))
OPERATOR(max_pool_gradient(POOLED, pack = packs(channels, grad_pooled, grad_x)),
         T MAP(x) T POOLED_MAP(grad_pooled) uint8 POOLED_MAP(window) -> T MAP(grad_x),
         over_packs(max_pool_gradient(grad_pooled, window, grad_x), pack, channels, samples, height * width))
// inverses: 2^31 / ratio and less than 1 more.
OPERATOR(average_pools(int ratios{RATIOS}, ratio = least(ratios, ratios_count)),
         T MAP(x)
         -> T pooled{ratios}[samples, height / ratios[k], width / ratios[k], channels],
         over_packs(average_pools, packs(channels, x, pooled[0]), channels, samples, height / ratio * (width / ratio)))
OPERATOR(average_pools_gradient(int ratios{RATIOS}, unsigned inverses{ratios} = (1u << 31) / ratios[k] + 1),
         T MAP(x)
         T grad_pooled{ratios}[samples, height / ratios[k], width / ratios[k], channels]
         -> T MAP(grad_x),
         over_packs(average_pools_gradient(grad_pooled, grad_x), packs(channels, grad_pooled[0], grad_x), channels, samples,
                    height * width))

// A thread's pack of channels, and its place in a sample.
#define EACH_PACK_OF(map, W, place, channel, places)                                                        \
  for (int thread = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x, of_place = map.channels / W,   \
           place = thread / of_place, channel = thread % of_place * W; place < places; place = places)

// The largest of each window, and where in it the first of these is; what is no number is larger than all numbers.
template <class T, int W> __device__ void max_pool(const MaxPool &a) {
  EACH_PACK_OF(a, W, place, channel, a.pooled_height * a.pooled_width)
    for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
      int top = place / a.pooled_width * 2 - 1, left = place % a.pooled_width * 2 - 1;
      long long start = static_cast<long long>(sample) * a.height * a.width;
      int begin = (top < 0 ? 3 : 0) + (left < 0 ? 1 : 0);
      float most[W];
      Pack<unsigned char, W> first;
      EACH(k, 9) {
        int y = top + k / 3, x = left + k % 3;
        if (y < 0 || y >= a.height || x < 0 || x >= a.width) continue;
        Pack<T, W> values = load<T, W>(a.x, (start + y * a.width + x) * a.channels + channel);
        EACH(j, W) {
          float value = number(values.v[j]);
          if (k == begin || value > most[j] || value != value) most[j] = value, first.v[j] = k;
        }
      }
      Pack<T, W> pooled;
      EACH(j, W) pooled.v[j] = rounded<T>(most[j]);
      long long to = static_cast<long long>(sample) * a.pooled_height * a.pooled_width + place;
      store(a.pooled, to * a.channels + channel, pooled);
      store(a.window, to * a.channels + channel, first);
    }
}

// Each place of x gets the gradients of the windows, up to four, whose first largest it is.
template <class T, int W> __device__ void max_pool_gradient(const MaxPoolGradient &a) {
  EACH_PACK_OF(a, W, place, channel, a.height * a.width)
    for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
      int y = place / a.width, x = place % a.width;
      long long start = static_cast<long long>(sample) * a.pooled_height * a.pooled_width;
      float sums[W] = {};
      for (int v = y / 2; v <= (y + 1) / 2 && v < a.pooled_height; v++)
        for (int u = x / 2; u <= (x + 1) / 2 && u < a.pooled_width; u++) {
          long long from = (start + v * a.pooled_width + u) * a.channels + channel;
          Pack<unsigned char, W> first = load<unsigned char, W>(a.window, from);
          Pack<T, W> gradient = load<T, W>(a.grad_pooled, from);
          EACH(j, W)
            if (first.v[j] == (y - 2 * v + 1) * 3 + x - 2 * u + 1) sums[j] += number(gradient.v[j]);
        }
      Pack<T, W> out;
      EACH(j, W) out.v[j] = rounded<T>(sums[j]);
      store(a.grad_x, (static_cast<long long>(sample) * a.height * a.width + place) * a.channels + channel, out);
    }
}

// The averages of windows of ratio x ratio places, for several ratios that divide height and width.
template <class T, int W> __device__ void average_pools(const AveragePools &a) {
  for (int number_of_ratio = 0; number_of_ratio < a.ratios_count; number_of_ratio++) {
    int ratio = a.ratios[number_of_ratio], pooled_width = a.width / ratio, places = a.height / ratio * pooled_width;
    EACH_PACK_OF(a, W, place, channel, places)
      for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
        long long start = static_cast<long long>(sample) * a.height * a.width;
        start += place / pooled_width * ratio * a.width + place % pooled_width * ratio;
        float sums[W] = {};
        for (int y = 0; y < ratio; y++)
#pragma unroll 4
          for (int x = 0; x < ratio; x++) {
            Pack<T, W> values = load<T, W>(a.x, (start + y * a.width + x) * a.channels + channel);
            EACH(j, W) sums[j] += number(values.v[j]);
          }
        Pack<T, W> out;
        EACH(j, W) out.v[j] = rounded<T>(sums[j] / (ratio * ratio));
        store(a.pooled[number_of_ratio], (static_cast<long long>(sample) * places + place) * a.channels + channel, out);
      }
  }
}

// x / ratio, by a product with 2^31 / ratio.
__device__ inline int quotient(int x, unsigned inverse) {
  return static_cast<int>(static_cast<unsigned long long>(x) * inverse >> 31);
}

// Each place gets its shares of the gradients of all windows that it is in.
template <class T, int W> __device__ void average_pools_gradient(const AveragePoolsGradient &a) {
  EACH_PACK_OF(a, W, place, channel, a.height * a.width)
    for (int sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
      int y = place / a.width, x = place % a.width;
      float sums[W] = {};
      for (int k = 0; k < a.ratios_count; k++) {
        int ratio = a.ratios[k], pooled_width = a.width / ratio;
        float share = 1.0f / (ratio * ratio);
        long long row = static_cast<long long>(sample) * (a.height / ratio) + quotient(y, a.inverses[k]);
        long long from = (row * pooled_width + quotient(x, a.inverses[k])) * a.channels + channel;
        Pack<T, W> gradient = load<T, W>(a.grad_pooled[k], from);
        EACH(j, W) sums[j] += share * number(gradient.v[j]);
      }
      Pack<T, W> out;
      EACH(j, W) out.v[j] = rounded<T>(sums[j]);
      store(a.grad_x, (static_cast<long long>(sample) * a.height * a.width + place) * a.channels + channel, out);
    }
}

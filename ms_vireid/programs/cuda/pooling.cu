// Generalised-mean pooling, (mean over all places of x^power + eps)^(1 / power), and its gradient; a warp takes a plane.
OPERATOR(gem(float power, float eps, planes = samples * channels, size = height * width),
         T MAP(x) -> float pooled[samples, channels],
         grid(gem, map_packs(size, x), blocks(planes, ROWS), 1))
OPERATOR(gem_gradient(float power, planes = samples * channels, size = height * width),
         float grad_pooled[samples, channels] float pooled[samples, channels] T MAP(x)
         -> T MAP(grad_x),
         grid(gem_gradient, map_packs(size, x, grad_x), blocks(planes, ROWS), 1))

__device__ inline float power_of(float x, float power) {
  return power == 1 ? x : power == 2 ? x * x : power == 3 ? x * x * x : powf(x, power);
}
#define EACH_PLANE(plane, planes) \
  for (int plane = blockIdx.x * ROWS + threadIdx.y; plane < planes; plane += gridDim.x * ROWS)

template <class T, int W> __device__ void gem(const Gem &a) {
  EACH_PLANE(plane, a.planes) {
    long long start = static_cast<long long>(plane) * a.size;
    float sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x * W; i < a.size; i += LANES * W) {
      Pack<T, W> x = load<T, W>(a.x, start + i);
      EACH(j, W) sum += power_of(number(x.v[j]), a.power);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) a.pooled[plane] = powf(sum / a.size + a.eps, 1 / a.power);
  }
}

template <class T, int W> __device__ void gem_gradient(const GemGradient &a) {
  EACH_PLANE(plane, a.planes) {
    long long start = static_cast<long long>(plane) * a.size;
    float factor = a.grad_pooled[plane] * powf(a.pooled[plane], 1 - a.power) / a.size;
#pragma unroll 4
    for (int i = threadIdx.x * W; i < a.size; i += LANES * W) {
      Pack<T, W> x = load<T, W>(a.x, start + i);
      EACH(j, W) x.v[j] = rounded<T>(factor * power_of(number(x.v[j]), a.power - 1));
      store(a.grad_x, start + i, x);
    }
  }
}

// Max pooling by 3x3 windows of stride 2 with a border of one, and average pooling in several sizes at once.
#define POOLED planes = samples * channels, pooled_height = (height + 1) / 2, pooled_width = (width + 1) / 2
OPERATOR(max_pool(POOLED),
         T MAP(x)
         -> T pooled[samples, channels, pooled_height, pooled_width]
         uint8 places[samples, channels, pooled_height, pooled_width],
         over_planes(max_pool, 1, planes, pooled_height * pooled_width))
OPERATOR(max_pool_gradient(POOLED),
         T MAP(x) T grad_pooled[samples, channels, pooled_height, pooled_width]
         uint8 places[samples, channels, pooled_height, pooled_width] -> T MAP(grad_x),
         over_planes(max_pool_gradient(grad_pooled, places, grad_x), 1, planes, height * width))
// inverses: 2^31 / ratio and less than 1 more.
OPERATOR(average_pools(int ratios{RATIOS}, planes = samples * channels, ratio = least(ratios, ratios_count)),
         T MAP(x)
         -> T pooled{ratios}[samples, channels, height / ratios[k], width / ratios[k]],
         over_planes(average_pools, 1, planes, height / ratio * (width / ratio)))
OPERATOR(average_pools_gradient(int ratios{RATIOS}, unsigned inverses{ratios} = (1u << 31) / ratios[k] + 1,
                                planes = samples * channels, pack = quads(width, grad_x)),
         T MAP(x)
         T grad_pooled{ratios}[samples, channels, height / ratios[k], width / ratios[k]]
         -> T MAP(grad_x),
         over_planes(average_pools_gradient(grad_pooled, grad_x), pack, planes, height * width / pack))

#define EACH_PLACE(plane, place, planes, places)                                                       \
  for (int plane = blockIdx.y; plane < planes; plane += gridDim.y)                                     \
    for (int place = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x; place < places;          \
         place += gridDim.x * ROWS * LANES)

// The largest of each window, and where in it the first of these is; what is no number is larger than all numbers.
template <class T, int W> __device__ void max_pool(const MaxPool &a) {
  EACH_PLACE(plane, place, a.planes, a.pooled_height * a.pooled_width) {
    int top = place / a.pooled_width * 2 - 1, left = place % a.pooled_width * 2 - 1;
    long long start = static_cast<long long>(plane) * a.height * a.width;
    int begin = (top < 0 ? 3 : 0) + (left < 0 ? 1 : 0), first = begin;
    float most = 0;
    EACH(k, 9) {
      int y = top + k / 3, x = left + k % 3;
      if (y < 0 || y >= a.height || x < 0 || x >= a.width) continue;
      float value = at<T>(a.x, start + y * a.width + x);
      if (k == begin || value > most || value != value) most = value, first = k;
    }
    long long to = static_cast<long long>(plane) * a.pooled_height * a.pooled_width + place;
    static_cast<T *>(a.pooled)[to] = rounded<T>(most), a.places[to] = first;
  }
}

// Each place of x gets the gradients of the windows, up to four, whose first largest it is.
template <class T, int W> __device__ void max_pool_gradient(const MaxPoolGradient &a) {
  EACH_PLACE(plane, place, a.planes, a.height * a.width) {
    int y = place / a.width, x = place % a.width;
    long long start = static_cast<long long>(plane) * a.pooled_height * a.pooled_width;
    float sum = 0;
    for (int v = y / 2; v <= (y + 1) / 2 && v < a.pooled_height; v++)
      for (int u = x / 2; u <= (x + 1) / 2 && u < a.pooled_width; u++) {
        long long from = start + v * a.pooled_width + u;
        if (a.places[from] == (y - 2 * v + 1) * 3 + x - 2 * u + 1) sum += at<T>(a.grad_pooled, from);
      }
    static_cast<T *>(a.grad_x)[static_cast<long long>(plane) * a.height * a.width + place] = rounded<T>(sum);
  }
}

// The averages of windows of ratio x ratio places, for several ratios that divide height and width.
template <class T, int W> __device__ void average_pools(const AveragePools &a) {
  for (int k = 0; k < a.ratios_count; k++) {
    int ratio = a.ratios[k], pooled_width = a.width / ratio, places = a.height / ratio * pooled_width;
    EACH_PLACE(plane, place, a.planes, places) {
      long long start = static_cast<long long>(plane) * a.height * a.width;
      start += place / pooled_width * ratio * a.width + place % pooled_width * ratio;
      float sum = 0;
      for (int y = 0; y < ratio; y++)
#pragma unroll 4
        for (int x = 0; x < ratio; x++) sum += at<T>(a.x, start + y * a.width + x);
      static_cast<T *>(a.pooled[k])[static_cast<long long>(plane) * places + place] =
          rounded<T>(sum / (ratio * ratio));
    }
  }
}

// x / ratio, by a product with 2^31 / ratio.
__device__ inline int quotient(int x, unsigned inverse) {
  return static_cast<int>(static_cast<unsigned long long>(x) * inverse >> 31);
}

// W neighbouring places of a row get their shares of the gradients of all windows that they are in.
template <class T, int W> __device__ void average_pools_gradient(const AveragePoolsGradient &a) {
  int packs = a.width / W;
  EACH_PLACE(plane, place, a.planes, a.height * packs) {
    int y = place / packs, x = place % packs * W;
    float sums[W];
    EACH(j, W) sums[j] = 0;
    for (int k = 0; k < a.ratios_count; k++) {
      int ratio = a.ratios[k], pooled_width = a.width / ratio;
      float share = 1.0f / (ratio * ratio);
      long long row = static_cast<long long>(plane) * (a.height / ratio) + quotient(y, a.inverses[k]);
      EACH(j, W)
        sums[j] += share * at<T>(a.grad_pooled[k], row * pooled_width + quotient(x + j, a.inverses[k]));
    }
    Pack<T, W> out;
    EACH(j, W) out.v[j] = rounded<T>(sums[j]);
    store(a.grad_x, (static_cast<long long>(plane) * a.height + y) * a.width + x, out);
  }
}

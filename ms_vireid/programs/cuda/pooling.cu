// Max pooling by 3x3 windows of stride 2 with a border of one, and average pooling in several sizes at once.

#define EACH_PLACE(plane, place, planes, places)                                                       \
  for (int plane = blockIdx.y; plane < planes; plane += gridDim.y)                                     \
    for (int place = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x; place < places;          \
         place += gridDim.x * ROWS * LANES)

// The largest of each window, and where in it the first of these is; what is no number is larger than all numbers.
template <class T, int W>
__device__ void max_pool(const MaxPool &a) {
  EACH_PLACE(plane, place, a.planes, a.pooled_height * a.pooled_width) {
    int top = place / a.pooled_width * 2 - 1, left = place % a.pooled_width * 2 - 1;
    long long start = static_cast<long long>(plane) * a.height * a.width;
    int begin = (top < 0 ? 3 : 0) + (left < 0 ? 1 : 0), first = begin;
    float most = 0;
#pragma unroll
    for (int k = 0; k < 9; k++) {
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
template <class T, int W>
__device__ void max_pool_gradient(const MaxPool &a) {
  EACH_PLACE(plane, place, a.planes, a.height * a.width) {
    int y = place / a.width, x = place % a.width;
    long long start = static_cast<long long>(plane) * a.pooled_height * a.pooled_width;
    float sum = 0;
    for (int v = y / 2; v <= (y + 1) / 2 && v < a.pooled_height; v++)
      for (int u = x / 2; u <= (x + 1) / 2 && u < a.pooled_width; u++) {
        long long from = start + v * a.pooled_width + u;
        if (a.places[from] == (y - 2 * v + 1) * 3 + x - 2 * u + 1) sum += at<T>(a.pooled, from);
      }
    static_cast<T *>(a.grad_x)[static_cast<long long>(plane) * a.height * a.width + place] = rounded<T>(sum);
  }
}
ENTRY(max_pool_float_1, float, 1, MaxPool, max_pool)
ENTRY(max_pool_half_1, Half, 1, MaxPool, max_pool)
ENTRY(max_pool_gradient_float_1, float, 1, MaxPool, max_pool_gradient)
ENTRY(max_pool_gradient_half_1, Half, 1, MaxPool, max_pool_gradient)

// The averages of windows of ratio x ratio places, for several ratios that divide height and width.
template <class T, int W>
__device__ void average_pools(const AveragePools &a) {
  for (int k = 0; k < a.count; k++) {
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
ENTRY(average_pools_float_1, float, 1, AveragePools, average_pools)
ENTRY(average_pools_half_1, Half, 1, AveragePools, average_pools)

// x / ratio, by a product with 2^31 / ratio.
__device__ inline int quotient(int x, unsigned inverse) {
  return static_cast<int>(static_cast<unsigned long long>(x) * inverse >> 31);
}

// W neighbouring places of a row get their shares of the gradients of all windows that they are in.
template <class T, int W>
__device__ void average_pools_gradient(const AveragePools &a) {
  int packs = a.width / W;
  EACH_PLACE(plane, place, a.planes, a.height * packs) {
    int y = place / packs, x = place % packs * W;
    float sums[W];
#pragma unroll
    for (int j = 0; j < W; j++) sums[j] = 0;
    for (int k = 0; k < a.count; k++) {
      int ratio = a.ratios[k], pooled_width = a.width / ratio;
      float share = 1.0f / (ratio * ratio);
      long long row = static_cast<long long>(plane) * (a.height / ratio) + quotient(y, a.inverses[k]);
#pragma unroll
      for (int j = 0; j < W; j++)
        sums[j] += share * at<T>(a.pooled[k], row * pooled_width + quotient(x + j, a.inverses[k]));
    }
    Pack<T, W> out;
#pragma unroll
    for (int j = 0; j < W; j++) out.v[j] = rounded<T>(sums[j]);
    store(a.grad_x, (static_cast<long long>(plane) * a.height + y) * a.width + x, out);
  }
}
ENTRY(average_pools_gradient_float_1, float, 1, AveragePools, average_pools_gradient)
ENTRY(average_pools_gradient_float_4, float, 4, AveragePools, average_pools_gradient)
ENTRY(average_pools_gradient_half_1, Half, 1, AveragePools, average_pools_gradient)
ENTRY(average_pools_gradient_half_4, Half, 4, AveragePools, average_pools_gradient)

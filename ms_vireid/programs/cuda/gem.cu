// Generalised-mean pooling, (mean over all places of x^power + eps)^(1 / power), and its gradient; a warp takes a plane.
__device__ inline float power_of(float x, float power) {
  return power == 1 ? x : power == 2 ? x * x : power == 3 ? x * x * x : powf(x, power);
}
#define EACH_PLANE(plane, planes) \
  for (int plane = blockIdx.x * ROWS + threadIdx.y; plane < planes; plane += gridDim.x * ROWS)

template <class T, int W>
__device__ void gem(const Gem &a) {
  float power = a.numbers[0], eps = a.numbers[1];
  EACH_PLANE(plane, a.planes) {
    long long start = static_cast<long long>(plane) * a.size;
    float sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x * W; i < a.size; i += LANES * W) {
      Pack<T, W> x = load<T, W>(a.x, start + i);
#pragma unroll
      for (int j = 0; j < W; j++) sum += power_of(number(x.v[j]), power);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) a.pooled[plane] = powf(sum / a.size + eps, 1 / power);
  }
}
ENTRIES_OF_MAPS(gem, Gem)

template <class T, int W>
__device__ void gem_gradient(const Gem &a) {
  float power = a.numbers[0];
  EACH_PLANE(plane, a.planes) {
    long long start = static_cast<long long>(plane) * a.size;
    float factor = a.gradient[plane] * powf(a.pooled[plane], 1 - power) / a.size;
#pragma unroll 4
    for (int i = threadIdx.x * W; i < a.size; i += LANES * W) {
      Pack<T, W> x = load<T, W>(a.x, start + i);
#pragma unroll
      for (int j = 0; j < W; j++) x.v[j] = rounded<T>(factor * power_of(number(x.v[j]), power - 1));
      store(a.grad_x, start + i, x);
    }
  }
}
ENTRIES_OF_MAPS(gem_gradient, Gem)

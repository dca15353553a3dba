// An optimiser's update of a buffer of weights, in place.
template <int W>
__device__ inline long long first_element() {
  return (static_cast<long long>(blockIdx.x) * LANES * ROWS + threadIdx.y * LANES + threadIdx.x) * W;
}
__device__ inline const float *numbers_of(const Update &a) { return a.scalars + a.group[0] * a.columns; }
__device__ inline float limited(float weight, const float *limits) {
  if (!limits) return weight;
  return weight < limits[0] ? limits[0] : weight > limits[1] ? limits[1] : weight;
}

// w -= lr (m / (sqrt(v) + eps) + decay w), with the corrections of m and v in lr, eps and decay.
template <class T, int W>
__device__ void adamw(const Update &a) {
  long long place = first_element<W>();
  const float *numbers = numbers_of(a);
  float lr = numbers[0], decay = numbers[1], eps = numbers[2], beta1 = numbers[3], beta2 = numbers[4];
  if (place >= a.count || !*a.applies) return;
  Pack<float, W> weight = load<float, W>(a.weight, place), gradient = load<float, W>(a.gradient, place);
  Pack<float, W> mean = load<float, W>(a.state, place), square = load<float, W>(a.second_state, place);
#pragma unroll
  for (int j = 0; j < W; j++) {
    float g = gradient.v[j], w = weight.v[j];
    mean.v[j] = beta1 * mean.v[j] + (1 - beta1) * g;
    square.v[j] = beta2 * square.v[j] + (1 - beta2) * g * g;
    weight.v[j] = limited(w - lr * (mean.v[j] / (sqrtf(square.v[j]) + eps) + decay * w), a.limits);
  }
  store(a.weight, place, weight);
  store(a.state, place, mean);
  store(a.second_state, place, square);
}
ENTRY(adamw_float_4, float, 4, Update, adamw)
ENTRY(adamw_float_1, float, 1, Update, adamw)

// g = gradient + decay w,  b = momentum b + g,  w -= lr b, or with Nesterov's momentum lr (g + momentum b).
template <class T, int W>
__device__ void sgd(const Update &a) {
  long long place = first_element<W>();
  const float *numbers = numbers_of(a);
  float lr = numbers[0], decay = numbers[1], momentum = numbers[2];
  if (place >= a.count || !*a.applies) return;
  Pack<float, W> weight = load<float, W>(a.weight, place), gradient = load<float, W>(a.gradient, place);
  Pack<float, W> buffer = load<float, W>(a.state, place);
#pragma unroll
  for (int j = 0; j < W; j++) {
    float w = weight.v[j], g = gradient.v[j] + decay * w;
    buffer.v[j] = momentum * buffer.v[j] + g;
    weight.v[j] = limited(w - lr * (a.nesterov ? g + momentum * buffer.v[j] : buffer.v[j]), a.limits);
  }
  store(a.weight, place, weight);
  store(a.state, place, buffer);
}
ENTRY(sgd_float_4, float, 4, Update, sgd)
ENTRY(sgd_float_1, float, 1, Update, sgd)

// Gradients without their loss scale.
template <class T, int W>
__device__ void unscaled(const Scaled &a) {
  long long place = first_element<W>();
  if (place >= a.count) return;
  float factor = 1 / a.scale[0];
  Pack<T, W> pack = load<T, W>(a.x, place);
#pragma unroll
  for (int j = 0; j < W; j++) pack.v[j] = rounded<T>(number(pack.v[j]) * factor);
  store(a.out, place, pack);
}
ENTRIES(unscaled, Scaled)

// Copies of weights in half.
template <class T, int W>
__device__ void halved(const Scaled &a) {
  long long place = first_element<W>();
  if (place >= a.count) return;
  Pack<float, W> pack = load<float, W>(a.x, place);
  Pack<Half, W> copies;
#pragma unroll
  for (int j = 0; j < W; j++) copies.v[j] = half_of(pack.v[j]);
  store(a.out, place, copies);
}
ENTRY(halved_float_4, float, 4, Scaled, halved)
ENTRY(halved_float_1, float, 1, Scaled, halved)

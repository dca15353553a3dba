// An optimiser's update of a buffer of weights, in place; nothing unless it applies. scalars: of all groups; lr, decay ...
// are their places there. Weights stay from `smallest` to `largest`.
OPERATOR(adamw(int group, int lr, int decay, int eps, int beta1, int beta2, float smallest, float largest),
         float &weight[count..] float &exp_avg[count..] float &exp_avg_sq[count..] float gradient[count..]
         float scalars[groups, columns] bool applies?[] -> float unused[1],
         over_elements(adamw, packs(count, weight, exp_avg, exp_avg_sq, gradient), count))
OPERATOR(sgd(int nesterov, int group, int lr, int decay, int momentum, float smallest, float largest),
         float &weight[count..] float &momentum_buffer[count..] float gradient[count..] float scalars[groups, columns]
         bool applies?[] -> float unused[1],
         over_elements(sgd, packs(count, weight, momentum_buffer, gradient), count))
OPERATOR(halved(), half &copy[count..] float weight[count..] -> float unused[1],
         over_elements(halved, packs(count, copy, weight), count))

template <class Arguments> __device__ inline bool updates(const Arguments &a, long long place) {
  return place < a.count && (!a.applies || *a.applies);
}
template <class Arguments> __device__ inline float limited(float weight, const Arguments &a) {
  return weight < a.smallest ? a.smallest : weight > a.largest ? a.largest : weight;
}

// w -= lr (m / (sqrt(v) + eps) + decay w), with the corrections of m and v in lr, eps and decay.
template <class T, int W> __device__ void adamw(const Adamw &a) {
  long long place = first_element<W>();
  const float *scalars = a.scalars + a.group * a.columns;
  float lr = scalars[a.lr], decay = scalars[a.decay], eps = scalars[a.eps];
  float beta1 = scalars[a.beta1], beta2 = scalars[a.beta2];
  if (!updates(a, place)) return;
  Pack<float, W> weight = load<float, W>(a.weight, place), gradient = load<float, W>(a.gradient, place);
  Pack<float, W> mean = load<float, W>(a.exp_avg, place), square = load<float, W>(a.exp_avg_sq, place);
  EACH(j, W) {
    float g = gradient.v[j], w = weight.v[j];
    mean.v[j] = beta1 * mean.v[j] + (1 - beta1) * g;
    square.v[j] = beta2 * square.v[j] + (1 - beta2) * g * g;
    weight.v[j] = limited(w - lr * (mean.v[j] / (sqrtf(square.v[j]) + eps) + decay * w), a);
  }
  store(a.weight, place, weight);
  store(a.exp_avg, place, mean);
  store(a.exp_avg_sq, place, square);
}

// g = gradient + decay w,  b = momentum b + g,  w -= lr b, or with Nesterov's momentum lr (g + momentum b).
template <class T, int W> __device__ void sgd(const Sgd &a) {
  long long place = first_element<W>();
  const float *scalars = a.scalars + a.group * a.columns;
  float lr = scalars[a.lr], decay = scalars[a.decay], momentum = scalars[a.momentum];
  if (!updates(a, place)) return;
  Pack<float, W> weight = load<float, W>(a.weight, place), gradient = load<float, W>(a.gradient, place);
  Pack<float, W> buffer = load<float, W>(a.momentum_buffer, place);
  EACH(j, W) {
    float w = weight.v[j], g = gradient.v[j] + decay * w;
    buffer.v[j] = momentum * buffer.v[j] + g;
    weight.v[j] = limited(w - lr * (a.nesterov ? g + momentum * buffer.v[j] : buffer.v[j]), a);
  }
  store(a.weight, place, weight);
  store(a.momentum_buffer, place, buffer);
}

// Copies of weights in half.
template <class T, int W> __device__ void halved(const Halved &a) {
  long long place = first_element<W>();
  if (place >= a.count) return;
  Pack<float, W> pack = load<float, W>(a.weight, place);
  Pack<Half, W> copies;
  EACH(j, W) copies.v[j] = half_of(pack.v[j]);
  store(a.copy, place, copies);
}

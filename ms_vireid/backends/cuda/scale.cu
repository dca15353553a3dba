// float16's loss scale: gradients without it, whether they are finite, in parts, and what follows for the scale from all
// of them.
OPERATOR(unscaled(parts = min(BLOCKS, blocks(count, LANES * ROWS))),
         float x[count..] float scale[] -> float out[count..] bool finite[parts],
         grid(unscaled, packs(count, x, out), parts, 1))
// The scale is divided by `factor`, down to 1, after a step that is not finite, and multiplied by it after `window` steps
// that are.
OPERATOR(adjust_scale(float factor, int window, int counts{VECTORS}),
         float &scale[] int &counter[] bool finite{counts}[counts[k]] -> bool applies[],
         grid(adjust_scale, 1, 1, 1))

constexpr float MOST = -LEAST;

template <class T, int W> __device__ void unscaled(const Unscaled &a) {
  float others = 0, factor = 1 / *a.scale;
  long long step = static_cast<long long>(gridDim.x) * LANES * ROWS * W;
  for (long long first = first_element<W>(); first < a.count; first += RUN * step) {
    Pack<float, W> x[RUN];
    EACH(k, RUN)
      if (first + k * step < a.count) x[k] = load<float, W>(a.x, first + k * step);
    EACH(k, RUN)
      if (first + k * step < a.count) {
        EACH(j, W) x[k].v[j] *= factor, others += !(fabsf(x[k].v[j]) <= MOST);
        store(a.out, first + k * step, x[k]);
      }
  }
  bool all = !sum_threads({others, 0}).first;
  if (!threadIdx.x && !threadIdx.y) a.finite[blockIdx.x] = all;
}

template <class T, int W> __device__ void adjust_scale(const AdjustScale &a) {
  float others = 0;
  for (int k = 0; k < a.counts_count; k++)
    for (int i = threadIdx.y * LANES + threadIdx.x; i < a.counts[k]; i += LANES * ROWS) others += !a.finite[k][i];
  bool all = !sum_threads({others, 0}).first;
  if (threadIdx.x || threadIdx.y) return;
  float scale = *a.scale, larger = scale * a.factor, smaller = scale / a.factor;
  int steps = *a.counter + 1;
  *a.applies = all;
  if (!all) *a.scale = smaller > 1 ? smaller : 1;
  else if (steps == a.window && larger <= MOST) *a.scale = larger;
  *a.counter = all ? steps % a.window : 0;
}

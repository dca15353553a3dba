// dropout(GELU(x + bias)), GELU(x) = x Phi(x) with the normal distribution's Phi, and its gradient;
// the bias's as partial sums (sums.cu).
OPERATOR(gelu(int limit, float scale),
         T x[rows.., columns] T bias[columns] MASKS -> T out[rows.., columns],
         over_columns(gelu, packs(MASKED_PACKS, x, noise, out), rows, columns))
OPERATOR(gelu_gradient(int limit, float scale, count = parts_of(rows)),
         T grad_out[rows.., columns] T x[rows.., columns] T bias[columns] MASKS
         -> T grad_x[rows.., columns] float bias_parts[count, columns],
         over_columns(gelu_gradient, packs(MASKED_PACKS, grad_out, x, noise, grad_x), rows, columns))

__device__ inline float normal_distribution(float x) { return 0.5f * (1 + erff(x * 0.70710678118654752f)); }
__device__ inline float normal_density(float x) { return 0.39894228040143268f * expf(-0.5f * x * x); }

template <class T, int W> __device__ void gelu(const Gelu &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  Mask<W> mask(a, first);
  float bias[W], factors[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.rows) {
    long long place = static_cast<long long>(row) * a.columns + first;
    Pack<T, W> pack = load<T, W>(a.x, place);
    mask.row(row, factors);
    EACH(j, W) {
      float x = number(pack.v[j]) + bias[j];
      float y = x * normal_distribution(x) * factors[j];
      pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : y);
    }
    store(a.out, place, pack);
  }
}

template <class T, int W> __device__ void gelu_gradient(const GeluGradient &a) {
  int first = first_column<W>();
  float sums[W] = {};
  if (first < a.columns) {
    Mask<W> mask(a, first);
    float bias[W], factors[W];
    load_floats<T, W>(a.bias, first, bias);
    EACH_ROW(row, a.rows) {
      long long place = static_cast<long long>(row) * a.columns + first;
      Pack<T, W> pack = load<T, W>(a.x, place), gradient = load<T, W>(a.grad_out, place);
      mask.row(row, factors);
      EACH(j, W) {
        float x = number(pack.v[j]) + bias[j];
        float slope = normal_distribution(x) + x * normal_density(x);
        pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : number(gradient.v[j]) * factors[j] * slope);
        sums[j] += number(pack.v[j]);
      }
      store(a.grad_x, place, pack);
    }
  }
  sum_block<W>(sums, a.bias_parts, first, a.columns);
}

// rest + drop_path(dropout(x + bias)), and the gradient of x.
template <class T, int W>
__device__ void residual(const Residual &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  Mask<W> mask(a.masks, first);
  float bias[W], factors[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.rows) {
    long long place = static_cast<long long>(row) * a.columns + first;
    Pack<T, W> pack = load<T, W>(a.x, place), rest = load<T, W>(a.rest, place);
    float sample_factor = a.factors ? at<T>(a.factors, row / a.tokens) : 1;
    mask.row(row, factors);
#pragma unroll
    for (int j = 0; j < W; j++) {
      float x = factors[j] == 0 ? 0 : (number(pack.v[j]) + bias[j]) * factors[j];
      pack.v[j] = rounded<T>(number(rest.v[j]) + x * sample_factor);
    }
    store(a.out, place, pack);
  }
}
ENTRIES(residual, Residual)

template <class T, int W>
__device__ void residual_gradient(const Residual &a) {
  int first = first_column<W>();
  float sums[W] = {};
  if (first < a.columns) {
    Mask<W> mask(a.masks, first);
    float factors[W];
    EACH_ROW(row, a.rows) {
      long long place = static_cast<long long>(row) * a.columns + first;
      Pack<T, W> pack = load<T, W>(a.x, place);
      float sample_factor = a.factors ? at<T>(a.factors, row / a.tokens) : 1;
      mask.row(row, factors);
#pragma unroll
      for (int j = 0; j < W; j++) {
        pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : number(pack.v[j]) * sample_factor * factors[j]);
        sums[j] += number(pack.v[j]);
      }
      store(a.out, place, pack);
    }
  }
  sum_block<W>(sums, a.parts, first, a.columns);
}
ENTRIES(residual_gradient, Residual)

// n gamma + beta of rows, n = (x - mean) / standard deviation, one warp a row; and its gradient.
template <class T, int W>
__device__ void layer_norm(const Norm &a) {
  using Packs = Row<T, W, WIDEST>;
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    Packs x(a.x, start, a.columns);
    float mean = 0, variance = 0;
    EACH_PACK(i, Packs, a.columns)
      for (int j = 0; j < W; j++) mean += number(x.packs[i].v[j]);
    mean = sum_warp(mean) / a.columns;
    EACH_PACK(i, Packs, a.columns)
      for (int j = 0; j < W; j++) {
        float difference = number(x.packs[i].v[j]) - mean;
        variance += difference * difference;
      }
    float scale = 1 / sqrtf(sum_warp(variance) / a.columns + *a.eps);
    EACH_PACK(i, Packs, a.columns) {
      int first = Packs::column(i);
      Pack<T, W> gamma = load<T, W>(a.gamma, first), beta = load<T, W>(a.beta, first);
      for (int j = 0; j < W; j++) {
        float n = (number(x.packs[i].v[j]) - mean) * scale;
        x.packs[i].v[j] = rounded<T>(n * number(gamma.v[j]) + number(beta.v[j]));
      }
      store(a.out, start + first, x.packs[i]);
    }
    if (!threadIdx.x) a.mean[row] = mean, a.scale[row] = scale;
  }
}
ENTRIES(layer_norm, Norm)

// With s = gradient gamma: rest + (s - mean(s) - n mean(s n)) / standard deviation, means over the columns.
template <class T, int W>
__device__ void layer_norm_gradient(const Norm &a) {
  using Packs = Row<T, W, WIDEST>;
  float grad_gamma[Packs::PACKS][W] = {}, grad_beta[Packs::PACKS][W] = {};
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    Packs x(a.x, start, a.columns), gradient(a.gradient, start, a.columns);
    Packs rest(a.rest, start, a.rest ? a.columns : 0);
    float mean = a.mean[row], scale = a.scale[row], sum = 0, product = 0;
    EACH_PACK(i, Packs, a.columns) {
      Pack<T, W> gamma = load<T, W>(a.gamma, Packs::column(i));
      for (int j = 0; j < W; j++) {
        float n = (number(x.packs[i].v[j]) - mean) * scale, g = number(gradient.packs[i].v[j]);
        grad_gamma[i][j] += g * n, grad_beta[i][j] += g;
        float s = g * number(gamma.v[j]);
        sum += s, product += s * n;
      }
    }
    sum = sum_warp(sum) / a.columns, product = sum_warp(product) / a.columns;
    EACH_PACK(i, Packs, a.columns) {
      int first = Packs::column(i);
      Pack<T, W> gamma = load<T, W>(a.gamma, first), beta, again;
      if (a.again) beta = load<T, W>(a.beta, first);
      for (int j = 0; j < W; j++) {
        float n = (number(x.packs[i].v[j]) - mean) * scale, s = number(gradient.packs[i].v[j]) * number(gamma.v[j]);
        float added = a.rest ? number(rest.packs[i].v[j]) : 0;
        if (a.again) again.v[j] = rounded<T>(n * number(gamma.v[j]) + number(beta.v[j]));
        x.packs[i].v[j] = rounded<T>(added + (s - sum - n * product) * scale);
      }
      store(a.out, start + first, x.packs[i]);
      if (a.again) store(a.again, start + first, again);
    }
  }
  float *beta_parts = a.parts + static_cast<long long>(gridDim.y) * a.columns;
#pragma unroll
  for (int i = 0; i < Packs::PACKS; i++) {
    if (LANES * W * i >= a.columns) break;  // the whole block
    sum_block<W>(grad_gamma[i], a.parts, Packs::column(i), a.columns);
    sum_block<W>(grad_beta[i], beta_parts, Packs::column(i), a.columns);
  }
}
ENTRIES(layer_norm_gradient, Norm)

// n gamma + beta of rows, n = (x - mean) / standard deviation, one warp a row; and its gradient. scale: 1 / standard
// deviation. With beta the gradient gives out again, and adds rest to grad_x. Those of gamma and beta are partial sums.
OPERATOR(layer_norm(float eps),
         T x[rows.., columns] T gamma[columns] T beta[columns]
         -> T out[rows.., columns] float mean[rows..] float scale[rows..],
         columns > WIDEST ? over_rows(layer_norm_long, packs(columns, x, gamma, beta, out), rows)
                          : over_rows(layer_norm, packs(columns, x, gamma, beta, out), rows))
OPERATOR(layer_norm_gradient(pack = packs(columns, grad_out, x, gamma, beta, rest, grad_x, again),
                             count = parts_of(rows)),
         T grad_out[rows.., columns] T x[rows.., columns] T gamma[columns] float mean[rows..] float scale[rows..]
         T beta?[columns] T rest?[rows.., columns]
         -> T grad_x[rows.., columns] T again?beta[rows.., columns]
         float gamma_parts[count, columns] float beta_parts[count, columns],
         columns > WIDEST ? grid(layer_norm_gradient_long, pack, blocks(columns, WIDEST), count)
                          : grid(layer_norm_gradient, pack, 1, count))

template <class T, int W, class Packs> __device__ void layer_norm_of(const LayerNorm &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    Packs x(a.x, start, a.columns);
    float mean = 0, variance = 0;
    EACH_PACK(i, Packs, a.columns)
      for (int j = 0; j < W; j++) mean += number(x[i].v[j]);
    mean = sum_warp(mean) / a.columns;
    EACH_PACK(i, Packs, a.columns)
      for (int j = 0; j < W; j++) {
        float difference = number(x[i].v[j]) - mean;
        variance += difference * difference;
      }
    float scale = 1 / sqrtf(sum_warp(variance) / a.columns + a.eps);
    EACH_PACK(i, Packs, a.columns) {
      int first = Packs::column(i);
      Pack<T, W> pack = x[i], gamma = load<T, W>(a.gamma, first), beta = load<T, W>(a.beta, first);
      for (int j = 0; j < W; j++) {
        float n = (number(pack.v[j]) - mean) * scale;
        pack.v[j] = rounded<T>(n * number(gamma.v[j]) + number(beta.v[j]));
      }
      store(a.out, start + first, pack);
    }
    if (!threadIdx.x) a.mean[row] = mean, a.scale[row] = scale;
  }
}
template <class T, int W> __device__ void layer_norm(const LayerNorm &a) { layer_norm_of<T, W, Row<T, W, WIDEST>>(a); }
template <class T, int W> __device__ void layer_norm_long(const LayerNorm &a) { layer_norm_of<T, W, LongRow<T, W>>(a); }

// With s = grad_out gamma: rest + (s - mean(s) - n mean(s n)) / standard deviation, means over the columns. A long row is
// taken in chunks of WIDEST columns, a block each; each sums the whole row.
template <class T, int W, bool LONG> __device__ void layer_norm_gradient_of(const LayerNormGradient &a) {
  using Packs = Row<T, W, WIDEST>;
  int begin = LONG ? blockIdx.x * WIDEST : 0, columns = LONG ? min(a.columns - begin, WIDEST) : a.columns;
  float grad_gamma[Packs::PACKS][W] = {}, grad_beta[Packs::PACKS][W] = {};
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns + begin;
    Packs x(a.x, start, columns), gradient(a.grad_out, start, columns);
    Packs rest(a.rest, start, a.rest ? columns : 0);
    float mean = a.mean[row], scale = a.scale[row], sum = 0, product = 0;
    if (LONG) {
      LongRow<T, W> all_x(a.x, start - begin, a.columns), all_gradient(a.grad_out, start - begin, a.columns);
      LongRow<T, W> all_gamma(a.gamma, 0, a.columns);
      for (int i = 0; LongRow<T, W>::column(i) < a.columns; i++) {
        Pack<T, W> of_x = all_x[i], of_gradient = all_gradient[i], gamma = all_gamma[i];
        for (int j = 0; j < W; j++) {
          float s = number(of_gradient.v[j]) * number(gamma.v[j]);
          sum += s, product += s * ((number(of_x.v[j]) - mean) * scale);
        }
      }
    }
    EACH_PACK(i, Packs, columns) {
      Pack<T, W> gamma = load<T, W>(a.gamma, begin + Packs::column(i));
      for (int j = 0; j < W; j++) {
        float n = (number(x.packs[i].v[j]) - mean) * scale, g = number(gradient.packs[i].v[j]);
        grad_gamma[i][j] += g * n, grad_beta[i][j] += g;
        float s = g * number(gamma.v[j]);
        if (!LONG) sum += s, product += s * n;
      }
    }
    sum = sum_warp(sum) / a.columns, product = sum_warp(product) / a.columns;
    EACH_PACK(i, Packs, columns) {
      int first = begin + Packs::column(i);
      Pack<T, W> gamma = load<T, W>(a.gamma, first), beta, again;
      if (a.again) beta = load<T, W>(a.beta, first);
      for (int j = 0; j < W; j++) {
        float n = (number(x.packs[i].v[j]) - mean) * scale, s = number(gradient.packs[i].v[j]) * number(gamma.v[j]);
        float added = a.rest ? number(rest.packs[i].v[j]) : 0;
        if (a.again) again.v[j] = rounded<T>(n * number(gamma.v[j]) + number(beta.v[j]));
        x.packs[i].v[j] = rounded<T>(added + (s - sum - n * product) * scale);
      }
      store(a.grad_x, start + Packs::column(i), x.packs[i]);
      if (a.again) store(a.again, start + Packs::column(i), again);
    }
  }
  EACH(i, Packs::PACKS) {
    if (LANES * W * i >= columns) break;  // the whole block
    sum_block<W>(grad_gamma[i], a.gamma_parts, begin + Packs::column(i), a.columns);
    sum_block<W>(grad_beta[i], a.beta_parts, begin + Packs::column(i), a.columns);
  }
}
template <class T, int W>
__device__ void layer_norm_gradient(const LayerNormGradient &a) { layer_norm_gradient_of<T, W, false>(a); }
template <class T, int W>
__device__ void layer_norm_gradient_long(const LayerNormGradient &a) { layer_norm_gradient_of<T, W, true>(a); }

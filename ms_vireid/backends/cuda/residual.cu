// Dropout, and its gradient, which is the same.
OPERATOR(dropout(int limit, float scale),
         T x[rows.., columns] MASKS -> T out[rows.., columns],
         over_columns(dropout, packs(MASKED_PACKS, x, noise, out), rows, columns))
OPERATOR(dropout_gradient(int limit, float scale),
         T grad_out[rows.., columns] MASKS -> T grad_x[rows.., columns],
         over_columns(dropout(x = grad_out, noise, row_starts, column_starts, multipliers, out = grad_x),
                      packs(MASKED_PACKS, grad_out, noise, grad_x), rows, columns))

template <class T, int W> __device__ void dropout(const Dropout &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  Mask<W> mask(a, first);
  float factors[W];
  EACH_ROW(row, a.rows) {
    long long place = static_cast<long long>(row) * a.columns + first;
    Pack<T, W> pack = load<T, W>(a.x, place);
    mask.row(row, factors);
    EACH(j, W) pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : number(pack.v[j]) * factors[j]);
    store(a.out, place, pack);
  }
}

// rest + drop_path(dropout(x + bias)), and the gradients of x and, as partial sums, of the bias. factors: drop path's, of
// which the row `layer` is taken.
OPERATOR(residual(int limit, float scale, int layer, rows = samples * tokens),
         T rest[samples, tokens, columns] T x[samples, tokens, columns] T bias[columns] T factors?[layers, samples] MASKS
         -> T out[samples, tokens, columns],
         over_columns(residual, packs(columns, rest, x, noise, out), rows, columns))
OPERATOR(residual_gradient(int limit, float scale, int layer, rows = samples * tokens, count = parts_of(rows)),
         T grad_out[samples, tokens, columns] T factors?[layers, samples] MASKS
         -> T grad_x[samples, tokens, columns] float bias_parts[count, columns],
         over_columns(residual_gradient, packs(columns, grad_out, noise, grad_x), rows, columns))

template <class T, class Arguments> __device__ float factor_of(const Arguments &a, int row) {
  return a.factors ? at<T>(a.factors, a.layer * a.samples + row / a.tokens) : 1;
}

template <class T, int W> __device__ void residual(const Residual &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  Mask<W> mask(a, first);
  float bias[W], factors[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.rows) {
    long long place = static_cast<long long>(row) * a.columns + first;
    Pack<T, W> pack = load<T, W>(a.x, place), rest = load<T, W>(a.rest, place);
    float sample_factor = factor_of<T>(a, row);
    mask.row(row, factors);
    EACH(j, W) {
      float x = factors[j] == 0 ? 0 : (number(pack.v[j]) + bias[j]) * factors[j];
      pack.v[j] = rounded<T>(number(rest.v[j]) + x * sample_factor);
    }
    store(a.out, place, pack);
  }
}

template <class T, int W> __device__ void residual_gradient(const ResidualGradient &a) {
  int first = first_column<W>();
  float sums[W] = {};
  if (first < a.columns) {
    Mask<W> mask(a, first);
    float factors[W];
    EACH_ROW(row, a.rows) {
      long long place = static_cast<long long>(row) * a.columns + first;
      Pack<T, W> pack = load<T, W>(a.grad_out, place);
      float sample_factor = factor_of<T>(a, row);
      mask.row(row, factors);
      EACH(j, W) {
        pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : number(pack.v[j]) * sample_factor * factors[j]);
        sums[j] += number(pack.v[j]);
      }
      store(a.grad_x, place, pack);
    }
  }
  sum_block<W>(sums, a.bias_parts, first, a.columns);
}

// Euclidean distances of all pairs of rows of x and y, or with root = 0 their squares: a warp a pair.
OPERATOR(distances(int root),
         float x[sets.., n, columns] float y[sets.., m, columns] -> float out[sets.., n, m],
         grid(distances, packs(columns, x, y), blocks(m, ROWS), min(sets * n, PLANES)))
OPERATOR(distances_gradient(int root),
         float grad_out[sets.., n, m] float x[sets.., n, columns] float y[sets.., m, columns] float out[sets.., n, m]
         -> float grad_x[sets.., n, columns] float grad_y[sets.., m, columns],
         over_columns(distances_gradient, packs(columns, x, y, grad_x, grad_y), sets * (n + m), columns))

template <class T, int W> __device__ void distances(const Distances &a) {
  int i = blockIdx.y, j = blockIdx.x * ROWS + threadIdx.y;
  if (j >= a.m) return;
  for (long long row = i; row < static_cast<long long>(a.sets) * a.n; row += gridDim.y) {
    const float *x = a.x + row * a.columns, *y = a.y + (row / a.n * a.m + j) * a.columns;
    float sum = 0;
    for (int c = threadIdx.x * W; c < a.columns; c += LANES * W) {
      Pack<float, W> from = load<float, W>(x, c), to = load<float, W>(y, c);
      EACH(k, W) sum += (from.v[k] - to.v[k]) * (from.v[k] - to.v[k]);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) a.out[row * a.m + j] = !a.root ? sum : sum < NORMAL ? 0 : sqrtf(sum);
  }
}

// Of each row of x: sum_j s_ij (x_i - y_j), where s is 2 g for squares, g / d for distances, and 0 for d = 0; of each row
// of y the same with x and y exchanged.
template <class T, int W> __device__ void distances_gradient(const DistancesGradient &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  EACH_ROW(row, a.sets * (a.n + a.m)) {
    int set = row / (a.n + a.m), i = row % (a.n + a.m);
    bool of_x = i < a.n;
    if (!of_x) i -= a.n;
    long long xs = static_cast<long long>(set) * a.n, ys = static_cast<long long>(set) * a.m;
    long long own = (of_x ? xs : ys) + i, others = of_x ? ys : xs;
    Pack<float, W> x = load<float, W>(of_x ? a.x : a.y, own * a.columns + first), sum = {};
    for (int j = 0; j < (of_x ? a.m : a.n); j++) {
      long long pair = xs * a.m + (of_x ? i * a.m + j : j * a.m + i);
      float scale = 2 * a.grad_out[pair];
      if (a.root) scale = a.out[pair] == 0 ? 0 : a.grad_out[pair] / a.out[pair];
      Pack<float, W> other = load<float, W>(of_x ? a.y : a.x, (others + j) * a.columns + first);
      EACH(k, W) sum.v[k] += scale * (x.v[k] - other.v[k]);
    }
    store(of_x ? a.grad_x : a.grad_y, own * a.columns + first, sum);
  }
}

// What follows reduces rows over a mask, a warp a row. No number stays none.
OPERATOR(masked_mean(int nearer),
         float values[rows, columns] bool mask[rows, columns] -> float out[rows], over_rows(masked_mean, 1, rows))
OPERATOR(masked_mean_gradient(int nearer),
         float grad_out[rows] float values[rows, columns] bool mask[rows, columns] -> float grad_values[rows, columns],
         over_rows(masked_mean_gradient, 1, rows))

// The mean of a row over its mask; `nearer`: of those below that mean, if there are any.
struct MeanOver {
  const float *values;
  const unsigned char *mask;
  float mean = 0, count = 0, threshold = 0;
  bool below = false;

  template <class Arguments> __device__ MeanOver(const Arguments &a, int row) {
    values = a.values + static_cast<long long>(row) * a.columns, mask = a.mask + static_cast<long long>(row) * a.columns;
    add(a.columns);
    threshold = mean, below = a.nearer;
    if (below) below = add(a.columns);
  }
  __device__ bool has(int c) const { return mask[c] && (!below || values[c] < threshold); }
  __device__ bool add(int columns) {
    float sum = 0, found = 0;
    for (int c = threadIdx.x; c < columns; c += LANES)
      if (has(c)) sum += values[c], found += 1;
    sum = sum_warp(sum), found = sum_warp(found);
    if (found) mean = sum / found, count = found;
    return found;
  }
};

template <class T, int W> __device__ void masked_mean(const MaskedMean &a) {
  EACH_ROW(row, a.rows) {
    MeanOver of(a, row);
    if (!threadIdx.x) a.out[row] = of.mean;
  }
}
template <class T, int W> __device__ void masked_mean_gradient(const MaskedMeanGradient &a) {
  EACH_ROW(row, a.rows) {
    MeanOver of(a, row);
    for (int c = threadIdx.x; c < a.columns; c += LANES)
      a.grad_values[static_cast<long long>(row) * a.columns + c] = of.has(c) ? a.grad_out[row] / of.count : 0;
  }
}

// The furthest positive's distance less the nearest negative's plus the margin, but at least 0; 0 without a negative.
OPERATOR(hinge(float margin),
         float values[rows, columns] bool positive[rows, columns] -> float out[rows], over_rows(hinge, 1, rows))
OPERATOR(hinge_gradient(float margin),
         float grad_out[rows] float values[rows, columns] bool positive[rows, columns] -> float grad_values[rows, columns],
         over_rows(hinge_gradient, 1, rows))

__device__ inline float larger(float a, float b) { return b > a || b != b ? b : a; }
__device__ inline float max_or_no_number(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  return x;
}

struct Hardest {
  float furthest, nearest, value = 0;

  template <class Arguments> __device__ Hardest(const Arguments &a, long long start) {
    float positives = -INFINITE, negatives = -INFINITE, found_positive = 0, found_negative = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES) {
      if (a.positive[start + c]) positives = larger(positives, a.values[start + c]), found_positive = 1;
      else negatives = larger(negatives, -a.values[start + c]), found_negative = 1;
    }
    furthest = max_or_no_number(positives), nearest = -max_or_no_number(negatives);
    if (!sum_warp(found_positive)) furthest = 0;
    if (!sum_warp(found_negative)) return;
    value = furthest - nearest + a.margin;
    if (value <= 0) value = 0;
  }
};

template <class T, int W> __device__ void hinge(const Hinge &a) {
  EACH_ROW(row, a.rows) {
    Hardest of(a, static_cast<long long>(row) * a.columns);
    if (!threadIdx.x) a.out[row] = of.value;
  }
}

// Equal distances share the gradient.
template <class T, int W> __device__ void hinge_gradient(const HingeGradient &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    Hardest of(a, start);
    auto extreme = [&](int c, bool positive) {
      return a.positive[start + c] == positive && a.values[start + c] == (positive ? of.furthest : of.nearest);
    };
    float furthest = 0, nearest = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES) furthest += extreme(c, true), nearest += extreme(c, false);
    furthest = sum_warp(furthest), nearest = sum_warp(nearest);
    float gradient = of.value == 0 ? 0 : a.grad_out[row];
    for (int c = threadIdx.x; c < a.columns; c += LANES)
      a.grad_values[start + c] =
          extreme(c, true) ? gradient / furthest : extreme(c, false) ? -gradient / nearest : 0;
  }
}

// WRT's means of the distances to the positives and to the negatives, weighted by exp(d - top) and exp(-d), where `top`
// is the furthest positive's; eps is added to the sums of weights.
OPERATOR(weighted_pair(float eps),
         float values[rows, columns] bool positive[rows, columns] -> float furthest[rows] float nearest[rows],
         over_rows(weighted_pair, 1, rows))
OPERATOR(weighted_pair_gradient(float eps),
         float grad_furthest[rows] float grad_nearest[rows] float values[rows, columns] bool positive[rows, columns]
         -> float grad_values[rows, columns], over_rows(weighted_pair_gradient, 1, rows))

struct Weighted {
  const float *values;
  const unsigned char *positive;
  float top, furthest, nearest, sum_furthest, sum_nearest;

  template <class Arguments> __device__ Weighted(const Arguments &a, long long start) {
    values = a.values + start, positive = a.positive + start;
    float most = -INFINITE;
    for (int c = threadIdx.x; c < a.columns; c += LANES) most = larger(most, of_positive(c));
    top = max_or_no_number(most);
    sum_furthest = sum_of(a.columns, true, false) + a.eps, sum_nearest = sum_of(a.columns, false, false) + a.eps;
    furthest = sum_of(a.columns, true, true) / sum_furthest, nearest = sum_of(a.columns, false, true) / sum_nearest;
  }
  // Of the weights of positives or of negatives, or of their products with the distances.
  __device__ float sum_of(int columns, bool of_positives, bool products) const {
    float sum = 0;
    for (int c = threadIdx.x; c < columns; c += LANES)
      if (positive[c] == of_positives) sum += products ? weight(c) * values[c] : weight(c);
    return sum_warp(sum);
  }
  __device__ float of_positive(int c) const { return positive[c] ? values[c] : 0; }
  __device__ float weight(int c) const { return expf(positive[c] ? values[c] - top : -values[c]); }
};

template <class T, int W> __device__ void weighted_pair(const WeightedPair &a) {
  EACH_ROW(row, a.rows) {
    Weighted of(a, static_cast<long long>(row) * a.columns);
    if (!threadIdx.x) a.furthest[row] = of.furthest, a.nearest[row] = of.nearest;
  }
}

// Of a mean v = sum w d / (sum w + eps): w (1 + d - v) / (sum w + eps) for a positive, w (1 - d + v) / (sum w + eps) for a
// negative, and for what is `top`, whose equals share it, -v eps / (sum w + eps).
template <class T, int W> __device__ void weighted_pair_gradient(const WeightedPairGradient &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.columns;
    Weighted of(a, start);
    float tops = 0;
    for (int c = threadIdx.x; c < a.columns; c += LANES) tops += of.of_positive(c) == of.top;
    float of_top = -of.furthest * a.eps / sum_warp(tops);
    for (int c = threadIdx.x; c < a.columns; c += LANES) {
      float d = of.values[c], weight = of.weight(c);
      a.grad_values[start + c] =
          of.positive[c]
              ? a.grad_furthest[row] * (weight * (1 + d - of.furthest) + (d == of.top ? of_top : 0)) / of.sum_furthest
              : a.grad_nearest[row] * weight * (1 - d + of.nearest) / of.sum_nearest;
    }
  }
}

// Squared mean discrepancies of two sets, the first `first` of n rows and the rest, from squared distances of all: of
// exp(-s / b 2^k), k = 0 ... kernels - 1, summed up, the means within the sets less twice that between them; b is the mean
// s between different rows, divided by 2^(kernels / 2), plus `floor`. A warp a pair of sets.
OPERATOR(mean_discrepancies(int first, int kernels, float floor),
         float squared[sets.., n, n] -> float out[sets..], over_rows(mean_discrepancies, 1, sets))
OPERATOR(mean_discrepancies_gradient(int first, int kernels, float floor),
         float grad_out[sets..] float squared[sets.., n, n] -> float grad_squared[sets.., n, n],
         over_rows(mean_discrepancies_gradient, 1, sets))

struct Gaussians {
  const float *squared;
  int n, first, kernels;
  float bandwidth;

  template <class Arguments> __device__ Gaussians(const Arguments &a, int set) {
    n = a.n, first = a.first, kernels = a.kernels, squared = a.squared + static_cast<long long>(set) * n * n;
    float sum = 0;
    for (int c = threadIdx.x; c < n * n; c += LANES) sum += squared[c];
    bandwidth = sum_warp(sum) / (n * (n - 1)) / (1 << kernels / 2) + a.floor;
  }
  __device__ float side(int i) const { return i < first ? 1.0f / first : -1.0f / (n - first); }
  __device__ float share(int c) const { return side(c / n) * side(c % n); }
  // Of a pair of rows: the sum of its kernels, and that of their derivatives.
  __device__ Two at(int c) const {
    Two sums = {0, 0};
    float rate = 1 / bandwidth;
    for (int k = 0; k < kernels; k++, rate /= 2) {
      float kernel = expf(-squared[c] * rate);
      sums.first += kernel, sums.second -= kernel * rate;
    }
    return sums;
  }
};

template <class T, int W> __device__ void mean_discrepancies(const MeanDiscrepancies &a) {
  EACH_ROW(set, a.sets) {
    Gaussians of(a, set);
    float sum = 0;
    for (int c = threadIdx.x; c < a.n * a.n; c += LANES) sum += of.share(c) * of.at(c).first;
    sum = sum_warp(sum);
    if (!threadIdx.x) a.out[set] = sum;
  }
}
template <class T, int W> __device__ void mean_discrepancies_gradient(const MeanDiscrepanciesGradient &a) {
  EACH_ROW(set, a.sets) {
    Gaussians of(a, set);
    for (int c = threadIdx.x; c < a.n * a.n; c += LANES)
      a.grad_squared[static_cast<long long>(set) * a.n * a.n + c] = a.grad_out[set] * of.share(c) * of.at(c).second;
  }
}

// A weighted sum of losses, [1] each: what has no dimension would come back as a number, not a tensor.
OPERATOR(weighted_sum(float weights{TERMS}), float values{weights}[1] -> float out[1], grid(weighted_sum, 1, 1, 1))
OPERATOR(weighted_sum_gradient(float weights{TERMS}),
         float grad_out[1] -> float grad_values{weights}[1], grid(weighted_sum_gradient, 1, 1, 1))

template <class T, int W> __device__ void weighted_sum(const WeightedSum &a) {
  if (threadIdx.x || threadIdx.y) return;
  float sum = 0;
  for (int k = 0; k < a.weights_count; k++) sum += a.weights[k] * *a.values[k];
  *a.out = sum;
}

template <class T, int W> __device__ void weighted_sum_gradient(const WeightedSumGradient &a) {
  int k = threadIdx.y * LANES + threadIdx.x;
  if (k < a.weights_count) *a.grad_values[k] = a.weights[k] * *a.grad_out;
}

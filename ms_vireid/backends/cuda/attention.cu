// Split the fused projection into queries, keys and values of all heads; merge heads; softmax; and their gradients.
// Each sample's rows of zeros, from `tokens` to `padded`, make products of rows that are packs of 16 bytes.
#define APART(name) T name[samples, heads, padded, width]

// Queries are scaled.
OPERATOR(split_heads(int heads, int padded, width = columns / (3 * heads), float scale = 1 / sqrtf(width)),
         T joined[samples, tokens, columns] T bias[columns] -> APART(query) APART(key) APART(value),
         over_columns(split_heads, packs(width, joined, query, key, value), samples * padded, columns))
OPERATOR(split_heads_gradient(int tokens, columns = 3 * heads * width, count = parts_of(samples * tokens),
                              float scale = 1 / sqrtf(width)),
         APART(grad_query) APART(grad_key) APART(grad_value)
         -> T grad_joined[samples, tokens, columns] float bias_parts[count, columns],
         over_columns(split_heads_gradient, packs(width, grad_query, grad_key, grad_value, grad_joined),
                      samples * tokens, columns))
OPERATOR(merge_heads(int tokens, columns = heads * width),
         APART(apart) -> T merged[samples, tokens, columns],
         over_columns(merge_heads, packs(width, apart, merged), samples * tokens, columns))
OPERATOR(merge_heads_gradient(int heads, int padded, width = columns / heads),
         T grad_merged[samples, tokens, columns] -> APART(grad_apart),
         over_columns(merge_heads_gradient, packs(width, grad_merged, grad_apart), samples * padded, columns))
OPERATOR(softmax(int tokens, rows = matrices * padded),
         T x[matrices.., padded, padded] -> T out[matrices.., padded, padded],
         padded > MOST_TOKENS ? over_rows(softmax_long, packs(padded, x, out), rows)
                              : over_rows(softmax, packs(padded, x, out), rows))
OPERATOR(softmax_gradient(int tokens, rows = matrices * padded),
         T grad_out[matrices.., padded, padded] T out[matrices.., padded, padded]
         -> T grad_x[matrices.., padded, padded],
         padded > MOST_TOKENS ? over_rows(softmax_gradient_long, packs(padded, grad_out, out, grad_x), rows)
                              : over_rows(softmax_gradient, packs(padded, grad_out, out, grad_x), rows))

template <class Data>
struct Columns {  // columns of the joined queries, keys and values
  Data data;
  int head, column;
  float scale;
  template <class Arguments> __device__ Columns(const Arguments &a, int first, Data query, Data key, Data value) {
    int width = a.heads * a.width, which = first / width;
    data = which == 0 ? query : which == 1 ? key : value;
    head = first % width / a.width, column = first % a.width, scale = which == 0 ? a.scale : 1;
  }
};

struct Position {  // a row of `each` a sample
  int sample, token;
  __device__ Position(int row, int each) : sample(row / each), token(row % each) {}
  template <class Arguments> __device__ long long joined(const Arguments &a, int columns) const {
    return (static_cast<long long>(sample) * a.tokens + token) * columns;
  }
  template <class Arguments> __device__ long long apart(const Arguments &a, int head) const {
    return ((static_cast<long long>(sample) * a.heads + head) * a.padded + token) * a.width;
  }
};

template <class T, int W> __device__ void split_heads(const SplitHeads &a) {
  int first = first_column<W>(), columns = a.columns;
  if (first >= columns) return;
  Columns<void *> place(a, first, a.query, a.key, a.value);
  float bias[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.samples * a.padded) {
    Position position(row, a.padded);
    Pack<T, W> pack = {};
    if (position.token < a.tokens) {
      pack = load<T, W>(a.joined, position.joined(a, columns) + first);
      EACH(j, W) pack.v[j] = rounded<T>((number(pack.v[j]) + bias[j]) * place.scale);
    }
    store(place.data, position.apart(a, place.head) + place.column, pack);
  }
}

template <class T, int W> __device__ void split_heads_gradient(const SplitHeadsGradient &a) {
  int first = first_column<W>(), columns = a.columns;
  float sums[W] = {};
  if (first < columns) {
    Columns<const void *> place(a, first, a.grad_query, a.grad_key, a.grad_value);
    EACH_ROW(row, a.samples * a.tokens) {
      Position position(row, a.tokens);
      Pack<T, W> pack = load<T, W>(place.data, position.apart(a, place.head) + place.column);
      EACH(j, W) {
        pack.v[j] = rounded<T>(number(pack.v[j]) * place.scale);
        sums[j] += number(pack.v[j]);
      }
      store(a.grad_joined, position.joined(a, columns) + first, pack);
    }
  }
  sum_block<W>(sums, a.bias_parts, first, columns);
}

template <class T, int W> __device__ void merge_heads(const MergeHeads &a) {
  int first = first_column<W>(), columns = a.columns;
  if (first >= columns) return;
  int head = first / a.width, column = first % a.width;
  EACH_ROW(row, a.samples * a.tokens) {
    Position position(row, a.tokens);
    Pack<T, W> pack = load<T, W>(a.apart, position.apart(a, head) + column);
    store(a.merged, position.joined(a, columns) + first, pack);
  }
}

template <class T, int W> __device__ void merge_heads_gradient(const MergeHeadsGradient &a) {
  int first = first_column<W>(), columns = a.columns;
  if (first >= columns) return;
  int head = first / a.width, column = first % a.width;
  EACH_ROW(row, a.samples * a.padded) {
    Position position(row, a.padded);
    Pack<T, W> pack = {};
    if (position.token < a.tokens) pack = load<T, W>(a.grad_merged, position.joined(a, columns) + first);
    store(a.grad_apart, position.apart(a, head) + column, pack);
  }
}

// e^(x - max) / its sum over the tokens of a row, one warp a row. Powers of a long row are computed again.
template <class T, int W, class Packs> __device__ void softmax_of(const Softmax &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.padded;
    bool filled = row % a.padded < a.tokens;  // the same for all lanes
    int tokens = filled ? a.tokens : 0;
    Packs x(a.x, start, tokens);
    float powers[Packs::PACKS][W] = {}, most = LEAST, sum = 0;
    auto power = [&](int i, int j) { return Packs::column(i) + j < tokens ? expf(number(x[i].v[j]) - most) : 0; };
    EACH_PACK(i, Packs, tokens)
      for (int j = 0; j < W; j++)
        if (Packs::column(i) + j < tokens) most = fmaxf(most, number(x[i].v[j]));
    most = max_warp(most);
    EACH_PACK(i, Packs, tokens)
      for (int j = 0; j < W; j++) {
        float value = power(i, j);
        if (!Packs::LONG) powers[i][j] = value;
        sum += value;
      }
    sum = sum_warp(sum);
    float factor = filled ? 1 / sum : 0;
    EACH_PACK(i, Packs, a.padded) {
      Pack<T, W> pack;
      for (int j = 0; j < W; j++) pack.v[j] = rounded<T>((Packs::LONG ? power(i, j) : powers[i][j]) * factor);
      store(a.out, start + Packs::column(i), pack);
    }
  }
}
template <class T, int W> __device__ void softmax(const Softmax &a) { softmax_of<T, W, Row<T, W, MOST_TOKENS>>(a); }
template <class T, int W> __device__ void softmax_long(const Softmax &a) { softmax_of<T, W, LongRow<T, W>>(a); }

// out (grad_out - <grad_out, out>), out being the softmax.
template <class T, int W, class Packs> __device__ void softmax_gradient_of(const SoftmaxGradient &a) {
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.padded;
    bool filled = row % a.padded < a.tokens;
    Packs y(a.out, start, filled ? a.padded : 0), gradient(a.grad_out, start, filled ? a.padded : 0);
    float product = 0;
    EACH_PACK(i, Packs, a.padded)
      for (int j = 0; j < W; j++) product += filled ? number(gradient[i].v[j]) * number(y[i].v[j]) : 0;
    product = sum_warp(product);
    EACH_PACK(i, Packs, a.padded) {
      Pack<T, W> pack;
      for (int j = 0; j < W; j++) {
        float difference = number(gradient[i].v[j]) - product;
        pack.v[j] = rounded<T>(filled ? difference * number(y[i].v[j]) : 0);
      }
      store(a.grad_x, start + Packs::column(i), pack);
    }
  }
}
template <class T, int W>
__device__ void softmax_gradient(const SoftmaxGradient &a) { softmax_gradient_of<T, W, Row<T, W, MOST_TOKENS>>(a); }
template <class T, int W>
__device__ void softmax_gradient_long(const SoftmaxGradient &a) { softmax_gradient_of<T, W, LongRow<T, W>>(a); }

// Split the fused projection into queries, keys and values of all heads; merge heads; softmax; and their gradients.
// Each sample's rows of zeros, from `tokens` to `padded`, make products of rows that are packs of 16 bytes.
struct Columns {  // columns of the joined queries, keys and values
  void *data;
  int head, column;
  float scale;
  __device__ Columns(const Heads &a, int first) {
    int width = a.heads * a.width, which = first / width;
    data = which == 0 ? a.query : which == 1 ? a.key : a.value;
    head = first % width / a.width, column = first % a.width, scale = which == 0 ? a.scale : 1;
  }
};

struct Position {  // a row of `each` a sample
  int sample, token;
  __device__ Position(int row, int each) : sample(row / each), token(row % each) {}
  template <class Arguments>
  __device__ long long joined(const Arguments &a, int columns) const {
    return (static_cast<long long>(sample) * a.tokens + token) * columns;
  }
  template <class Arguments>
  __device__ long long apart(const Arguments &a, int head) const {
    return ((static_cast<long long>(sample) * a.heads + head) * a.padded + token) * a.width;
  }
};

template <class T, int W>
__device__ void split_heads(const Heads &a) {
  int first = first_column<W>(), columns = 3 * a.heads * a.width;
  if (first >= columns) return;
  Columns place(a, first);
  float bias[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.samples * a.padded) {
    Position position(row, a.padded);
    Pack<T, W> pack = {};
    if (position.token < a.tokens) {
      pack = load<T, W>(a.joined, position.joined(a, columns) + first);
#pragma unroll
      for (int j = 0; j < W; j++) pack.v[j] = rounded<T>((number(pack.v[j]) + bias[j]) * place.scale);
    }
    store(place.data, position.apart(a, place.head) + place.column, pack);
  }
}
ENTRIES(split_heads, Heads)

template <class T, int W>
__device__ void split_heads_gradient(const Heads &a) {
  int first = first_column<W>(), columns = 3 * a.heads * a.width;
  float sums[W] = {};
  if (first < columns) {
    Columns place(a, first);
    EACH_ROW(row, a.samples * a.tokens) {
      Position position(row, a.tokens);
      Pack<T, W> pack = load<T, W>(place.data, position.apart(a, place.head) + place.column);
#pragma unroll
      for (int j = 0; j < W; j++) {
        pack.v[j] = rounded<T>(number(pack.v[j]) * place.scale);
        sums[j] += number(pack.v[j]);
      }
      store(a.joined, position.joined(a, columns) + first, pack);
    }
  }
  sum_block<W>(sums, a.parts, first, columns);
}
ENTRIES(split_heads_gradient, Heads)

template <class T, int W>
__device__ void merge_heads(const Merge &a) {
  int first = first_column<W>(), columns = a.heads * a.width;
  if (first >= columns) return;
  int head = first / a.width, column = first % a.width;
  EACH_ROW(row, a.samples * a.tokens) {
    Position position(row, a.tokens);
    Pack<T, W> pack = load<T, W>(a.split, position.apart(a, head) + column);
    store(a.merged, position.joined(a, columns) + first, pack);
  }
}
ENTRIES(merge_heads, Merge)

template <class T, int W>
__device__ void merge_heads_gradient(const Merge &a) {
  int first = first_column<W>(), columns = a.heads * a.width;
  if (first >= columns) return;
  int head = first / a.width, column = first % a.width;
  EACH_ROW(row, a.samples * a.padded) {
    Position position(row, a.padded);
    Pack<T, W> pack = {};
    if (position.token < a.tokens) pack = load<T, W>(a.merged, position.joined(a, columns) + first);
    store(a.split, position.apart(a, head) + column, pack);
  }
}
ENTRIES(merge_heads_gradient, Merge)

// e^(x - max) / its sum over the tokens of a row, one warp a row.
template <class T, int W>
__device__ void softmax(const Softmax &a) {
  using Packs = Row<T, W, MOST_TOKENS>;
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.padded;
    bool filled = row % a.padded < a.tokens;  // the same for all lanes
    int tokens = filled ? a.tokens : 0;
    Packs x(a.x, start, tokens);
    float powers[Packs::PACKS][W] = {}, most = LEAST, sum = 0;
    EACH_PACK(i, Packs, tokens)
      for (int j = 0; j < W; j++)
        if (Packs::column(i) + j < tokens) most = fmaxf(most, number(x.packs[i].v[j]));
    most = max_warp(most);
    EACH_PACK(i, Packs, tokens)
      for (int j = 0; j < W; j++) {
        if (Packs::column(i) + j < tokens) powers[i][j] = expf(number(x.packs[i].v[j]) - most);
        sum += powers[i][j];
      }
    sum = sum_warp(sum);
    float factor = filled ? 1 / sum : 0;
    EACH_PACK(i, Packs, a.padded) {
      Pack<T, W> pack;
      for (int j = 0; j < W; j++) pack.v[j] = rounded<T>(powers[i][j] * factor);
      store(a.out, start + Packs::column(i), pack);
    }
  }
}
ENTRIES(softmax, Softmax)

// y (gradient - <gradient, y>), y being the softmax.
template <class T, int W>
__device__ void softmax_gradient(const Softmax &a) {
  using Packs = Row<T, W, MOST_TOKENS>;
  EACH_ROW(row, a.rows) {
    long long start = static_cast<long long>(row) * a.padded;
    bool filled = row % a.padded < a.tokens;
    Packs y(a.x, start, filled ? a.padded : 0), gradient(a.gradient, start, filled ? a.padded : 0);
    float product = 0;
    EACH_PACK(i, Packs, a.padded)
      for (int j = 0; j < W; j++) product += filled ? number(gradient.packs[i].v[j]) * number(y.packs[i].v[j]) : 0;
    product = sum_warp(product);
    EACH_PACK(i, Packs, a.padded) {
      Pack<T, W> pack;
      for (int j = 0; j < W; j++) {
        float difference = number(gradient.packs[i].v[j]) - product;
        pack.v[j] = rounded<T>(filled ? difference * number(y.packs[i].v[j]) : 0);
      }
      store(a.out, start + Packs::column(i), pack);
    }
  }
}
ENTRIES(softmax_gradient, Softmax)

// Split the fused projection into queries, keys and values of all heads; merge heads; softmax's gradient.
struct Columns {  // columns of the joined queries, keys and values
  void *data;
  int head, column;
  float scale;
  __device__ Columns(const Heads &a, int first) {
    int width = a.heads * a.width, which = first / width;
    data = which == 0 ? a.query : which == 1 ? a.key : a.value;
    head = first % width / a.width, column = first % a.width, scale = which == 0 ? a.scale : 1;
  }
  __device__ long long element(const Heads &a, int row) const {
    long long sample = row / a.tokens;
    return ((sample * a.heads + head) * a.tokens + row % a.tokens) * a.width + column;
  }
};

template <class T, int W>
__device__ void split_heads(const Heads &a) {
  int first = first_column<W>(), columns = 3 * a.heads * a.width;
  if (first >= columns) return;
  Columns place(a, first);
  float bias[W];
  load_floats<T, W>(a.bias, first, bias);
  EACH_ROW(row, a.rows) {
    Pack<T, W> pack = load<T, W>(a.joined, static_cast<long long>(row) * columns + first);
#pragma unroll
    for (int j = 0; j < W; j++) pack.v[j] = rounded<T>((number(pack.v[j]) + bias[j]) * place.scale);
    store(place.data, place.element(a, row), pack);
  }
}
ENTRIES(split_heads, Heads)

template <class T, int W>
__device__ void split_heads_gradient(const Heads &a) {
  int first = first_column<W>(), columns = 3 * a.heads * a.width;
  float sums[W] = {};
  if (first < columns) {
    Columns place(a, first);
    EACH_ROW(row, a.rows) {
      Pack<T, W> pack = load<T, W>(place.data, place.element(a, row));
#pragma unroll
      for (int j = 0; j < W; j++) {
        pack.v[j] = rounded<T>(number(pack.v[j]) * place.scale);
        sums[j] += number(pack.v[j]);
      }
      store(a.joined, static_cast<long long>(row) * columns + first, pack);
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
  EACH_ROW(row, a.rows) {
    long long sample = row / a.tokens;
    long long split = ((sample * a.heads + head) * a.tokens + row % a.tokens) * a.width + column;
    long long merged = static_cast<long long>(row) * columns + first;
    if (a.merges) store(a.merged, merged, load<T, W>(a.split, split));
    else store(a.split, split, load<T, W>(a.merged, merged));
  }
}
ENTRIES(merge_heads, Merge)

// y (gradient - <gradient, y>), one warp per row.
template <class T, int W>
__device__ void softmax_gradient(const Softmax &a) {
  long long row = static_cast<long long>(blockIdx.x) * ROWS + threadIdx.y;
  if (row >= a.rows) return;  // the whole warp
  long long start = row * a.columns;
  constexpr int KEPT = 8;  // columns of a lane that stay in registers
  float gradient[KEPT], y[KEPT], product = 0;
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    int column = threadIdx.x + LANES * i;
    gradient[i] = column < a.columns ? at<T>(a.gradient, start + column) : 0;
    y[i] = column < a.columns ? at<T>(a.y, start + column) : 0;
    product += gradient[i] * y[i];
  }
  for (int column = threadIdx.x + LANES * KEPT; column < a.columns; column += LANES)
    product += at<T>(a.gradient, start + column) * at<T>(a.y, start + column);
  product = sum_warp(product);
  T *out = static_cast<T *>(a.out);
#pragma unroll
  for (int i = 0; i < KEPT; i++) {
    int column = threadIdx.x + LANES * i;
    if (column < a.columns) out[start + column] = rounded<T>((gradient[i] - product) * y[i]);
  }
  for (int column = threadIdx.x + LANES * KEPT; column < a.columns; column += LANES)
    out[start + column] = rounded<T>((at<T>(a.gradient, start + column) - product) * at<T>(a.y, start + column));
}
ENTRIES(softmax_gradient, Softmax)

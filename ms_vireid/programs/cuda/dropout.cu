// Dropout, and its gradient, which is the same.
template <class T, int W>
__device__ void dropout(const Dropout &a) {
  int first = first_column<W>();
  if (first >= a.columns) return;
  Mask<W> mask(a.masks, first);
  float factors[W];
  EACH_ROW(row, a.rows) {
    long long place = static_cast<long long>(row) * a.columns + first;
    Pack<T, W> pack = load<T, W>(a.x, place);
    mask.row(row, factors);
#pragma unroll
    for (int j = 0; j < W; j++) pack.v[j] = rounded<T>(factors[j] == 0 ? 0 : number(pack.v[j]) * factors[j]);
    store(a.out, place, pack);
  }
}
ENTRIES(dropout, Dropout)

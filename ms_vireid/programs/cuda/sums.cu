// Add up the partial sums of columns, in the same order in every run: the gradient of a bias.
template <class T, int W>
__device__ void sum_parts(const Sum &a) {
  int column = (blockIdx.x * ROWS + threadIdx.y) * LANES + threadIdx.x;
  if (column >= a.columns) return;
  float total = 0;
  for (int part = 0; part < a.count; part++) total += a.parts[static_cast<long long>(part) * a.columns + column];
  static_cast<T *>(a.out)[column] = rounded<T>(total);
}
ENTRIES(sum_parts, Sum)

// Add up the partial sums of columns, in the same order in every run: the gradient of a bias.
template <class T, int W>
__device__ void sum_parts(const Sum &a) {
  int column = blockIdx.x * LANES + threadIdx.x;
  const float *parts = a.parts + static_cast<long long>(blockIdx.y) * a.count * a.columns + column;
  float total = 0;
  if (column < a.columns)
#pragma unroll 4
    for (int part = threadIdx.y; part < a.count; part += ROWS) total += parts[static_cast<long long>(part) * a.columns];
  add_rows<1>(&total);
  if (!threadIdx.y && column < a.columns) static_cast<T *>(blockIdx.y ? a.second : a.out)[column] = rounded<T>(total);
}
ENTRIES(sum_parts, Sum)

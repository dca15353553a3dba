// Gradients of vectors, from partial sums of columns: added up in the same order in every run, all of a block's by one
// launch. like: any tensor of the gradients' type.
OPERATOR(sums(int widths{VECTORS}),
         T like[length..] float parts{widths}[count, widths[k]] -> T out{widths}[widths[k]],
         grid(sums, 1, blocks(most(widths, widths_count), LANES), widths_count))
KERNEL(sum_parts(int count, int columns), float parts -> T out)

template <class T> __device__ void sum_column(const float *parts, int count, int columns, void *out) {
  int column = blockIdx.x * LANES + threadIdx.x;
  float total = 0;
  if (column < columns)
#pragma unroll 4
    for (int part = threadIdx.y; part < count; part += ROWS)
      total += parts[static_cast<long long>(part) * columns + column];
  add_rows<1>(&total);
  if (!threadIdx.y && column < columns) static_cast<T *>(out)[column] = rounded<T>(total);
}
template <class T, int W> __device__ void sums(const Sums &a) {
  int k = blockIdx.y;
  if (blockIdx.x * LANES < a.widths[k]) sum_column<T>(a.parts[k], a.count, a.widths[k], a.out[k]);
}
template <class T, int W>
__device__ void sum_parts(const SumParts &a) { sum_column<T>(a.parts, a.count, a.columns, a.out); }

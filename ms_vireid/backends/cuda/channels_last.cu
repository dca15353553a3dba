// Weights of convolutions in the order of maps, [outputs, inputs, size, size] -> [outputs, size, size, inputs], and their
// gradients back again: all of them in one launch.
#define CONVOLUTIONS_OF int rows{CONVOLUTIONS}, int columns{CONVOLUTIONS}, int sizes{CONVOLUTIONS}
OPERATOR(channels_last(CONVOLUTIONS_OF),
         T weight{columns}[rows[k], columns[k], sizes[k], sizes[k]]
         -> T out{columns}[rows[k], sizes[k], sizes[k], columns[k]],
         most(sizes, sizes_count) > LARGEST_SIZE ? refuse(call, "too large a size")
         : grid(channels_last, 1, min(BLOCKS, most(rows, rows_count)), rows_count))
OPERATOR(channels_last_gradient(CONVOLUTIONS_OF),
         T grad_out{columns}[rows[k], sizes[k], sizes[k], columns[k]]
         -> T grad_weight{columns}[rows[k], columns[k], sizes[k], sizes[k]],
         most(sizes, sizes_count) > LARGEST_SIZE ? refuse(call, "too large a size")
         : grid(channels_first, 1, min(BLOCKS, most(rows, rows_count)), rows_count))
KERNEL(channels_first(CONVOLUTIONS_OF), T grad_out{columns} -> T grad_weight{columns})

// [rows, inputs, places] -> [rows, places, inputs], or back: a block takes as many inputs of a row as fit its memory.
template <class T, bool BACK>
__device__ void turn(const void *from, void *to, int rows, int inputs, int places) {
  __shared__ T shared[WEIGHTS];
  int each = min(inputs, WEIGHTS / places), thread = threadIdx.y * LANES + threadIdx.x;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    long long start = static_cast<long long>(row) * inputs * places;
    for (int first = 0; first < inputs; first += each) {
      int some = min(each, inputs - first);
      const T *read = static_cast<const T *>(from) + start;
      T *written = static_cast<T *>(to) + start;
      __syncthreads();
      for (int i = thread; i < some * places; i += LANES * ROWS)
        shared[i] = BACK ? read[static_cast<long long>(i / some) * inputs + first + i % some] : read[first * places + i];
      __syncthreads();
      for (int i = thread; i < some * places; i += LANES * ROWS) {
        if (BACK) written[first * places + i] = shared[i % places * some + i / places];
        else written[static_cast<long long>(i / some) * inputs + first + i % some] = shared[i % some * places + i / some];
      }
    }
  }
}

template <class T, int W> __device__ void channels_last(const ChannelsLast &a) {
  int k = blockIdx.y;
  turn<T, false>(a.weight[k], a.out[k], a.rows[k], a.columns[k], a.sizes[k] * a.sizes[k]);
}
template <class T, int W> __device__ void channels_first(const ChannelsFirst &a) {
  int k = blockIdx.y;
  turn<T, true>(a.grad_out[k], a.grad_weight[k], a.rows[k], a.columns[k], a.sizes[k] * a.sizes[k]);
}

// Shared by the kernels: float and half in packs of 16 bytes, float arithmetic, masks, sums of columns.
#ifdef __CUDACC_RTC__
struct Half {
  unsigned short bits;
};
__device__ inline float number(Half x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
}
__device__ inline Half half_of(float x) {
  Half value;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
  return value;
}
#endif

__device__ inline float number(float x) { return x; }
template <class T>
__device__ inline T rounded(float x);
template <>
__device__ inline float rounded<float>(float x) { return x; }
template <>
__device__ inline Half rounded<Half>(float x) { return half_of(x); }

template <class T, int W>
struct alignas(W * sizeof(T)) Pack {
  T v[W];
};
template <class T, int W>
__device__ inline Pack<T, W> load(const void *data, long long element) {
  return *reinterpret_cast<const Pack<T, W> *>(static_cast<const T *>(data) + element);
}
template <class T, int W>
__device__ inline void store(void *data, long long element, const Pack<T, W> &pack) {
  *reinterpret_cast<Pack<T, W> *>(static_cast<T *>(data) + element) = pack;
}
template <class T>
__device__ inline float at(const void *data, long long element) { return number(static_cast<const T *>(data)[element]); }
template <class T, int W>
__device__ inline void load_floats(const void *data, int first, float *values) {
#pragma unroll
  for (int j = 0; j < W; j++) values[j] = at<T>(data, first + j);
}

// A layer's dropout mask of W neighbouring columns, for a block's rows.
template <int W>
struct Mask {
  const int *noise, *row_starts;
  int width, column, limit;
  unsigned column_starts[W], multiplier;
  float scale;
  bool drops;

  __device__ Mask(const Masks &masks, int first) : drops(masks.layer) {
    if (!drops) return;
    noise = masks.noise, row_starts = masks.row_starts, width = masks.width, column = first % width;
    multiplier = masks.multipliers[masks.layer[0] + first / width];
    limit = masks.layer[1], scale = __int_as_float(masks.layer[2]);
    if (noise) return;
#pragma unroll
    for (int j = 0; j < W; j++) column_starts[j] = masks.column_starts[column + j];
  }
  // For each column `scale`, or 0 where it is dropped.
  __device__ void row(int number, float *factors) const {
    unsigned values[W];
    if (drops && noise) load_noise(number, values);
    if (drops && !noise) {
#pragma unroll
      for (int j = 0; j < W; j++) values[j] = hashed(row_starts[number] + column_starts[j]);
    }
#pragma unroll
    for (int j = 0; j < W; j++)
      factors[j] = !drops ? 1 : static_cast<int>(values[j] * multiplier) < limit ? 0 : scale;
  }
  __device__ void load_noise(int number, unsigned *values) const {
    constexpr int P = W < 4 ? W : 4;  // 16 bytes each
#pragma unroll
    for (int k = 0; k < W / P; k++) {
      Pack<int, P> pack = load<int, P>(noise, static_cast<long long>(number) * width + column + k * P);
#pragma unroll
      for (int j = 0; j < P; j++) values[k * P + j] = pack.v[j];
    }
  }
  // ms_vireid/models/noise.py
  __device__ static unsigned hashed(unsigned x) {
    x *= 0x85EBCA6Bu;
    x = (x ^ x >> 15) * 0xC2B2AE35u;
    return x ^ x >> 16;
  }
};

// Each thread's first column of W, and its rows.
template <int W>
__device__ inline int first_column() { return (blockIdx.x * LANES + threadIdx.x) * W; }
#define EACH_ROW(row, rows) for (int row = blockIdx.y * ROWS + threadIdx.y; row < rows; row += gridDim.y * ROWS)

// Add up W columns over the rows of a block, always in the same order. The sums are those of the block's first row.
template <int W>
__device__ void add_rows(float *sums) {
  __shared__ float shared[ROWS][LANES][W + (W > 1)];
  __syncthreads();
#pragma unroll
  for (int j = 0; j < W; j++) shared[threadIdx.y][threadIdx.x][j] = sums[j];
  __syncthreads();
#pragma unroll
  for (int j = 0; j < W; j++) {
    sums[j] = 0;
    for (int y = 0; y < ROWS; y++) sums[j] += shared[y][threadIdx.x][j];
  }
}

// The same into the block's row of `parts`.
template <int W>
__device__ void sum_block(float *sums, float *parts, int first, int columns) {
  add_rows<W>(sums);
  if (threadIdx.y || first >= columns) return;
#pragma unroll
  for (int j = 0; j < W; j++) parts[static_cast<long long>(blockIdx.y) * columns + first + j] = sums[j];
}

// A row of at most MOST columns in the registers of a warp: each lane holds every 32nd pack.
template <class T, int W, int MOST>
struct Row {
  static constexpr int PACKS = MOST / (LANES * W);
  Pack<T, W> packs[PACKS];

  __device__ Row(const void *data, long long start, int columns) {
#pragma unroll
    for (int i = 0; i < PACKS; i++)
      if (column(i) < columns) packs[i] = load<T, W>(data, start + column(i));
  }
  __device__ static int column(int i) { return (LANES * i + threadIdx.x) * W; }
};
#define EACH_PACK(i, Row, columns)              \
  _Pragma("unroll") for (int i = 0; i < Row::PACKS; i++) if (Row::column(i) < columns)

__device__ inline float sum_warp(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
  return x;
}
__device__ inline float max_warp(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  return x;
}
constexpr float LEAST = -3.402823466e38f;  // of finite numbers

// A kernel's entry points: for float and half, in packs of 16 bytes, and one by one for other widths and addresses.
#ifdef __CUDACC_RTC__
#define ENTRY(name, T, W, Arguments, function) \
  extern "C" __global__ void name(const Arguments a) { function<T, W>(a); }
#else
#define ENTRY(name, T, W, Arguments, function)                     \
  extern "C" void name(const Arguments *a) { function<T, W>(*a); } \
  extern "C" const unsigned name##_bytes = sizeof(Arguments);
#endif
#define ENTRIES(kernel, Arguments)                          \
  ENTRY(kernel##_float_4, float, 4, Arguments, kernel)      \
  ENTRY(kernel##_float_1, float, 1, Arguments, kernel)      \
  ENTRY(kernel##_half_8, Half, 8, Arguments, kernel)        \
  ENTRY(kernel##_half_1, Half, 1, Arguments, kernel)
#define ENTRIES_OF_MAPS(kernel, Arguments)                  \
  ENTRIES(kernel, Arguments)                                \
  ENTRY(kernel##_float_2, float, 2, Arguments, kernel)      \
  ENTRY(kernel##_half_2, Half, 2, Arguments, kernel)

// Shared by the kernels: float and half in packs of 16 bytes, float arithmetic, masks, sums of columns.

// For declarations.py, which reads what kernels take and how they are launched, and generates their arguments.
#define OPERATOR(...)
#define KERNEL(...)
#define MAP(name) name[samples, height, width, channels]
#define PLACES_OF_MAP places = samples * height * width
#define MAP_PARTS max(1, min(min(PARTS, blocks(SUMMED, channels)), samples * height * width / PLACES))
// A block takes `across` packs of channels, `strips` of them a map.
#define STRIPS across = min(LANES, channels / pack), strips = blocks(channels / pack, across)
// The same, but a map of few places and many channels is `whole`: a block takes one pack of channels of all its places.
#define WHOLE_STRIPS whole = places <= WHOLE && channels / pack >= LANES, \
                     across = whole ? 1 : min(LANES, channels / pack), strips = blocks(channels / pack, across)

#define EACH(i, count) _Pragma("unroll") for (int i = 0; i < count; i++)

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
template <class T> __device__ inline T rounded(float x);
template <> __device__ inline float rounded<float>(float x) { return x; }
template <> __device__ inline Half rounded<Half>(float x) { return half_of(x); }

template <class T, int W>
struct alignas(W * sizeof(T)) Pack {
  T v[W];
};
template <class T, int W> __device__ inline Pack<T, W> load(const void *data, long long element) {
  return *reinterpret_cast<const Pack<T, W> *>(static_cast<const T *>(data) + element);
}
template <class T, int W> __device__ inline void store(void *data, long long element, const Pack<T, W> &pack) {
  *reinterpret_cast<Pack<T, W> *>(static_cast<T *>(data) + element) = pack;
}
template <class T>
__device__ inline float at(const void *data, long long element) { return number(static_cast<const T *>(data)[element]); }
template <class T, int W> __device__ inline void load_floats(const void *data, int first, float *values) {
  EACH(j, W) values[j] = at<T>(data, first + j);
}

// A layer's dropout masks: noise, or what its hash starts from, and a number for each mask, by which the noise is
// multiplied; an element is dropped where that is below the number `limit`, and the others times `scale`. No mask if all
// are absent. `unit`: columns of a mask.
#define MASKS int noise?[rows.., unit] int row_starts?[rows] int column_starts?[unit] int multipliers?[columns / unit]
#define MASKED_PACKS unit ? unit : columns

// One of W neighbouring columns, for a block's rows.
template <int W>
struct Mask {
  const int *noise, *row_starts;
  int width, column, limit;
  unsigned column_starts[W], multiplier;
  float scale;
  bool drops;

  template <class Arguments> __device__ Mask(const Arguments &a, int first) : drops(a.multipliers) {
    if (!drops) return;
    noise = a.noise, row_starts = a.row_starts, width = a.unit, column = first % width;
    multiplier = a.multipliers[first / width], limit = a.limit, scale = a.scale;
    if (noise) return;
    EACH(j, W) column_starts[j] = a.column_starts[column + j];
  }
  // For each column `scale`, or 0 where it is dropped.
  __device__ void row(int number, float *factors) const {
    unsigned values[W];
    if (drops && noise) load_noise(number, values);
    if (drops && !noise) {
      EACH(j, W) values[j] = hashed(row_starts[number] + column_starts[j]);
    }
    EACH(j, W)
      factors[j] = !drops ? 1 : static_cast<int>(values[j] * multiplier) < limit ? 0 : scale;
  }
  __device__ void load_noise(int number, unsigned *values) const {
    constexpr int P = W < 4 ? W : 4;  // 16 bytes each
    EACH(k, W / P) {
      Pack<int, P> pack = load<int, P>(noise, static_cast<long long>(number) * width + column + k * P);
      EACH(j, P) values[k * P + j] = pack.v[j];
    }
  }
  // ms_vireid/models/noise.py
  __device__ static unsigned hashed(unsigned x) {
    x *= 0x85EBCA6Bu;
    x = (x ^ x >> 15) * 0xC2B2AE35u;
    return x ^ x >> 16;
  }
};

// Each thread's first element of W, for `over_elements`.
template <int W> __device__ inline long long first_element() {
  return (static_cast<long long>(blockIdx.x) * LANES * ROWS + threadIdx.y * LANES + threadIdx.x) * W;
}

// Each thread's first column of W, and its rows.
template <int W> __device__ inline int first_column() { return (blockIdx.x * LANES + threadIdx.x) * W; }
#define EACH_ROW(row, rows) for (int row = blockIdx.y * ROWS + threadIdx.y; row < rows; row += gridDim.y * ROWS)

// Add up W columns over the rows of a block, always in the same order. The sums are those of the block's first row.
template <int W> __device__ void add_rows(float *sums) {
  __shared__ float shared[ROWS][LANES][W + (W > 1)];
  __syncthreads();
  EACH(j, W) shared[threadIdx.y][threadIdx.x][j] = sums[j];
  __syncthreads();
  EACH(j, W) {
    sums[j] = 0;
    for (int y = 0; y < ROWS; y++) sums[j] += shared[y][threadIdx.x][j];
  }
}

// The same into the block's row of `parts`.
template <int W> __device__ void sum_block(float *sums, float *parts, int first, int columns) {
  add_rows<W>(sums);
  if (threadIdx.y || first >= columns) return;
  EACH(j, W) parts[static_cast<long long>(blockIdx.y) * columns + first + j] = sums[j];
}

// A row of at most MOST columns in the registers of a warp: each lane holds every 32nd pack.
template <class T, int W, int MOST>
struct Row {
  static constexpr int PACKS = MOST / (LANES * W);
  static constexpr bool LONG = false;
  Pack<T, W> packs[PACKS];

  __device__ Row(const void *data, long long start, int columns) {
    EACH(i, PACKS)
      if (column(i) < columns) packs[i] = load<T, W>(data, start + column(i));
  }
  __device__ const Pack<T, W> &operator[](int i) const { return packs[i]; }
  __device__ static int column(int i) { return (LANES * i + threadIdx.x) * W; }
  __device__ static bool ends(int i, int) { return i == PACKS; }
};
// The same of any number of columns, which are read from memory each time.
template <class T, int W>
struct LongRow {
  static constexpr int PACKS = 1;  // that are kept: none
  static constexpr bool LONG = true;
  const void *data;
  long long start;

  __device__ LongRow(const void *data, long long start, int) : data(data), start(start) {}
  __device__ Pack<T, W> operator[](int i) const { return load<T, W>(data, start + column(i)); }
  __device__ static int column(int i) { return (LANES * i + threadIdx.x) * W; }
  __device__ static bool ends(int i, int columns) { return LANES * W * i >= columns; }
};
#define EACH_PACK(i, Row, columns) \
  _Pragma("unroll") for (int i = 0; !Row::ends(i, columns); i++) if (Row::column(i) < columns)

__device__ inline float sum_warp(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
  return x;
}
__device__ inline float max_warp(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  return x;
}
struct Two {
  float first, second;
};

// The sums over the block's threads, in every thread.
__device__ inline Two sum_threads(Two own) {
  __shared__ Two shared[ROWS];
  own = {sum_warp(own.first), sum_warp(own.second)};
  if (!threadIdx.x) shared[threadIdx.y] = own;
  __syncthreads();
  Two total = {0, 0};
  for (int y = 0; y < ROWS; y++) total.first += shared[y].first, total.second += shared[y].second;
  return total;
}

// A thread's W channels, and its places: a block has `lanes` places at a time, all blocks along y one after the other.
template <int W> struct Strip {
  int lane, lanes, start, channel, place, step, columns;
  bool idle;
  template <class Map> __device__ explicit Strip(const Map &map, int block = blockIdx.x) {
    int thread = threadIdx.y * LANES + threadIdx.x;
    columns = map.across * W, lanes = LANES * ROWS / map.across, lane = thread / map.across;
    start = block * columns, channel = start + thread % map.across * W;
    idle = lane >= lanes || channel >= map.channels;
    place = blockIdx.y * lanes + lane, step = gridDim.y * lanes;
  }
  __device__ int column() const { return channel - start; }
  template <class T> __device__ Pack<T, W> read(const void *data, long long place, int channels) const {
    return load<T, W>(data, place * channels + channel);
  }
};
// Places of this thread, RUN at a time, of which `k` is there if there_is(k, ...).
#define EACH_RUN(first, strip, places) for (int first = strip.place; first < places; first += RUN * strip.step)
#define THERE_IS(k, first, strip, places) (first + (k) * strip.step < places)

// The sums of a block's places for each of its channels, [columns], always in the same order: for all threads.
template <int W> __device__ const Two *sum_places(const Strip<W> &strip, const Two *own) {
  __shared__ Two shared[LANES * ROWS * W], some[LANES * ROWS], totals[LANES * W];
  int thread = threadIdx.y * LANES + threadIdx.x, columns = strip.columns, groups = LANES * ROWS / columns;
  auto add = [&](const Two *from, int first, int number, int step) {
    Two total = {0, 0};
    for (int i = first; i < number; i += step)
      total.first += from[i * columns + thread % columns].first, total.second += from[i * columns + thread % columns].second;
    return total;
  };
  __syncthreads();
  if (!strip.idle) {
    EACH(j, W) shared[strip.lane * columns + strip.column() + j] = own[j];
  }
  __syncthreads();
  if (thread < groups * columns) some[thread] = add(shared, thread / columns, strip.lanes, groups);
  __syncthreads();
  if (thread < columns) totals[thread] = add(some, 0, groups, 1);
  __syncthreads();
  return totals;
}

// The sums of all blocks' parts, [count, channels], of this thread's channels.
template <int W> __device__ void sum_of_parts(const Strip<W> &strip, const float *parts, int count, int channels, Two *sums) {
  EACH(j, W) sums[j] = {0, 0};
  if (!strip.idle)
#pragma unroll 4
    for (int part = strip.lane; part < count; part += strip.lanes)
      EACH(j, W) {
        Two of_part = reinterpret_cast<const Two *>(parts)[static_cast<long long>(part) * channels + strip.channel + j];
        sums[j].first += of_part.first, sums[j].second += of_part.second;
      }
  const Two *totals = sum_places<W>(strip, sums);
  if (!strip.idle) {
    EACH(j, W) sums[j] = totals[strip.column() + j];
  }
}

// Keep a block's sums as its part.
template <int W> __device__ void keep_part(const Strip<W> &strip, float *parts, int channels, const Two *own) {
  const Two *totals = sum_places<W>(strip, own);
  if (strip.idle || strip.lane) return;
  EACH(j, W)
    reinterpret_cast<Two *>(parts)[static_cast<long long>(blockIdx.y) * channels + strip.channel + j] =
        totals[strip.column() + j];
}

constexpr float LEAST = -3.402823466e38f, NORMAL = 1.175494351e-38f;  // of finite and of positive normal numbers
#define INFINITE __int_as_float(0x7f800000)

// An entry point of a kernel: declarations.py adds one for each type and width of packs that it is launched with.
#ifdef __CUDACC_RTC__
#define ENTRY(name, Arguments, ...) \
  extern "C" __global__ void name(const Arguments a) { __VA_ARGS__(a); }
#else
#define ENTRY(name, Arguments, ...) \
  extern "C" void name(const Arguments *a) { __VA_ARGS__(*a); }
#endif

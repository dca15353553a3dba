// The shapes of a whole are the Python function's that joins or splits; joining.c checks them.
OPERATOR(join(int axis), T pieces{..} -> T whole, join_pieces("join", pieces, whole, axis))
OPERATOR(split(int axis), T whole -> T pieces{..}, join_pieces("split", pieces, whole, axis))
// Each piece begins at a multiple of ALIGNED, with zeros between.
OPERATOR(join_aligned(), T pieces{..} -> T whole, join_rows("join", pieces, whole))
OPERATOR(join_aligned_as_float(), T pieces{..} -> float whole, join_rows("join", pieces, whole))

// Copies pieces [rows, width] side by side into a whole [rows, columns], or out of it again. A block copies neighbouring
// elements of one piece, as many as fill CHUNK bytes of the wider type.
template <class To, class From> __device__ inline To converted(From x) { return x; }
template <> __device__ inline float converted<float, Half>(Half x) { return number(x); }

// The place in the whole of a piece's element `offset` behind a block's first.
struct Places {
  long long start, columns;
  unsigned column, width;
  bool one_row;

  __device__ Places(const Join &a, int piece, long long element) : columns(a.columns), one_row(a.rows == 1) {
    long long row = one_row ? 0 : element / a.widths[piece];
    long long from_row = element - row * a.widths[piece];
    start = row * columns + a.firsts[piece] + (one_row ? from_row : 0);
    column = from_row, width = a.widths[piece];  // less than 2^31 if there are several rows
  }
  __device__ long long operator()(unsigned offset) const {
    if (one_row) return start + offset;
    unsigned rows = (column + offset) / width;
    return start + rows * columns + (column + offset - rows * width);
  }
};

// W neighbours at a time; `size` elements are the piece's, zeros follow up to `extent`.
template <class From, class To, bool SPLITS, int W>
__device__ void copy(const From *from, To *to, const Places &places, long long size, long long extent) {
  constexpr int TIMES = 4, EACH = LANES * ROWS * W;
  constexpr int ELEMENTS = CHUNK / (sizeof(From) > sizeof(To) ? sizeof(From) : sizeof(To));
  int thread = threadIdx.y * LANES + threadIdx.x;
  for (int first = thread * W; first < ELEMENTS && first < extent; first += TIMES * EACH) {
    Pack<From, W> packs[TIMES];
    EACH(k, TIMES) {
      int offset = first + k * EACH;
      const From *source = from + (SPLITS ? places(offset) : offset);
      if (offset + W <= size) packs[k] = *reinterpret_cast<const Pack<From, W> *>(source);
      else
        EACH(j, W) packs[k].v[j] = offset + j < size ? source[j] : From();
    }
    EACH(k, TIMES) {
      int offset = first + k * EACH;
      To *target = to + (SPLITS ? offset : places(offset));
      Pack<To, W> pack;
      EACH(j, W) pack.v[j] = converted<To>(packs[k].v[j]);
      if (offset + W <= extent) *reinterpret_cast<Pack<To, W> *>(target) = pack;
      else
        EACH(j, W)
          if (offset + j < extent) target[j] = pack.v[j];
    }
  }
}

template <class Piece, class Whole, bool SPLITS> __device__ void copy_piece(const Join &a) {
  constexpr int WIDER = sizeof(Piece) > sizeof(Whole) ? sizeof(Piece) : sizeof(Whole), W = 16 / WIDER;
  int piece = 0;
  for (int last = a.count - 1; piece < last;) {  // the first that ends behind this block
    int middle = (piece + last) / 2;
    if (static_cast<int>(blockIdx.x) < a.ends[middle]) last = middle;
    else piece = middle + 1;
  }
  long long element = static_cast<long long>(blockIdx.x - (piece ? a.ends[piece - 1] : 0)) * (CHUNK / WIDER);
  long long width = a.widths[piece], first = a.firsts[piece];
  long long size = a.rows * width - element, extent = a.rows * ((width + a.unit - 1) / a.unit * a.unit) - element;
  Piece *of_piece = static_cast<Piece *>(a.pieces[piece]) + element;
  Whole *of_whole = static_cast<Whole *>(a.whole);
  Places places(a, piece, element);
  bool packs = first % W == 0 && (a.rows == 1 || (width % W == 0 && a.columns % W == 0));
  packs = packs && reinterpret_cast<unsigned long long>(a.whole) % 16 == 0 &&
          reinterpret_cast<unsigned long long>(a.pieces[piece]) % 16 == 0;
  if constexpr (SPLITS) {
    if (packs) copy<Whole, Piece, true, W>(of_whole, of_piece, places, size, extent);
    else copy<Whole, Piece, true, 1>(of_whole, of_piece, places, size, extent);
  } else {
    if (packs) copy<Piece, Whole, false, W>(of_piece, of_whole, places, size, extent);
    else copy<Piece, Whole, false, 1>(of_piece, of_whole, places, size, extent);
  }
}

ENTRY(join_float, Join, copy_piece<float, float, false>)
ENTRY(join_half, Join, copy_piece<Half, Half, false>)
ENTRY(join_half_as_float, Join, copy_piece<Half, float, false>)
ENTRY(split_float, Join, copy_piece<float, float, true>)
ENTRY(split_half, Join, copy_piece<Half, Half, true>)

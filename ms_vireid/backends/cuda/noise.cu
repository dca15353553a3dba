// What a step's noise starts from and the factors of its residual branches: hashes of its key, as in models/noise.py. A
// branch is dropped where the hash of its layer and sample is below the layer's limit.
OPERATOR(draw_starts(rows = hashes - layers),
         int key[] int offsets[hashes] int of_samples[samples] int limits[layers, 1] float scales[layers, 1]
         -> int row_starts[rows] float factors[layers, samples],
         over_elements(draw_starts, 1, rows + layers * samples))

__device__ inline int mixed(unsigned x) {
  x = (x ^ x >> 16) * 0x85EBCA6Bu;
  x = (x ^ x >> 13) * 0xC2B2AE35u;
  return x ^ x >> 16;
}

template <class T, int W> __device__ void draw_starts(const DrawStarts &a) {
  int element = first_element<W>(), pair = element - a.rows;
  unsigned key = *a.key;
  if (element < a.rows) a.row_starts[element] = mixed(a.offsets[element] + key);
  if (pair < 0 || pair >= a.layers * a.samples) return;
  int layer = pair / a.samples;
  unsigned of_layer = mixed(a.offsets[a.rows + layer] + key);
  bool kept = mixed(a.of_samples[pair % a.samples] + of_layer) >= a.limits[layer];
  a.factors[pair] = kept ? a.scales[layer] : 0;
}

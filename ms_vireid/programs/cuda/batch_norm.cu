// BatchNorm in training: y = [ReLU](gamma (x - mean) / deviation + beta [+ rest]), with each channel's mean and standard
// deviation. A block takes a part of one channel, a warp a run of places in one sample, a lane RUN packs of it at a time:
// `run` packs a run, `runs` of them a plane. A `whole` channel is one block's, in one launch.
#define RUNS size = height * width, runs = blocks(size / pack, RUN * LANES), run = blocks(size / pack, runs), \
             whole = samples * height * width <= WHOLE

// statistics: means and 1 / deviations. momentum: of new statistics in the running averages.
OPERATOR(batch_norm(int relu, float eps, float momentum, count = CHANNEL_PARTS,
                    pack = map_packs(height * width, x, rest, y), RUNS),
         T MAP(x) float gamma[channels] float beta[channels] float &running_mean[channels]
         float &running_variance[channels] T MAP(rest?)
         -> T MAP(y) float statistics[2, channels] float parts[channels, count, 2],
         whole ? grid(batch_norm_whole, pack, channels, 1)
         : grid(batch_norm_moments(x, parts), pack, channels, count) || grid(batch_norm, pack, channels, count))
OPERATOR(batch_norm_evaluation(int relu, float eps, pack = map_packs(height * width, x, rest, y), RUNS),
         T MAP(x) float gamma[channels] float beta[channels] float running_mean[channels]
         float running_variance[channels] T MAP(rest?) -> T MAP(y),
         grid(batch_norm_evaluation, pack, channels, min(blocks(samples * runs, ROWS), blocks(BLOCKS, channels))))
// grad_y: of what follows ReLU, with y; with y absent ReLU's argument is computed again. grad_again: a second gradient of
// y, added as a sum of the type T.
OPERATOR(batch_norm_gradient(int relu, count = CHANNEL_PARTS,
                             pack = map_packs(height * width, grad_y, grad_again, x, y, grad_x, grad_rest), RUNS),
         T MAP(grad_y) T MAP(grad_again?) T MAP(x) float gamma[channels] float beta[channels]
         float statistics[2, channels] T MAP(y?)
         -> T MAP(grad_x) float parts[channels, count, 2] float grad_gamma[channels] float grad_beta[channels]
         T MAP(grad_rest?y),
         grad_again && !y ? refuse(call, "grad_again without y")
         : whole ? grid(batch_norm_gradient_whole, pack, channels, 1)
         : grid(batch_norm_gradient_sums, pack, channels, count) || grid(batch_norm_gradient, pack, channels, count))

template <class T, int W>
struct Run {
  long long first;
  int packs;  // of this lane
  template <class Arguments> __device__ Run(const Arguments &shape, int number) {
    int start = number % shape.runs * shape.run;
    long long plane = static_cast<long long>(number / shape.runs) * shape.channels + blockIdx.x;
    first = plane * shape.size + (start + threadIdx.x) * W;
    int left = min(shape.run, shape.size / W - start) - static_cast<int>(threadIdx.x);
    packs = left > 0 ? (left + LANES - 1) / LANES : 0;
  }
  __device__ long long place(int k) const { return first + k * LANES * W; }
  // All loads before the first use, so that they wait together.
  __device__ void read(const void *data, Pack<T, W> *values) const {
    EACH(k, RUN)
      if (k < packs) values[k] = load<T, W>(data, place(k));
  }
};
#define EACH_RUN(number, shape)                                                                     \
  for (int number = blockIdx.y * ROWS + threadIdx.y; number < shape.samples * shape.runs; \
       number += gridDim.y * ROWS)

// Keep the sums over the block's threads as this part's.
__device__ inline void keep_part(float *parts, Two own) {
  Two total = sum_threads(own);
  if (!threadIdx.x && !threadIdx.y) reinterpret_cast<Two *>(parts)[blockIdx.x * gridDim.y + blockIdx.y] = total;
}

// The sums over the channel's parts, in every thread.
__device__ inline Two sum_parts_of_channel(const float *parts) {
  Two total = {0, 0};
  for (unsigned i = threadIdx.x; i < gridDim.y; i += LANES) {
    Two part = reinterpret_cast<const Two *>(parts)[blockIdx.x * gridDim.y + i];
    total.first += part.first, total.second += part.second;
  }
  return {sum_warp(total.first), sum_warp(total.second)};
}

// A number near the channel's mean, which moments are taken about: the mean of one place in up to LANES samples.
template <class T, class Arguments> __device__ float near_mean(const void *x, const Arguments &shape) {
  long long sample = threadIdx.x % shape.samples;
  return sum_warp(at<T>(x, (sample * shape.channels + blockIdx.x) * shape.size + shape.size / 2)) / LANES;
}

// Sums of distances from `near_mean`, and of their squares, of this thread's places.
template <class T, int W> __device__ Two moments_of(const BatchNorm &a) {
  float origin = near_mean<T>(a.x, a), sum = 0, squares = 0;
  EACH_RUN(number_of_run, a) {
    Run<T, W> run(a, number_of_run);
    Pack<T, W> x[RUN];
    run.read(a.x, x);
    EACH(k, RUN)
      if (k < run.packs)
        EACH(j, W) {
          float distance = number(x[k].v[j]) - origin;
          sum += distance, squares += distance * distance;
        }
  }
  return {sum, squares};
}

// The same bits forward and backward.
__device__ inline float normalise(float x, float mean, float scale, float beta) { return fmaf(x - mean, scale, beta); }

template <class T, int W, class Arguments>
__device__ void normalise_channel(const Arguments &a, float mean, float inverse) {
  float scale = a.gamma[blockIdx.x] * inverse, beta = a.beta[blockIdx.x];
  EACH_RUN(number_of_run, a) {
    Run<T, W> run(a, number_of_run);
    Pack<T, W> x[RUN], rest[RUN];
    run.read(a.x, x);
    if (a.rest) run.read(a.rest, rest);
    EACH(k, RUN)
      if (k < run.packs) {
        EACH(j, W) {
          float y = normalise(number(x[k].v[j]), mean, scale, beta);
          if (a.rest) y += number(rest[k].v[j]);
          x[k].v[j] = rounded<T>(a.relu && y < 0 ? 0 : y);
        }
        store(a.y, run.place(k), x[k]);
      }
  }
}

// Normalise by the moments; update the running averages, that of variances by the unbiased one.
template <class T, int W> __device__ void normalise_by(const BatchNorm &a, Two moments) {
  int channel = blockIdx.x, count = a.samples * a.size;
  float distance = moments.first / count, mean = near_mean<T>(a.x, a) + distance;
  float variance = moments.second / count - distance * distance;
  variance = variance < 0 ? 0 : variance;
  float inverse = 1 / sqrtf(variance + a.eps);
  if (!blockIdx.y && !threadIdx.x && !threadIdx.y) {
    float momentum = a.momentum, unbiased = variance * (count > 1 ? count / (count - 1.0f) : 1);
    a.statistics[channel] = mean, a.statistics[a.channels + channel] = inverse;
    a.running_mean[channel] = (1 - momentum) * a.running_mean[channel] + momentum * mean;
    a.running_variance[channel] = (1 - momentum) * a.running_variance[channel] + momentum * unbiased;
  }
  normalise_channel<T, W>(a, mean, inverse);
}

template <class T, int W> __device__ void batch_norm_moments(const BatchNorm &a) {
  keep_part(a.parts, moments_of<T, W>(a));
}
template <class T, int W> __device__ void batch_norm(const BatchNorm &a) {
  normalise_by<T, W>(a, sum_parts_of_channel(a.parts));
}
template <class T, int W> __device__ void batch_norm_whole(const BatchNorm &a) {
  normalise_by<T, W>(a, sum_threads(moments_of<T, W>(a)));
}

// In evaluation, by the running averages.
template <class T, int W> __device__ void batch_norm_evaluation(const BatchNormEvaluation &a) {
  float inverse = 1 / sqrtf(a.running_variance[blockIdx.x] + a.eps);
  normalise_channel<T, W>(a, a.running_mean[blockIdx.x], inverse);
}

// A channel's numbers in the backward pass.
struct Normalised {
  float mean, inverse, scale, beta;
  __device__ Normalised(const BatchNormGradient &a) {
    mean = a.statistics[blockIdx.x], inverse = a.statistics[a.channels + blockIdx.x];
    scale = a.gamma[blockIdx.x] * inverse, beta = a.beta[blockIdx.x];
  }
  // Whether ReLU passes the gradient on; y is computed again.
  template <class T> __device__ bool passes(T x) const {
    return !(number(rounded<T>(normalise(number(x), mean, scale, beta))) <= 0);
  }
};

// Sums of the gradient behind ReLU, which is also the gradient of rest, and of its products with the normalised x.
template <class T, int W> __device__ Two gradients_of(const BatchNormGradient &a) {
  Normalised channel(a);
  float sum = 0, products = 0;
  EACH_RUN(number_of_run, a) {
    Run<T, W> run(a, number_of_run);
    Pack<T, W> gradient[RUN], x[RUN], y[RUN], again[RUN];
    run.read(a.grad_y, gradient), run.read(a.x, x);
    if (a.y && a.relu) run.read(a.y, y);
    if (a.grad_again) run.read(a.grad_again, again);
    EACH(k, RUN)
      if (k < run.packs) {
        EACH(j, W) {
          if (a.grad_again) gradient[k].v[j] = rounded<T>(number(gradient[k].v[j]) + number(again[k].v[j]));
          bool stops = a.relu && (a.y ? number(y[k].v[j]) <= 0 : !channel.passes(x[k].v[j]));
          if (stops) gradient[k].v[j] = rounded<T>(0);
          float g = number(gradient[k].v[j]);
          sum += g, products += g * ((number(x[k].v[j]) - channel.mean) * channel.inverse);
        }
        if (a.y) store(a.grad_rest, run.place(k), gradient[k]);
      }
  }
  return {sum, products};
}

// gamma / deviation (g - mean of g - normalised x times mean of g normalised x), g the gradient behind ReLU.
template <class T, int W> __device__ void differentiate_by(const BatchNormGradient &a, Two sums) {
  Normalised channel(a);
  const void *behind_relu = a.y ? a.grad_rest : a.grad_y;
  if (!blockIdx.y && !threadIdx.x && !threadIdx.y)
    a.grad_beta[blockIdx.x] = sums.first, a.grad_gamma[blockIdx.x] = sums.second;
  float count = a.samples * a.size, mean = sums.first / count;
  float slope = sums.second / count * channel.inverse;
  EACH_RUN(number_of_run, a) {
    Run<T, W> run(a, number_of_run);
    Pack<T, W> gradient[RUN], x[RUN];
    run.read(behind_relu, gradient), run.read(a.x, x);
    EACH(k, RUN)
      if (k < run.packs) {
        EACH(j, W) {
          float g = number(gradient[k].v[j]);
          if (a.relu && !a.y && !channel.passes(x[k].v[j])) g = 0;
          x[k].v[j] = rounded<T>(channel.scale * (g - mean - (number(x[k].v[j]) - channel.mean) * slope));
        }
        store(a.grad_x, run.place(k), x[k]);
      }
  }
}

template <class T, int W> __device__ void batch_norm_gradient_sums(const BatchNormGradient &a) {
  keep_part(a.parts, gradients_of<T, W>(a));
}
template <class T, int W> __device__ void batch_norm_gradient(const BatchNormGradient &a) {
  differentiate_by<T, W>(a, sum_parts_of_channel(a.parts));
}
template <class T, int W> __device__ void batch_norm_gradient_whole(const BatchNormGradient &a) {
  differentiate_by<T, W>(a, sum_threads(gradients_of<T, W>(a)));
}

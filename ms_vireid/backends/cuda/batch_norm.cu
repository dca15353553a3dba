// BatchNorm in training: y = [ReLU](gamma (x - mean) / deviation + beta [+ rest]), with each channel's mean and standard
// deviation over all places. One launch takes sums over parts of the places, and the next one computes with them; for a
// `whole` map one does both. x may be several maps of equal widths, which are joined along their channels as they are
// read.
#define JOINED_MAPS(name) name{widths}[samples, height, width, widths[k]]
#define OF_JOINED int widths{JOINED}, channels = widths[0] * widths_count
#define DIFFER least(widths, widths_count) != most(widths, widths_count) ? refuse(call, "maps of different widths")

// statistics: means and 1 / deviations. momentum: of new statistics in the running averages. Behind the parts of moments
// stands what they are taken about.
OPERATOR(batch_norm(int relu, float eps, float momentum, OF_JOINED, count = MAP_PARTS, PLACES_OF_MAP,
                    pack = packs(widths[0], x[0], rest, y), WHOLE_STRIPS),
         T JOINED_MAPS(x) float gamma[channels] float beta[channels] float &running_mean[channels]
         float &running_variance[channels] T MAP(rest?)
         -> T MAP(y) float statistics[2, channels] float parts[count + 1, channels, 2],
         DIFFER
         : whole ? grid(batch_norm_whole, pack, strips, 1)
         : grid(batch_norm_moments(x, parts), pack, strips, count) || over_strips(batch_norm, pack, strips, places))
OPERATOR(batch_norm_evaluation(int relu, float eps, OF_JOINED, PLACES_OF_MAP, pack = packs(widths[0], x[0], rest, y),
                               STRIPS),
         T JOINED_MAPS(x) float gamma[channels] float beta[channels] float running_mean[channels]
         float running_variance[channels] T MAP(rest?) -> T MAP(y),
         DIFFER : over_strips(batch_norm_evaluation, pack, strips, places))
// grad_y: of what follows ReLU, with y; with y absent ReLU's argument is computed again. grad_again: a second gradient of
// y, added as a sum of the type T.
OPERATOR(batch_norm_gradient(int relu, OF_JOINED, count = MAP_PARTS, PLACES_OF_MAP,
                             pack = packs(widths[0], grad_y, grad_again, x[0], y, grad_x[0], grad_rest), WHOLE_STRIPS),
         T MAP(grad_y) T MAP(grad_again?) T JOINED_MAPS(x) float gamma[channels] float beta[channels]
         float statistics[2, channels] T MAP(y?)
         -> T JOINED_MAPS(grad_x) float parts[count, channels, 2] float grad_gamma[channels] float grad_beta[channels]
         T MAP(grad_rest?y),
         DIFFER
         : grad_again && !y ? refuse(call, "grad_again without y")
         : whole ? grid(batch_norm_gradient_whole, pack, strips, 1)
         : grid(batch_norm_gradient_sums, pack, strips, count)
           || over_strips(batch_norm_gradient, pack, strips, places))

// The one of the joined maps that has a strip's channels.
template <int W> struct Joined {
  int map, width, channel;
  template <class Arguments> __device__ Joined(const Arguments &a, const Strip<W> &strip) : width(a.widths[0]) {
    map = strip.channel / width, channel = strip.channel % width;
  }
  template <class Data> __device__ Data of(Data const (&maps)[JOINED]) const {
    Data found = maps[0];
    EACH(k, JOINED)
      if (k == map) found = maps[k];
    return found;
  }
  __device__ long long element(long long place) const { return place * width + channel; }
};

// Numbers near the channels' means: the means of NEAR places.
template <class T, int W> __device__ void near_means(const BatchNorm &a, const Strip<W> &strip, float *means) {
  Two sums[W] = {};
  Joined<W> joined(a, strip);
  const void *data = joined.of(a.x);
  if (!strip.idle)
    for (int k = strip.lane; k < NEAR; k += strip.lanes) {
      Pack<T, W> x = load<T, W>(data, joined.element(static_cast<long long>(k) * a.places / NEAR));
      EACH(j, W) sums[j].first += number(x.v[j]);
    }
  const Two *totals = sum_places<W>(strip, sums);
  if (!strip.idle) {
    EACH(j, W) means[j] = totals[strip.column() + j].first / NEAR;
  }
}

// Sums of distances from `near_means`, and of their squares, of this thread's places.
template <class T, int W>
__device__ void add_moments(const BatchNorm &a, const Strip<W> &strip, float *origin, Two *sums) {
  near_means<T, W>(a, strip, origin);
  Joined<W> joined(a, strip);
  const void *data = joined.of(a.x);
  EACH(j, W) sums[j] = {0, 0};
  if (!strip.idle)
    EACH_RUN(first, strip, a.places) {
      Pack<T, W> x[RUN];
      EACH(k, RUN)
        if (THERE_IS(k, first, strip, a.places)) x[k] = load<T, W>(data, joined.element(first + k * strip.step));
      EACH(k, RUN)
        if (THERE_IS(k, first, strip, a.places))
          EACH(j, W) {
            float distance = number(x[k].v[j]) - origin[j];
            sums[j].first += distance, sums[j].second += distance * distance;
          }
    }
}
template <class T, int W> __device__ void batch_norm_moments(const BatchNorm &a) {
  Strip<W> strip(a);
  float origin[W];
  Two sums[W];
  add_moments<T, W>(a, strip, origin, sums);
  keep_part<W>(strip, a.parts, a.channels, sums);
  if (strip.idle || strip.lane || blockIdx.y) return;
  EACH(j, W) a.parts[(static_cast<long long>(a.count) * a.channels + strip.channel + j) * 2] = origin[j];
}

// The same bits forward and backward.
__device__ inline float normalise(float x, float mean, float scale, float beta) { return fmaf(x - mean, scale, beta); }

template <class T, int W, class Arguments>
__device__ void normalise_strip(const Arguments &a, const Strip<W> &strip, const float *mean, const float *inverse) {
  float scale[W], beta[W];
  EACH(j, W) scale[j] = a.gamma[strip.channel + j] * inverse[j], beta[j] = a.beta[strip.channel + j];
  Joined<W> joined(a, strip);
  const void *data = joined.of(a.x);
  EACH_RUN(first, strip, a.places) {
    Pack<T, W> x[RUN], rest[RUN];
    EACH(k, RUN)
      if (THERE_IS(k, first, strip, a.places)) {
        x[k] = load<T, W>(data, joined.element(first + k * strip.step));
        if (a.rest) rest[k] = strip.template read<T>(a.rest, first + k * strip.step, a.channels);
      }
    EACH(k, RUN)
      if (THERE_IS(k, first, strip, a.places)) {
        EACH(j, W) {
          float y = normalise(number(x[k].v[j]), mean[j], scale[j], beta[j]);
          if (a.rest) y += number(rest[k].v[j]);
          x[k].v[j] = rounded<T>(a.relu && y < 0 ? 0 : y);
        }
        store(a.y, (first + static_cast<long long>(k) * strip.step) * a.channels + strip.channel, x[k]);
      }
  }
}

// Normalise by the moments; update the running averages, that of variances by the unbiased one.
template <class T, int W>
__device__ void normalise_by(const BatchNorm &a, const Strip<W> &strip, const float *origin, const Two *moments) {
  if (strip.idle) return;
  float mean[W], inverse[W], momentum = a.momentum;
  int count = a.places;
  EACH(j, W) {
    int channel = strip.channel + j;
    float distance = moments[j].first / count, variance = moments[j].second / count - distance * distance;
    variance = variance < 0 ? 0 : variance;
    mean[j] = origin[j] + distance, inverse[j] = 1 / sqrtf(variance + a.eps);
    if (blockIdx.y || strip.lane) continue;
    float unbiased = variance * (count > 1 ? count / (count - 1.0f) : 1);
    a.statistics[channel] = mean[j], a.statistics[a.channels + channel] = inverse[j];
    a.running_mean[channel] = (1 - momentum) * a.running_mean[channel] + momentum * mean[j];
    a.running_variance[channel] = (1 - momentum) * a.running_variance[channel] + momentum * unbiased;
  }
  normalise_strip<T, W>(a, strip, mean, inverse);
}
template <class T, int W> __device__ void batch_norm(const BatchNorm &a) {
  Strip<W> strip(a);
  Two moments[W];
  sum_of_parts<W>(strip, a.parts, a.count, a.channels, moments);
  float origin[W];
  EACH(j, W)
    origin[j] = strip.idle ? 0 : a.parts[(static_cast<long long>(a.count) * a.channels + strip.channel + j) * 2];
  normalise_by<T, W>(a, strip, origin, moments);
}
template <class T, int W> __device__ void batch_norm_whole(const BatchNorm &a) {
  Strip<W> strip(a);
  float origin[W];
  Two moments[W];
  add_moments<T, W>(a, strip, origin, moments);
  const Two *totals = sum_places<W>(strip, moments);
  EACH(j, W) moments[j] = totals[j];  // of its one pack
  normalise_by<T, W>(a, strip, origin, moments);
}

// In evaluation, by the running averages.
template <class T, int W> __device__ void batch_norm_evaluation(const BatchNormEvaluation &a) {
  Strip<W> strip(a);
  if (strip.idle) return;
  float mean[W], inverse[W];
  EACH(j, W) {
    mean[j] = a.running_mean[strip.channel + j];
    inverse[j] = 1 / sqrtf(a.running_variance[strip.channel + j] + a.eps);
  }
  normalise_strip<T, W>(a, strip, mean, inverse);
}

// The channels' numbers in the backward pass.
template <int W> struct Normalised {
  float mean[W], inverse[W], scale[W], beta[W];
  __device__ Normalised(const BatchNormGradient &a, int channel) {
    EACH(j, W) {
      mean[j] = a.statistics[channel + j], inverse[j] = a.statistics[a.channels + channel + j];
      scale[j] = a.gamma[channel + j] * inverse[j], beta[j] = a.beta[channel + j];
    }
  }
  // Whether ReLU passes the gradient on; y is computed again.
  template <class T> __device__ bool passes(T x, int j) const {
    return !(number(rounded<T>(normalise(number(x), mean[j], scale[j], beta[j]))) <= 0);
  }
};

// Sums of the gradient behind ReLU, which is also the gradient of rest, and of its products with the normalised x.
template <class T, int W> __device__ void add_gradients(const BatchNormGradient &a, const Strip<W> &strip, Two *sums) {
  EACH(j, W) sums[j] = {0, 0};
  if (!strip.idle) {
    Normalised<W> of(a, strip.channel);
    Joined<W> joined(a, strip);
    const void *data = joined.of(a.x);
    EACH_RUN(first, strip, a.places) {
      Pack<T, W> gradient[RUN], x[RUN], y[RUN], again[RUN];
      EACH(k, RUN)
        if (THERE_IS(k, first, strip, a.places)) {
          int place = first + k * strip.step;
          gradient[k] = strip.template read<T>(a.grad_y, place, a.channels);
          x[k] = load<T, W>(data, joined.element(place));
          if (a.y && a.relu) y[k] = strip.template read<T>(a.y, place, a.channels);
          if (a.grad_again) again[k] = strip.template read<T>(a.grad_again, place, a.channels);
        }
      EACH(k, RUN)
        if (THERE_IS(k, first, strip, a.places)) {
          EACH(j, W) {
            if (a.grad_again) gradient[k].v[j] = rounded<T>(number(gradient[k].v[j]) + number(again[k].v[j]));
            bool stops = a.relu && (a.y ? number(y[k].v[j]) <= 0 : !of.passes(x[k].v[j], j));
            if (stops) gradient[k].v[j] = rounded<T>(0);
            float g = number(gradient[k].v[j]);
            sums[j].first += g, sums[j].second += g * ((number(x[k].v[j]) - of.mean[j]) * of.inverse[j]);
          }
          if (a.y)
            store(a.grad_rest, (first + static_cast<long long>(k) * strip.step) * a.channels + strip.channel, gradient[k]);
        }
    }
  }
}
template <class T, int W> __device__ void batch_norm_gradient_sums(const BatchNormGradient &a) {
  Strip<W> strip(a);
  Two sums[W];
  add_gradients<T, W>(a, strip, sums);
  keep_part<W>(strip, a.parts, a.channels, sums);
}

// gamma / deviation (g - mean of g - normalised x times mean of g normalised x), g the gradient behind ReLU.
template <class T, int W>
__device__ void differentiate_by(const BatchNormGradient &a, const Strip<W> &strip, const Two *sums) {
  if (strip.idle) return;
  Normalised<W> of(a, strip.channel);
  Joined<W> joined(a, strip);
  const void *behind_relu = a.y ? a.grad_rest : a.grad_y, *data = joined.of(a.x);
  void *grad_x = joined.of(a.grad_x);
  float mean[W], slope[W];
  EACH(j, W) {
    mean[j] = sums[j].first / a.places, slope[j] = sums[j].second / a.places * of.inverse[j];
    if (!blockIdx.y && !strip.lane)
      a.grad_beta[strip.channel + j] = sums[j].first, a.grad_gamma[strip.channel + j] = sums[j].second;
  }
  EACH_RUN(first, strip, a.places) {
    Pack<T, W> gradient[RUN], x[RUN];
    EACH(k, RUN)
      if (THERE_IS(k, first, strip, a.places)) {
        gradient[k] = strip.template read<T>(behind_relu, first + k * strip.step, a.channels);
        x[k] = load<T, W>(data, joined.element(first + k * strip.step));
      }
    EACH(k, RUN)
      if (THERE_IS(k, first, strip, a.places)) {
        EACH(j, W) {
          float g = number(gradient[k].v[j]);
          if (a.relu && !a.y && !of.passes(x[k].v[j], j)) g = 0;
          x[k].v[j] = rounded<T>(of.scale[j] * (g - mean[j] - (number(x[k].v[j]) - of.mean[j]) * slope[j]));
        }
        store(grad_x, joined.element(first + static_cast<long long>(k) * strip.step), x[k]);
      }
  }
}
template <class T, int W> __device__ void batch_norm_gradient(const BatchNormGradient &a) {
  Strip<W> strip(a);
  Two sums[W];
  sum_of_parts<W>(strip, a.parts, a.count, a.channels, sums);
  differentiate_by<T, W>(a, strip, sums);
}
template <class T, int W> __device__ void batch_norm_gradient_whole(const BatchNormGradient &a) {
  Strip<W> strip(a);
  Two sums[W];
  add_gradients<T, W>(a, strip, sums);
  const Two *totals = sum_places<W>(strip, sums);
  EACH(j, W) sums[j] = totals[j];
  differentiate_by<T, W>(a, strip, sums);
}

// The weight of a 1x1 convolution whose outputs are scaled by channel, in the order of maps: a warp an output.
OPERATOR(scaled(), T weight[rows, columns, 1, 1] T scale[1, rows, 1, 1] -> T out[rows, 1, 1, columns],
         over_rows(scaled, packs(columns, weight, out), rows))
OPERATOR(scaled_gradient(),
         T grad_out[rows, 1, 1, columns] T weight[rows, columns, 1, 1] T scale[1, rows, 1, 1]
         -> T grad_weight[rows, columns, 1, 1] T grad_scale[1, rows, 1, 1],
         over_rows(scaled_gradient, packs(columns, grad_out, weight, grad_weight), rows))

template <class T, int W> __device__ void scaled(const Scaled &a) {
  EACH_ROW(row, a.rows) {
    float scale = at<T>(a.scale, row);
    for (int c = threadIdx.x * W; c < a.columns; c += LANES * W) {
      long long place = static_cast<long long>(row) * a.columns + c;
      Pack<T, W> weight = load<T, W>(a.weight, place);
      EACH(j, W) weight.v[j] = rounded<T>(scale * number(weight.v[j]));
      store(a.out, place, weight);
    }
  }
}

template <class T, int W> __device__ void scaled_gradient(const ScaledGradient &a) {
  EACH_ROW(row, a.rows) {
    float scale = at<T>(a.scale, row), sum = 0;
    for (int c = threadIdx.x * W; c < a.columns; c += LANES * W) {
      long long place = static_cast<long long>(row) * a.columns + c;
      Pack<T, W> gradient = load<T, W>(a.grad_out, place), weight = load<T, W>(a.weight, place);
      EACH(j, W) sum += number(gradient.v[j]) * number(weight.v[j]);
      EACH(j, W) gradient.v[j] = rounded<T>(scale * number(gradient.v[j]));
      store(a.grad_weight, place, gradient);
    }
    sum = sum_warp(sum);
    if (!threadIdx.x) static_cast<T *>(a.grad_scale)[row] = rounded<T>(sum);
  }
}

"""The CUDA kernels of feature maps, launched as by MindSpore, against slow float64."""

import itertools

import numpy as np
import pytest

from tests.device.cuda_kernels import ABSENT, LIMIT, aligned, assert_close, each_type, empty, random

EPS = 1e-5
NUMBERS = {"eps": EPS, "momentum": 0.1}
# [N, H, W, C]: one place, tails, whole packs, strips that do not fill a block, several strips; several blocks a strip.
MAPS = [*((1, 1, 1, 1), (2, 1, 1, 3), (1, 7, 5, 2), (3, 9, 2, 5), (5, 6, 6, 8), (17, 4, 2, 24), (2, 23, 48, 2))]
MAPS += [*((4, 36, 50, 16), (1, 31, 29, 264), (2, 3, 3, 2056), (4, 44, 36, 64))]
each_map = pytest.mark.parametrize("shape", MAPS, ids=str)


class Norm:
    """BatchNorm's parameters and outputs, and what float64 makes of them."""

    def __init__(self, kernels, shape, dtype, offset=0.0, maps=1):
        self.kernels = kernels
        self.x = aligned((random(*shape) * 2 + offset).astype(dtype))
        self.maps = [aligned(part) for part in np.split(self.x, maps, 3)] if maps > 1 else [self.x]
        self.widths = (shape[-1] // maps,) * maps
        self.rest, self.gradient = (random(*shape, dtype=dtype, seed=seed) for seed in (1, 2))
        channels = shape[-1]
        self.gamma, self.beta, self.mean = (random(channels, seed=seed) for seed in (3, 4, 5))
        self.variance = aligned(random(channels, seed=6) ** 2)
        x = self.x.astype(np.float64)
        self.moments = x.mean((0, 1, 2)), x.var((0, 1, 2))
        self.inverse = 1 / np.sqrt(self.moments[1] + EPS)
        self.normalised = (x - self.moments[0]) * self.inverse
        self.affine = self.normalised * self.gamma.astype(np.float64) + self.beta
        self.count = x.size // channels

    def parameters(self):
        return *self.maps, self.gamma, self.beta, self.mean, self.variance

    def forward(self, rest=ABSENT, relu=False):
        found = self.kernels("batch_norm", *self.parameters(), rest, relu=relu, **NUMBERS, widths=self.widths)
        self.out, self.statistics, _ = found

    def evaluate(self, rest=ABSENT, relu=False):
        """The output by the running averages, and that of float64."""
        tensors = *self.parameters(), rest
        found = self.kernels("batch_norm_evaluation", *tensors, relu=relu, eps=EPS, widths=self.widths)
        mean, variance = self.mean.astype(np.float64), self.variance.astype(np.float64)
        expected = (self.x - mean) / np.sqrt(variance + EPS) * self.gamma + self.beta
        expected = expected if rest is ABSENT else expected + rest.astype(np.float64)
        return found, np.maximum(expected, 0) if relu else expected

    def backward(self, y=ABSENT, again=ABSENT, relu=False):
        saved = *self.maps, self.gamma, self.beta, self.statistics
        tensors = self.gradient, again, *saved, y
        self.results = self.kernels("batch_norm_gradient", *tensors, relu=relu, widths=self.widths)
        *grad_maps, _, self.grad_gamma, self.grad_beta, self.grad_rest = self.results
        self.grad_x = np.concatenate(grad_maps, 3)

    def gradients(self, passed):
        """Of x, gamma and beta, of the gradient behind ReLU."""
        sums, products = passed.sum((0, 1, 2)), (passed * self.normalised).sum((0, 1, 2))
        centred = passed - sums / self.count - self.normalised * products / self.count
        return centred * self.gamma * self.inverse, products, sums


@each_type
@each_map
@pytest.mark.parametrize("relu", [False, True], ids=["", "ReLU"])
def test_batch_norm(kernels, shape, relu, dtype):
    norm = Norm(kernels, shape, dtype)
    before = norm.mean.astype(np.float64), norm.variance.astype(np.float64)
    norm.forward(relu=relu)
    assert_close(norm.out, np.maximum(norm.affine, 0) if relu else norm.affine)
    np.testing.assert_allclose(norm.statistics[0], norm.moments[0], rtol=0, atol=3e-6)
    np.testing.assert_allclose(norm.statistics[1], norm.inverse, rtol=3e-6)
    unbiased = norm.moments[1] * (norm.count / max(norm.count - 1, 1))
    for found, old, new in ((norm.mean, before[0], norm.moments[0]), (norm.variance, before[1], unbiased)):
        np.testing.assert_allclose(found, 0.9 * old + 0.1 * new, rtol=1e-6, atol=1e-6)

    norm.backward(relu=relu)
    passed = norm.gradient.astype(np.float64)
    _assert_gradients(norm, passed * (norm.out > 0) if relu else passed)


@each_type
@each_map
def test_batch_norm_in_evaluation(kernels, shape, dtype):
    norm = Norm(kernels, shape, dtype)
    before = norm.mean.copy(), norm.variance.copy()
    for relu, rest in itertools.product((False, True), (ABSENT, norm.rest)):
        assert_close(*norm.evaluate(rest, relu))
    np.testing.assert_array_equal((norm.mean, norm.variance), before)


@each_type
@each_map
def test_batch_norm_plus_another_map(kernels, shape, dtype):
    norm = Norm(kernels, shape, dtype)
    norm.forward(norm.rest)
    added = norm.affine + norm.rest.astype(np.float64)
    assert_close(norm.out, added)
    norm.forward(norm.rest, relu=True)
    assert_close(norm.out, np.maximum(added, 0))

    norm.backward(norm.out, relu=True)
    passed = norm.gradient * (norm.out > 0)
    np.testing.assert_array_equal(norm.grad_rest, passed)
    _assert_gradients(norm, passed.astype(np.float64))


@each_type
@each_map
@pytest.mark.parametrize("relu", [False, True], ids=["", "ReLU"])
def test_a_batch_norm_that_two_take_adds_up_their_gradients(kernels, shape, relu, dtype):
    norm, again = Norm(kernels, shape, dtype), random(*shape, dtype=dtype, seed=7)
    norm.forward(norm.rest, relu=relu)
    norm.backward(norm.out, again, relu=relu)
    both = (norm.gradient.astype(np.float32) + again).astype(dtype)  # as an addition between them would round
    passed = both * (norm.out > 0) if relu else both
    np.testing.assert_array_equal(norm.grad_rest, passed)
    _assert_gradients(norm, passed.astype(np.float64))


# Maps of one channel, tails, whole packs, several strips, of which one reads several maps; whole maps; as many as there
# may be.
JOINED = [((3, 9, 2, 5), 5), ((2, 3, 5, 6), 3), ((2, 23, 8, 16), 2), ((4, 9, 50, 192), 4), ((2, 3, 3, 2056), 8)]
JOINED += [((3, 8, 12, 64), 16), ((1, 70, 60, 264), 3)]


@each_type
@pytest.mark.parametrize(("shape", "maps"), JOINED, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["", "ReLU and another map"])
def test_a_batch_norm_of_maps_that_are_joined(kernels, shape, maps, relu, dtype):
    norm = Norm(kernels, shape, dtype, maps=maps)
    norm.forward(norm.rest if relu else ABSENT, relu=relu)
    expected = np.maximum(norm.affine + norm.rest.astype(np.float64), 0) if relu else norm.affine
    assert_close(norm.out, expected)
    norm.backward(norm.out if relu else ABSENT, relu=relu)
    passed = norm.gradient.astype(np.float64)
    _assert_gradients(norm, passed * (norm.out > 0) if relu else passed)
    assert_close(*norm.evaluate())


def test_maps_of_different_widths_are_not_joined(kernels, capfd):
    norm, out = Norm(kernels, (2, 5, 4, 6), "float32"), empty(2, 5, 4, 6)
    given = aligned(norm.x[..., :2]), aligned(norm.x[..., 2:]), *norm.parameters()[1:], ABSENT
    assert kernels.status("batch_norm", *given, out, empty(2, 6), empty(2, 6, 2), relu=0, **NUMBERS, widths=(2, 4)) != 0
    assert "operator batch_norm: tensor" in capfd.readouterr().err
    assert np.isnan(out).all()


def test_a_second_gradient_has_to_be_kept(kernels, capfd):
    norm = Norm(kernels, (2, 5, 4, 3), "float32")
    norm.forward()
    with pytest.raises(AssertionError):
        norm.backward(again=norm.gradient, relu=True)
    assert "operator batch_norm_gradient: grad_again without y" in capfd.readouterr().err


def _assert_gradients(norm, passed):
    grad_x, grad_gamma, grad_beta = norm.gradients(passed)
    scale = max(np.abs(norm.gamma * norm.inverse).max() * np.abs(passed).max(), 1e-30)  # grad_x of one place is 0
    assert np.abs(norm.grad_x - grad_x).max() <= 2 * LIMIT[norm.grad_x.dtype.name] * scale
    size = np.abs(passed).sum((0, 1, 2)).max()
    np.testing.assert_allclose(norm.grad_gamma, grad_gamma, rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(norm.grad_beta, grad_beta, rtol=0, atol=1e-6 * size)


@each_type
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 9), (256, 128), (9, 211)])
def test_a_weight_scaled_by_output(kernels, rows, columns, dtype):
    weight, scale = random(rows, columns, 1, 1, dtype=dtype), random(1, rows, 1, 1, dtype=dtype, seed=1)
    gradient, found = random(rows, 1, 1, columns, dtype=dtype, seed=2), kernels("scaled", weight, scale)
    gradients = kernels("scaled_gradient", gradient, weight, scale)
    factors = scale.astype(np.float64).reshape(rows, 1, 1, 1)
    assert_close(found, factors * weight.reshape(found.shape))
    assert_close(gradients[0], factors * gradient.reshape(weight.shape))
    products = gradient.astype(np.float64) * weight.reshape(gradient.shape)
    assert_close(gradients[1], products.sum((1, 2, 3)).reshape(scale.shape))


@each_type
def test_weights_in_the_order_of_maps(kernels, dtype):
    shapes = [(5, 3, 7, 7), (64, 1, 1, 1), (1, 70, 12, 12), (9, 211, 3, 3), (3, 4100, 1, 1)]
    weights = [random(*shape, dtype=dtype) for shape in shapes]
    numbers = dict(zip(("rows", "columns", "sizes"), zip(*(shape[:3] for shape in shapes), strict=True), strict=True))
    found = kernels("channels_last", *weights, **numbers)
    back = kernels("channels_last_gradient", *found, **numbers)
    for weight, turned, again in zip(weights, found, back, strict=True):
        np.testing.assert_array_equal(turned, weight.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(again, weight)


def test_strips_of_more_places_than_a_block_reads_twice(kernels):
    norm = Norm(kernels, (2, 257, 33, 264), "float16")
    norm.forward(norm.rest, relu=True)
    assert_close(norm.out, np.maximum(norm.affine + norm.rest.astype(np.float64), 0))
    norm.backward(norm.out, relu=True)
    _assert_gradients(norm, (norm.gradient * (norm.out > 0)).astype(np.float64))


def test_moments_far_from_zero(kernels):
    """Squares of x itself would leave nothing of a variance of 4 beside a mean of 3000."""
    norm = Norm(kernels, (6, 9, 4, 2), "float32", offset=3000.0)
    norm.forward()
    np.testing.assert_allclose(norm.statistics[1], norm.inverse, rtol=1e-5)
    np.testing.assert_allclose(norm.out, norm.affine, atol=1e-3)


def test_what_is_no_number_stays_in_its_channel(kernels):
    norm = Norm(kernels, (2, 5, 4, 3), "float32")
    norm.x[1, 2, 3, 1] = np.nan
    norm.x[0, 4, 1, 2] = np.inf
    norm.forward(norm.rest, relu=True)
    norm.backward(norm.out, relu=True)
    for values in (norm.out, norm.grad_x):
        assert np.isfinite(values[..., 0]).all()
        assert np.isnan(values[..., 1:]).all()
    assert np.isnan(norm.mean[1])
    np.testing.assert_array_equal(norm.grad_rest[..., 1], norm.gradient[..., 1])  # as PyTorch's ReLU


def test_maps_between_packs(kernels):
    shape = 2, 3, 4, 8
    norm = Norm(kernels, shape, "float16")
    x = np.empty(norm.x.size + 64, np.float16)[1 : norm.x.size + 1].reshape(shape)
    x[...] = norm.x
    norm.maps = [x]
    norm.forward()
    assert_close(norm.out, norm.affine)


@each_type
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 5, 4, 3), (3, 11, 9, 40), (2, 33, 18, 4), (1, 3, 6, 136)], ids=str)
@pytest.mark.parametrize("size", [3, 5, 7])
def test_depthwise(kernels, shape, size, dtype):
    x, gradient = (random(*shape, dtype=dtype, seed=seed) for seed in (0, 1))
    weight = random(shape[3], 1, size, size, dtype=dtype)
    expected, of_x, of_weight = by_channel(np.maximum(x, 0), weight, gradient)
    assert_close(kernels("depthwise", x, weight), expected + x)
    grad_x, _, grad_weight = kernels("depthwise_gradient", gradient, weight, x)
    assert_close(grad_x, of_x * (x > 0) + gradient)
    assert_close(grad_weight, of_weight)


def by_channel(x, weight, gradient):
    """A depth-wise convolution of x [N, H, W, C], and the gradients of x and of the weight [C, 1, size, size]."""
    size = weight.shape[-1]

    def windows(of):
        """[N, H, W, C, size, size]"""
        border = (size // 2,) * 2
        padded = np.pad(of.astype(np.float64), ((0, 0), border, border, (0, 0)))
        return np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))

    filters = weight[:, 0].astype(np.float64)
    return (
        np.einsum("nhwcij,cij->nhwc", windows(x), filters),
        np.einsum("nhwcij,cij->nhwc", windows(gradient), filters[:, ::-1, ::-1]),
        np.einsum("nhwcij,nhwc->cij", windows(x), gradient.astype(np.float64))[:, None],
    )


@each_type
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 5, 4, 3), (3, 11, 9, 40), (1, 3, 6, 136)], ids=str)
@pytest.mark.parametrize("sizes", [(5, 7), (7, 5), (3, 3), (7, 3)], ids=str)
def test_depthwise_halves(kernels, shape, sizes, dtype):
    batch, height, width, channels = shape
    x, gradient = (random(batch, height, width, 2 * channels, dtype=dtype, seed=seed) for seed in (0, 1))
    weights = [random(channels, 1, size, size, dtype=dtype, seed=size) for size in sizes]
    out = kernels("depthwise_halves", *weights, x)
    grad_x, _, _, *grad_weights = kernels("depthwise_halves_gradient", *weights, x, gradient)
    for half, weight, grad_weight in zip((0, 1), weights, grad_weights, strict=True):
        own = (..., slice(half * channels, (half + 1) * channels))
        expected, of_x, of_weight = by_channel(x[own], weight, gradient[own])
        assert_close(out[own], expected)
        assert_close(grad_x[own], of_x)
        assert_close(grad_weight, of_weight)


@each_type
@each_map
@pytest.mark.parametrize("power", [1.0, 2.5, 3.0])
def test_gem(kernels, shape, power, dtype):
    x = aligned(np.abs(random(*shape, dtype=dtype)) + np.array(0.01, dtype))
    samples, height, width, channels = shape
    pooled = kernels("gem", x, power=power, eps=1e-12)
    exact = x.astype(np.float64)
    expected = (exact**power).mean((1, 2)) ** (1 / power)
    assert_close(pooled, expected)
    gradient = random(samples, channels, seed=1)
    grad_x = kernels("gem_gradient", gradient, pooled, x, power=power)
    factors = (gradient * expected ** (1 - power))[:, None, None] / (height * width)
    assert_close(grad_x, factors * exact ** (power - 1))


def test_gem_of_what_is_no_number(kernels):
    x = aligned(np.abs(random(2, 3, 3, 2)))
    x[0, 2, 2, 1], x[1, 0, 1, 0] = np.nan, np.inf
    pooled = kernels("gem", x, power=3.0, eps=1e-12)
    assert np.isnan(pooled[0, 1])
    assert pooled[1, 0] == np.inf
    assert np.isfinite(pooled[[0, 1], [0, 1]]).all()


@each_type
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 4, 3), (1, 7, 9, 8), (2, 40, 22, 1)])
def test_max_pool(kernels, shape, dtype):
    x = aligned(np.maximum(random(*shape, dtype=dtype), 0))  # as after ReLU: many that are equally large
    (_, height, width, _), expected = shape, np.zeros(shape)
    pooled, places = kernels("max_pool", x)
    gradient = random(*pooled.shape, dtype=dtype, seed=1)
    grad_x = kernels("max_pool_gradient", x, gradient, places)
    for n, v, u, c in np.ndindex(*pooled.shape):
        window = [(y, w) for y in range(2 * v - 1, 2 * v + 2) for w in range(2 * u - 1, 2 * u + 2)]
        window = [place for place in window if 0 <= place[0] < height and 0 <= place[1] < width]
        largest = max(window, key=lambda place: x[n, :, :, c][place])  # the first of several
        assert pooled[n, v, u, c] == x[n, :, :, c][largest]
        expected[n, :, :, c][largest] += gradient[n, v, u, c]
    assert_close(grad_x, expected)


def test_max_pool_of_what_is_no_number(kernels):
    x = random(1, 6, 6, 1)
    x[0, 2, 2, 0], x[0, 5, 5, 0], x[0, :2, :2, 0] = np.nan, np.inf, -np.inf
    pooled, _ = kernels("max_pool", x)
    assert np.isnan(pooled[0, 1, 1, 0])
    assert (pooled[0, 2, 2, 0], pooled[0, 0, 0, 0]) == (np.inf, -np.inf)


@each_type
@pytest.mark.parametrize(
    ("shape", "ratios"),
    [((1, 1, 1, 1), (1,)), ((2, 6, 12, 3), (2, 3, 6)), ((3, 24, 36, 8), (2, 4, 6, 12)), ((1, 9, 3, 1), (3, 1))],
)
def test_average_pools(kernels, shape, ratios, dtype):
    x, (batch, height, width, channels) = random(*shape, dtype=dtype), shape
    pooled = kernels("average_pools", x, ratios=ratios)
    pooled = pooled if len(ratios) > 1 else [pooled]
    for found, ratio in zip(pooled, ratios, strict=True):
        windows = x.astype(np.float64).reshape(batch, height // ratio, ratio, width // ratio, ratio, channels)
        assert_close(found, windows.mean((2, 4)))
    gradients = [random(*of.shape, dtype=dtype, seed=k) for k, of in enumerate(pooled)]
    grad_x = kernels("average_pools_gradient", x, *gradients, ratios=ratios)
    pairs = zip(gradients, ratios, strict=True)
    shares = [gradient.astype(np.float64).repeat(r, 1).repeat(r, 2) / r**2 for gradient, r in pairs]
    assert_close(grad_x, sum(shares))


def test_the_same_bits_whatever_the_order_of_threads(kernels, monkeypatch):
    results = []
    for order in ("forward", "backward"):
        monkeypatch.setenv("STAND_IN_ORDER", order)
        norm, weight = Norm(kernels, (19, 24, 12, 3), "float32"), random(3, 1, 5, 5)
        norm.forward(norm.rest, relu=True)
        norm.backward(norm.out, relu=True)
        filters = kernels("depthwise_gradient", norm.gradient, weight, norm.x)
        results.append((norm.out, norm.mean, norm.variance, norm.statistics, *norm.results, *filters))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)

"""The stand-in GPU's cuBLAS, cuDNN and NCCL, called as their manuals say, against NumPy and PyTorch in double."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

TYPES = {"float32": 0, "float64": 1, "float16": 2}  # of CUDA as of cuDNN
BAD_PARAMETER = 3
# Relative to the largest value: what comes out is rounded once.
TOLERANCE = {"float32": 1e-7, "float64": 1e-14, "float16": 5e-4}


def random(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def double(array):
    """For PyTorch, which then keeps gradients."""
    return torch.tensor(np.asarray(array, np.float64), requires_grad=True)


def assert_close(found, expected, tolerance=None):
    expected = expected.detach().numpy() if torch.is_tensor(expected) else np.asarray(expected)
    error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert error <= (tolerance or TOLERANCE[found.dtype.name])


def handed(argument):
    """A Python value as C takes it."""
    match argument:
        case np.ndarray():
            return ctypes.c_void_p(argument.ctypes.data)
        case float():
            return ctypes.c_double(argument)
        case tuple():
            return (ctypes.c_int * len(argument))(*argument)
    return argument


class Library:
    """Functions of a library that return a status."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def status(self, name, *arguments):
        return getattr(self.library, name)(*map(handed, arguments))

    def __call__(self, name, *arguments):
        assert self.status(name, *arguments) == 0, name


# cuBLAS: matrices are stored column by column.


@pytest.fixture(scope="module")
def cublas(stand_in):
    return Library(stand_in.folder / "lib" / "libcublas.so.11")


COMPUTED_IN = {"float32": 68, "float64": 70}  # cublasComputeType_t


def scalar_of(value, dtype):
    """alpha and beta have the type in which is computed."""
    return np.array(value, dtype)


def by_columns(matrices, gap=0):
    """[..., rows, columns] as they are stored, with `gap` elements after each column."""
    rows = matrices.shape[-2]
    stored = np.full((*matrices.shape[:-2], matrices.shape[-1], rows + gap), np.nan, matrices.dtype)
    stored[..., :rows] = matrices.swapaxes(-1, -2)
    return stored


def multiply(cublas, sizes, a, b, c, transposed=(0, 0), alpha=1, beta=0, kind=None):
    """cuBLAS' status. The matrices are stored column by column: [columns, leading dimension]."""
    computed_in = "float64" if a.dtype == np.float64 else "float32"
    kinds = [TYPES[x.dtype.name] if kind is None else kind for x in (a, b, c)]
    return cublas.status(
        *("cublasGemmEx", None, *transposed, *sizes, scalar_of(alpha, computed_in)),
        *(a, kinds[0], a.shape[1], b, kinds[1], b.shape[1]),
        *(scalar_of(beta, computed_in), c, kinds[2], c.shape[1], COMPUTED_IN[computed_in], -1),
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("transposed", [*product((0, 1), repeat=2)])
def test_products_of_every_transposition(cublas, transposed, dtype):
    m, n, k = 5, 4, 7
    a, b, c = random(m, k, dtype=dtype), random(k, n, dtype=dtype), random(m, n, dtype=dtype)
    expected = 2 * (np.float64(a) @ np.float64(b)) + 0.5 * np.float64(c)
    stored_a = by_columns(a.T if transposed[0] else a, gap=2)
    stored_b = by_columns(b.T if transposed[1] else b, gap=1)
    stored_c = by_columns(c, gap=3)
    assert multiply(cublas, (m, n, k), stored_a, stored_b, stored_c, transposed, 2, 0.5) == 0
    assert_close(stored_c.T[:m], expected)
    assert np.isnan(stored_c.T[m:]).all()  # nothing is written between the columns


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_float_product_is_written_over_what_is_not_a_number(cublas, dtype):
    a, b, c = random(4, 3, dtype=dtype), random(3, 2, dtype=dtype), np.full((4, 2), np.nan, np.float32)
    stored = by_columns(c)
    assert multiply(cublas, (4, 2, 3), by_columns(a), by_columns(b), stored) == 0
    assert_close(stored.T, np.float64(a) @ np.float64(b))


def test_bfloat16_products(cublas):
    a, b = (torch.tensor(random(*shape)).bfloat16() for shape in ((4, 3), (3, 2)))
    c = torch.zeros(2, 4, dtype=torch.bfloat16)
    stored = [x.contiguous().view(torch.int16).numpy() for x in (a.T, b.T, c)]
    assert multiply(cublas, (4, 2, 3), *stored, kind=14) == 0  # CUDA_R_16BF
    assert_close(c.T.double().numpy(), (a.double() @ b.double()).numpy(), tolerance=2**-8)


@pytest.mark.parametrize("shared", [False, True])
def test_batches_of_products(cublas, shared):
    a, b, c = random(3, 4, 5), random(1 if shared else 3, 5, 2), np.zeros((3, 4, 2), np.float32)
    stored_a, stored_b, stored_c = map(by_columns, (a, b, c))
    cublas(
        *("cublasGemmStridedBatchedEx", None, 0, 0, 4, 2, 5, scalar_of(1, "float32")),
        *(stored_a, 0, 4, ctypes.c_longlong(20), stored_b, 0, 5, ctypes.c_longlong(0 if shared else 10)),
        *(scalar_of(0, "float32"), stored_c, 0, 4, ctypes.c_longlong(8), 3, 68, -1),
    )
    assert_close(stored_c.swapaxes(1, 2), np.float64(a) @ np.float64(b))


@pytest.mark.parametrize(
    ("rows", "kind", "status"),
    [((4, 5, 4), None, 0), ((3, 5, 4), None, 7), ((4, 4, 4), None, 7), ((4, 5, 3), None, 7), ((4, 5, 4), 10, 15)],
)
def test_products_of_too_short_columns_or_of_integers_are_refused(cublas, rows, kind, status):
    a, b, c = (np.zeros((columns, lead), np.float32) for columns, lead in zip((5, 2, 2), rows, strict=True))
    assert multiply(cublas, (4, 2, 5), a, b, c, kind=kind) == status


# cuDNN.


class Cudnn(Library):
    def descriptor(self, kind):
        made = ctypes.c_void_p()
        self(f"cudnnCreate{kind}Descriptor", ctypes.byref(made))
        return made

    def tensor(self, array, channels_last=False):
        described = self.descriptor("Tensor")
        kind = TYPES[array.dtype.name]
        self("cudnnSetTensorNdDescriptorEx", described, int(channels_last), kind, array.ndim, array.shape)
        return described

    def strided(self, array):
        described = self.descriptor("Tensor")
        steps = tuple(step // array.itemsize for step in array.strides)
        self("cudnnSetTensorNdDescriptor", described, TYPES[array.dtype.name], array.ndim, array.shape, steps)
        return described

    def filter(self, array, channels_last=False):
        described = self.descriptor("Filter")
        kind = TYPES[array.dtype.name]
        self("cudnnSetFilterNdDescriptor", described, kind, int(channels_last), array.ndim, array.shape)
        return described

    def convolution(self, padding, stride, dilation, groups):
        described = self.descriptor("Convolution")
        cross_correlation = 1
        self(
            *("cudnnSetConvolutionNdDescriptor", described, len(stride), padding, stride, dilation),
            *(cross_correlation, TYPES["float32"]),
        )
        self("cudnnSetConvolutionGroupCount", described, groups)
        return described


@pytest.fixture(scope="module")
def cudnn(stand_in):
    return Cudnn(stand_in.folder / "lib" / "libcudnn.so.8")


ONE, ZERO, HALF = (np.array(value, np.float32) for value in (1, 0, 0.5))


def laid_out(array, channels_last):
    """The same values, channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1) if channels_last else array


class Convolved:
    """A convolution's tensors, in cuDNN's hands and in PyTorch's."""

    def __init__(self, cudnn, x, weight, padding, stride, dilation, groups, dtype="float32", channels_last=False):
        self.x, self.weight = random(*x, dtype=dtype), random(*weight, dtype=dtype)
        self.exact_x, self.exact_weight = double(self.x), double(self.weight)
        options = {"padding": padding, "stride": stride, "dilation": dilation, "groups": groups}
        convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[len(x)]
        self.exact_y = convolve(self.exact_x, self.exact_weight, **options)
        self.y = random(*self.exact_y.shape, dtype=dtype, seed=1)
        self.exact_y.backward(double(self.y))
        self.x, self.weight, self.y = (laid_out(array, channels_last) for array in (self.x, self.weight, self.y))
        self.described_x, self.described_y = (cudnn.tensor(array, channels_last) for array in (self.x, self.y))
        self.described_weight = cudnn.filter(self.weight, channels_last)
        self.convolution = cudnn.convolution(padding, stride, dilation, groups)


CONVOLUTIONS = {
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), (0, 0), (1, 1), (1, 1), 1),
    "stride and padding": ((2, 3, 7, 6), (4, 3, 3, 3), (1, 2), (2, 3), (1, 1), 1),
    "dilation": ((1, 2, 9, 8), (3, 2, 3, 2), (2, 0), (2, 1), (2, 3), 1),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), (1, 1), (1, 2), (1, 1), 2),
    "each channel alone": ((2, 4, 5, 5), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    "one axis": ((2, 3, 8), (4, 3, 3), (1,), (2,), (1,), 1),
    "three axes": ((1, 2, 4, 5, 4), (3, 2, 2, 3, 2), (0, 1, 1), (1, 2, 1), (1, 1, 2), 1),
}
LAYOUTS = {"float32": {}, "float16": {"dtype": "float16"}, "channels last": {"channels_last": True}}


@pytest.fixture(scope="module", params=[*CONVOLUTIONS, *LAYOUTS])
def convolved(request, cudnn):
    name = request.param
    return Convolved(cudnn, *CONVOLUTIONS.get(name, CONVOLUTIONS["stride and padding"]), **LAYOUTS.get(name, {}))


def test_convolutions(cudnn, convolved):
    found = np.full_like(convolved.y, np.nan)
    cudnn(
        *("cudnnConvolutionForward", None, ONE, convolved.described_x, convolved.x),
        *(convolved.described_weight, convolved.weight, convolved.convolution, 1, None, ctypes.c_size_t(0)),
        *(ZERO, convolved.described_y, found),
    )
    assert_close(found, convolved.exact_y)


def test_convolutions_gradients_with_respect_to_the_input(cudnn, convolved):
    found = np.full_like(convolved.x, np.nan)
    cudnn(
        *("cudnnConvolutionBackwardData", None, ONE, convolved.described_weight, convolved.weight),
        *(convolved.described_y, convolved.y, convolved.convolution, 1, None, ctypes.c_size_t(0)),
        *(ZERO, convolved.described_x, found),
    )
    assert_close(found, convolved.exact_x.grad)


def test_convolutions_gradients_with_respect_to_the_filter(cudnn, convolved):
    found = np.ones_like(convolved.weight)
    cudnn(
        *("cudnnConvolutionBackwardFilter", None, np.float32([2]), convolved.described_x, convolved.x),
        *(convolved.described_y, convolved.y, convolved.convolution, 1, None, ctypes.c_size_t(0)),
        *(HALF, convolved.described_weight, found),
    )
    assert_close(found, 2 * convolved.exact_weight.grad + 0.5)


def test_convolutions_that_do_not_fit_are_refused(cudnn):
    x, weight, y = (random(*shape) for shape in ((2, 3, 6, 5), (4, 3, 3, 3), (2, 4, 4, 3)))
    convolution = cudnn.convolution((0, 0), (1, 1), (1, 1), 1)

    def status(x, weight, y):
        handed_over = (cudnn.tensor(x), x, cudnn.filter(weight), weight, convolution, 1, None, ctypes.c_size_t(0), ZERO)
        return cudnn.status("cudnnConvolutionForward", None, ONE, *handed_over, cudnn.tensor(y), y)

    assert status(x, weight, y) == 0
    assert status(x, weight, y[:1]) == BAD_PARAMETER
    assert status(x, weight, random(2, 4, 4, 4)) == BAD_PARAMETER
    assert status(x, weight[:, :2], y) == BAD_PARAMETER
    assert status(x.astype(np.float16), weight, y) == BAD_PARAMETER


BATCH_NORMS = {
    "of each channel": ((4, 3, 5, 2), 1, (1, 3, 1, 1)),
    "of a vector": ((6, 5, 1, 1), 0, (1, 5, 1, 1)),
    "of each place": ((6, 2, 3, 2), 0, (1, 2, 3, 2)),
}
EPSILON, SHARE = 1e-3, 0.2


class Normalised:
    """A BatchNorm's tensors, in cuDNN's hands and in PyTorch's."""

    def __init__(self, cudnn, shape, mode, parameters, dtype):
        self.mode, self.x, self.grad_y = mode, random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
        self.scale, self.bias, self.mean = (random(*parameters, seed=seed) for seed in (2, 3, 4))
        self.variance = np.abs(random(*parameters, seed=5)) + 0.1
        self.described_x, self.described_parameters = cudnn.tensor(self.x), cudnn.tensor(self.scale)

        channels = (shape[0], self.scale.size, -1)
        self.exact_x, self.exact_scale, self.exact_bias = double(self.x), double(self.scale), double(self.bias)
        self.exact_mean, self.exact_variance = (double(x.reshape(-1)).detach() for x in (self.mean, self.variance))
        flat = self.exact_x.reshape(channels)
        statistics = self.exact_mean.clone(), self.exact_variance.clone()
        weights = self.exact_scale.reshape(-1), self.exact_bias.reshape(-1)
        self.exact_inferred = functional.batch_norm(flat, *statistics, *weights, False, SHARE, EPSILON).reshape(shape)
        self.exact_y = functional.batch_norm(
            flat, self.exact_mean, self.exact_variance, *weights, True, SHARE, EPSILON
        ).reshape(shape)


@pytest.fixture(params=[*product(BATCH_NORMS, ("float32", "float16"))], ids=", ".join)
def normalised(request, cudnn):
    name, dtype = request.param
    return Normalised(cudnn, *BATCH_NORMS[name], dtype)


def train(cudnn, case, fused=0, z=None, activation=None):
    """y, and the mean and the inverse standard deviation that are kept for the gradient."""
    y, mean, inverse = np.full_like(case.x, np.nan), np.empty_like(case.mean), np.empty_like(case.mean)
    cudnn(
        *("cudnnBatchNormalizationForwardTrainingEx", None, case.mode, fused, ONE, ZERO, case.described_x, case.x),
        *(case.described_x, z, case.described_x, y, case.described_parameters, case.scale, case.bias, SHARE),
        *(case.mean, case.variance, EPSILON, mean, inverse, activation),
        *(None, ctypes.c_size_t(0), None, ctypes.c_size_t(0)),
    )
    return y, mean, inverse


def gradients(cudnn, case, y, mean, inverse, fused=0, activation=None):
    """With respect to x, z, scale and bias."""
    grad_x, grad_z = np.full_like(case.x, np.nan), np.full_like(case.x, np.nan)
    grad_scale, grad_bias = np.full_like(case.scale, np.nan), np.full_like(case.scale, np.nan)
    cudnn(
        *("cudnnBatchNormalizationBackwardEx", None, case.mode, fused, ONE, ZERO, ONE, ZERO),
        *(case.described_x, case.x, case.described_x, y, case.described_x, case.grad_y, case.described_x, grad_z),
        *(case.described_x, grad_x, case.described_parameters, case.scale, case.bias, grad_scale, grad_bias, EPSILON),
        *(mean, inverse, activation, None, ctypes.c_size_t(0), None, ctypes.c_size_t(0)),
    )
    return grad_x, grad_z, grad_scale, grad_bias


def test_batch_norm_in_training(cudnn, normalised):
    y, _, _ = train(cudnn, normalised)
    assert_close(y, normalised.exact_y)
    assert_close(normalised.mean.reshape(-1), normalised.exact_mean)
    assert_close(normalised.variance.reshape(-1), normalised.exact_variance)


@pytest.mark.parametrize("kept", [False, True])
def test_batch_norms_gradients(cudnn, normalised, kept):
    y, mean, inverse = train(cudnn, normalised)
    normalised.exact_y.backward(double(normalised.grad_y))
    statistics = (mean, inverse) if kept else (None, None)
    grad_x, _, grad_scale, grad_bias = gradients(cudnn, normalised, y, *statistics)
    # The kept statistics are float32.
    assert_close(grad_x, normalised.exact_x.grad, max(TOLERANCE[grad_x.dtype.name], 1e-6))
    assert_close(grad_scale, normalised.exact_scale.grad, 1e-6)
    assert_close(grad_bias, normalised.exact_bias.grad)


def test_batch_norm_with_a_sum_and_an_activation(cudnn):
    case = Normalised(cudnn, *BATCH_NORMS["of each channel"], "float32")
    z, exact_z = random(*case.x.shape, seed=6), double(random(*case.x.shape, seed=6))
    exact = functional.relu(case.exact_y + exact_z)
    exact.backward(double(case.grad_y))
    activation = cudnn.descriptor("Activation")
    cudnn("cudnnSetActivationDescriptor", activation, 1, 0, 0.0)
    y, mean, inverse = train(cudnn, case, 2, z, activation)
    grad_x, grad_z, _, _ = gradients(cudnn, case, y, mean, inverse, 2, activation)
    assert_close(y, exact)
    assert_close(grad_x, case.exact_x.grad, 1e-6)
    assert_close(grad_z, exact_z.grad)


def test_batch_norm_in_evaluation(cudnn, normalised):
    y = np.full_like(normalised.x, np.nan)
    cudnn(
        *("cudnnBatchNormalizationForwardInference", None, normalised.mode, ONE, ZERO, normalised.described_x),
        *(normalised.x, normalised.described_x, y, normalised.described_parameters, normalised.scale),
        *(normalised.bias, normalised.mean, normalised.variance, EPSILON),
    )
    assert_close(y, normalised.exact_inferred)


POOLINGS = {
    "largest": (0, lambda x, window, stride, padding: functional.max_pool2d(x, window, stride, padding)),
    "mean with padding": (1, lambda x, *sizes: functional.avg_pool2d(x, *sizes, count_include_pad=True)),
    "mean without padding": (2, lambda x, *sizes: functional.avg_pool2d(x, *sizes, count_include_pad=False)),
}


@pytest.mark.parametrize("sizes", [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 2), (1, 0))])
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_and_its_gradient(cudnn, name, sizes):
    mode, pool = POOLINGS[name]
    # Few different values: the first of several largest ones gets the gradient.
    x = np.random.default_rng(0).integers(-2, 2, (2, 3, 6, 7)).astype(np.float32)
    exact_x = double(x)
    exact_y = pool(exact_x, *sizes)
    grad_y = random(*exact_y.shape)
    exact_y.backward(double(grad_y))

    window, stride, padding = sizes
    pooling = cudnn.descriptor("Pooling")
    cudnn("cudnnSetPoolingNdDescriptor", pooling, mode, 0, 2, window, padding, stride)
    y, grad_x = np.full_like(grad_y, np.nan), np.full_like(x, np.nan)
    of_x, of_y = cudnn.tensor(x), cudnn.tensor(y)
    cudnn("cudnnPoolingForward", None, pooling, ONE, of_x, x, ZERO, of_y, y)
    assert_close(y, exact_y)
    cudnn("cudnnPoolingBackward", None, pooling, ONE, of_y, y, of_y, grad_y, of_x, x, ZERO, of_x, grad_x)
    assert_close(grad_x, exact_x.grad)


def test_pooling_to_a_size_that_does_not_fit_is_refused(cudnn):
    pooling = cudnn.descriptor("Pooling")
    cudnn("cudnnSetPoolingNdDescriptor", pooling, 0, 0, 2, (2, 2), (0, 0), (2, 2))
    x, y = random(1, 1, 4, 4), random(1, 1, 3, 2)
    handed_over = (ONE, cudnn.tensor(x), x, ZERO, cudnn.tensor(y), y)
    assert cudnn.status("cudnnPoolingForward", None, pooling, *handed_over) == BAD_PARAMETER


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1), (2, 1, 1, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("number", range(4))
def test_operations_on_two_tensors_broadcast_the_second(cudnn, number, shape):
    a, b, c = random(2, 3, 4, 5), random(*shape), random(2, 3, 4, 5, seed=1)
    combine = (np.add, np.multiply, np.minimum, np.maximum)[number]
    expected = combine(2 * a.astype(np.float64), -3 * b.astype(np.float64)) + 0.5 * c
    operation = cudnn.descriptor("OpTensor")
    cudnn("cudnnSetOpTensorDescriptor", operation, number, 0, 0)
    first, second = (np.array(value, np.float32) for value in (2, -3))
    handed_over = first, cudnn.tensor(a), a, second, cudnn.tensor(b), b, HALF, cudnn.tensor(c), c
    cudnn("cudnnOpTensor", None, operation, *handed_over)
    assert_close(c, expected)


def test_operations_read_and_write_at_strides(cudnn):
    a, b = random(4, 3, 2, 5).transpose(2, 1, 0, 3), random(2, 3, 4, 5)
    c = np.zeros((2, 3, 4, 10), np.float32)[..., ::2]
    operation = cudnn.descriptor("OpTensor")
    cudnn("cudnnSetOpTensorDescriptor", operation, 0, 0, 0)
    first, second, result = (cudnn.strided(array) for array in (a, b, c))
    cudnn("cudnnOpTensor", None, operation, ONE, first, a, ONE, second, b, ZERO, result, c)
    assert_close(c, np.float64(a) + b)
    assert not c.base[..., 1::2].any()


REDUCTIONS = [
    np.sum,
    np.prod,
    np.min,
    np.max,
    lambda x, **over: np.abs(x).max(**over),
    np.mean,
    lambda x, **over: np.abs(x).sum(**over),
    lambda x, **over: np.sqrt(np.square(x).sum(**over)),
    lambda x, **over: np.where(x == 0, 1, x).prod(**over),
]


@pytest.mark.parametrize("axes", [(), (1,), (0, 2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("number", range(len(REDUCTIONS)))
def test_reductions(cudnn, number, axes):
    a = random(2, 3, 2, 2)
    a[0, 0] = 0
    expected = 2 * REDUCTIONS[number](np.float64(a), axis=axes, keepdims=True)
    c = np.ones(expected.shape, np.float32)
    reduction = cudnn.descriptor("ReduceTensor")
    cudnn("cudnnSetReduceTensorDescriptor", reduction, number, 0, 0, 0, 0)
    space = (None, ctypes.c_size_t(0), None, ctypes.c_size_t(0))
    cudnn(
        *("cudnnReduceTensor", None, reduction, *space, np.array(2, np.float32), cudnn.tensor(a), a),
        *(HALF, cudnn.tensor(c), c),
    )
    assert_close(c, expected + 0.5)


ACTIVATIONS = [
    torch.sigmoid,
    torch.relu,
    torch.tanh,
    lambda x: torch.clamp(x, 0, 0.5),
    lambda x: functional.elu(x, 0.5),
]


@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_activations_and_their_gradients(cudnn, number):
    x, grad_y = random(2, 3, 4, 1), random(2, 3, 4, 1, seed=1)
    exact_x = double(x)
    exact_y = ACTIVATIONS[number](exact_x)
    exact_y.backward(double(grad_y))
    activation = cudnn.descriptor("Activation")
    cudnn("cudnnSetActivationDescriptor", activation, number, 0, 0.5)
    y, grad_x, of_x = np.full_like(x, np.nan), np.full_like(x, np.nan), cudnn.tensor(x)
    cudnn("cudnnActivationForward", None, activation, ONE, of_x, x, ZERO, of_x, y)
    cudnn("cudnnActivationBackward", None, activation, ONE, of_x, y, of_x, grad_y, of_x, x, ZERO, of_x, grad_x)
    assert_close(y, exact_y)
    assert_close(grad_x, exact_x.grad, 1e-6)  # of the rounded y


@pytest.mark.parametrize(("mode", "shape"), [(0, (2, 12)), (1, (2, 3, 4, 1))])
@pytest.mark.parametrize(("algorithm", "function"), [(1, functional.softmax), (2, functional.log_softmax)])
def test_softmax_and_its_gradient(cudnn, algorithm, function, mode, shape):
    x, grad_y = random(2, 3, 4, 1), random(2, 3, 4, 1, seed=1)
    exact_x = double(x)
    exact_y = function(exact_x.reshape(shape), dim=1).reshape(x.shape)
    exact_y.backward(double(grad_y))
    y, grad_x, of_x = np.full_like(x, np.nan), np.full_like(x, np.nan), cudnn.tensor(x)
    cudnn("cudnnSoftmaxForward", None, algorithm, mode, ONE, of_x, x, ZERO, of_x, y)
    cudnn("cudnnSoftmaxBackward", None, algorithm, mode, ONE, of_x, y, of_x, grad_y, ZERO, of_x, grad_x)
    assert_close(y, exact_y)
    assert_close(grad_x, exact_x.grad, 1e-6)  # of the rounded y


# NCCL, between threads instead of processes.


class UniqueId(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 128)]


@pytest.fixture(scope="module")
def nccl(stand_in):
    return Library(stand_in.folder / "lib" / "libnccl.so.2")


def each_of(number, nccl, work):
    """What `work(rank, communicator)` gives in each of so many that meet."""
    identity = UniqueId()
    nccl("ncclGetUniqueId", ctypes.byref(identity))

    def member(rank):
        communicator = ctypes.c_void_p()
        nccl("ncclCommInitRank", ctypes.byref(communicator), number, identity, rank)
        result = work(rank, communicator)
        nccl("ncclCommAbort", communicator)
        return result

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(member, range(number)))


NCCL_TYPES = {"float32": 7, "float16": 6, "int32": 2}


@pytest.mark.parametrize("dtype", NCCL_TYPES)
@pytest.mark.parametrize("number", range(5))
def test_all_get_the_reduction_of_all(nccl, number, dtype):
    size = 400_000  # more than is handed over at once
    given = [np.random.default_rng(rank).integers(1, 9, size).astype(dtype) for rank in range(3)]
    expected = (np.sum, np.prod, np.max, np.min, np.mean)[number](np.float64(given), axis=0)

    def work(rank, communicator):
        values = given[rank].copy()
        nccl("ncclAllReduce", values, values, ctypes.c_size_t(size), NCCL_TYPES[dtype], number, communicator, None)
        return values

    for found in each_of(3, nccl, work):
        assert np.array_equal(found, expected.astype(dtype))


def test_all_get_what_one_has(nccl):
    def work(rank, communicator):
        values = np.full(5, rank, np.float32)
        nccl("ncclBroadcast", values, values, ctypes.c_size_t(5), NCCL_TYPES["float32"], 1, communicator, None)
        return values

    assert np.array_equal(each_of(2, nccl, work), np.ones((2, 5)))


def test_all_get_what_each_has(nccl):
    def work(rank, communicator):
        own, all_values = np.full(300_000, rank, np.float32), np.empty((2, 300_000), np.float32)
        nccl("ncclAllGather", own, all_values, ctypes.c_size_t(own.size), NCCL_TYPES["float32"], communicator, None)
        return all_values

    for found in each_of(2, nccl, work):
        assert np.array_equal(found, np.repeat([[0.0], [1.0]], 300_000, axis=1))


def test_each_gets_its_part_of_the_sum(nccl):
    def work(rank, communicator):
        given, own = np.arange(6, dtype=np.float32), np.empty(3, np.float32)
        nccl("ncclReduceScatter", given, own, ctypes.c_size_t(3), NCCL_TYPES["float32"], 0, communicator, None)
        return own

    assert np.array_equal(each_of(2, nccl, work), [[0, 2, 4], [6, 8, 10]])

"""MindSpore's own CUDA kernels, and the calls of cuBLAS and cuDNN, on the stand-in GPU, each by an operator that
launches it, against NumPy or PyTorch in double."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, ops
from torch.nn import functional

INTEGERS = np.iinfo(np.int32)
DTYPES = {np.dtype(name): getattr(ms, name) for name in ("float32", "float16", "int32", "int64")}


@dataclass(frozen=True)
class Kernel:
    """An operator, what NumPy makes of the same inputs, and these."""

    operator: Callable
    expected: Callable
    inputs: tuple[np.ndarray, ...]

    def error(self) -> float:
        """The largest, as a share of the largest value or of 1."""
        value = self.operator(*map(Tensor, self.inputs)).asnumpy()
        expected = np.asarray(self.expected(*self.inputs))
        assert value.shape == expected.shape, f"{value.shape}, expected {expected.shape}"
        expected = expected.astype(np.float64)
        return float(np.abs(value.astype(np.float64) - expected).max() / max(1, np.abs(expected).max()))


def _random(*shape: int) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return (random.uniform(0.2, 2, shape) * random.choice([-1, 1], shape)).astype(np.float32)


def _positive(*shape: int) -> np.ndarray:
    return np.abs(_random(*shape))


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(INTEGERS.min, INTEGERS.max, shape, np.int32)


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def _layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta


def _added(x: np.ndarray, places: np.ndarray, updates: np.ndarray) -> np.ndarray:
    result = x.copy()
    np.add.at(result, tuple(places.T), updates)
    return result


def _sums(x: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return np.stack([x[segments == segment].sum(0) for segment in range(3)])


def _adam(weight, mean, square, gradient):
    mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
    return weight - 0.01 * (mean / (np.sqrt(square) + 1e-8) + 0.5 * weight)


def _updated_by_adam(weight, mean, square, gradient):
    weight = Parameter(weight)
    ops.AdamWeightDecay()(weight, Parameter(mean), Parameter(square), 0.01, 0.9, 0.999, 1e-8, 0.5, gradient)
    return weight


def _updated_by_momentum(weight, accumulated, gradient):
    weight = Parameter(weight)
    ops.ApplyMomentum()(weight, Parameter(accumulated), 0.01, gradient, 0.9)
    return weight


def _updated_by_descent(weight, gradient):
    weight = Parameter(weight)
    ops.ApplyGradientDescent()(weight, 0.01, gradient)
    return weight


def _flat(arrays) -> np.ndarray:
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def _differentiated(operator: Callable, expected: Callable, *inputs: np.ndarray) -> Kernel:
    """A function of both frameworks with its gradients, in a row."""

    def of_mindspore(*inputs):
        def weighted(*inputs):
            y = operator(*inputs)
            return (y.float() * Tensor(np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32))).sum(), y

        (_, y), gradients = ms.value_and_grad(weighted, tuple(range(len(inputs))), has_aux=True)(*inputs)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return Tensor(_flat(each.asnumpy() for each in (y, *gradients)).astype(np.float32))

    def of_torch(*inputs):
        inputs = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in inputs]
        y = expected(*inputs)
        (y * torch.arange(y.numel()).double().cos().reshape(y.shape)).sum().backward()
        return _flat(each.detach().numpy() for each in (y, *(array.grad for array in inputs)))

    return Kernel(of_mindspore, of_torch, inputs)


def _convolution(x, weight, padding=(0, 0), stride=1, dilation=1, groups=1, dtype="float32", last=False) -> Kernel:
    """last: of maps [N, H, W, C] and weights [D, height, width, C]."""
    options = {"stride": stride, "dilation": dilation, "group": groups, "data_format": "NHWC" if last else "NCHW"}
    borders = tuple(np.repeat(padding, 2).tolist())
    to_last, to_first = ((0, 2, 3, 1), (0, 3, 1, 2)) if last else ((0, 1, 2, 3),) * 2

    def expected(x, weight):
        x, weight = x.permute(to_first), weight.permute(to_first)
        return functional.conv2d(x, weight, None, stride, padding, dilation, groups).permute(to_last)

    inputs = [_random(*shape).transpose(to_last).copy().astype(dtype) for shape in (x, weight)]
    made = weight[0], weight[2:], 1, "pad", borders
    return _differentiated(lambda *x: ops.Conv2D(*made, **options)(*x), expected, *inputs)  # made on the GPU


def _batch_norm(training: bool, dtype: str, *shape: int) -> Kernel:
    mean, variance = (np.linspace(low, 2, shape[1], dtype=np.float32) for low in (-1, 0.5))

    def operator(x, scale, bias):
        averages = Parameter(mean, requires_grad=False), Parameter(variance, requires_grad=False)
        return ops.BatchNorm(training, 1e-3, 0.2)(x, scale, bias, *averages)[0]

    def expected(x, *weights):
        averages = torch.tensor(mean).double(), torch.tensor(variance).double()
        return functional.batch_norm(x, *averages, *weights, training, 0.2, 1e-3)

    weights = _random(shape[1]), _random(shape[1] + 1)[1:]
    x = _random(*shape).astype(dtype)
    if training:
        return _differentiated(operator, expected, x, *weights)
    return Kernel(operator, lambda *x: expected(*(torch.tensor(each).double() for each in x)).numpy(), (x, *weights))


def _averages(x: np.ndarray) -> Tensor:
    mean, variance = Parameter(np.ones(x.shape[1], np.float32)), Parameter(np.ones(x.shape[1], np.float32))
    ones = Tensor(np.ones(x.shape[1], np.float32))
    ops.BatchNorm(True, 1e-3, 0.2)(x, ones, ones, mean, variance)
    return ops.stack((mean, variance))


UNARY = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "erf": np.vectorize(math.erf),
    "neg": np.negative,
    "relu": lambda x: np.maximum(x, 0),
    "reciprocal": np.reciprocal,
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "less": np.less,
    "equal": np.equal,
    "greater_equal": np.greater_equal,
}
REDUCTIONS = {"ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max, "ReduceMin": np.min}
MATRIX, CUBE = _random(4, 4), _random(3, 4, 5)
PLACES = np.array([[0, 1], [2, 3], [0, 1]], np.int32)
PLACES_IN_CUBE = np.random.default_rng(0).integers(0, 4, (3, 6, 5), np.int32)
SEGMENTS = np.array([0, 2, 0, 1], np.int32)

KERNELS = {
    **{name: Kernel(getattr(ops, name), function, (_positive(3, 4),)) for name, function in UNARY.items()},
    **{
        f"{name}, {described}": Kernel(getattr(ops, name), function, (MATRIX, other))
        for name, function in BINARY.items()
        for described, other in {"same": MATRIX.T.copy(), "row": MATRIX[1], "column": MATRIX[:, :1]}.items()
    },
    "power": Kernel(ops.pow, np.power, (_positive(3, 4), _random(4))),
    "quotient": Kernel(ops.div, np.divide, (CUBE, _random(4, 1))),
    "remainder": Kernel(ops.floor_mod, np.mod, (np.arange(-9, 9, dtype=np.int32), np.array([5], np.int32))),
    "float16": Kernel(ops.add, np.add, (MATRIX.astype(np.float16), MATRIX[0].astype(np.float16))),
    "wrapping sum": Kernel(ops.add, np.add, (_integers(50), _integers(50, 1))),
    "wrapping product": Kernel(ops.mul, np.multiply, (_integers(50), _integers(50, 1))),
    "xor": Kernel(ops.bitwise_xor, np.bitwise_xor, (_integers(3, 4), _integers(1))),
    "right shift": Kernel(ops.bitwise_right_shift, np.right_shift, (_integers(3, 4), np.array([5], np.int32))),
    "both": Kernel(ops.logical_and, np.logical_and, (MATRIX > 0, MATRIX[0] > 0)),
    "masked": Kernel(ops.mul, np.multiply, (MATRIX > 0, CUBE[..., :4])),
    "where": Kernel(ops.where, np.where, (MATRIX > 0, MATRIX[:1], MATRIX[:, 1:2])),
    "masked fill": Kernel(lambda x, m: ops.masked_fill(x, m, -5.0), lambda x, m: np.where(m, -5, x), (CUBE, CUBE > 0)),
    **{
        f"{source} as {target}": Kernel(
            lambda x, target=target: ops.cast(x, DTYPES[target]),
            lambda x, target=target: x.astype(target),
            ((5 * _random(3, 4)).astype(source),),
        )
        for source in DTYPES
        for target in DTYPES
    },
    **{
        f"{name} {axes}": Kernel(
            lambda x, name=name, axes=axes: getattr(ops, name)()(x, axes),
            lambda x, function=function, axes=axes: function(x, axis=axes),
            (_random(2, 3, 4, 5),),
        )
        for name, function in REDUCTIONS.items()
        for axes in ((0,), (1,), (3,), (0, 2), (1, 2), (0, 1, 2, 3))
    },
    "largest": Kernel(lambda x: ops.argmax(x, 1), lambda x: x.argmax(1), (CUBE,)),
    "softmax": Kernel(lambda x: ops.softmax(x, 1), _softmax, (CUBE,)),
    "layer norm": Kernel(lambda *x: ops.LayerNorm(-1, -1, 1e-3)(*x)[0], _layer_norm, (CUBE, CUBE[0, 0], CUBE[1, 1])),
    "transposition": Kernel(lambda x: ops.transpose(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1), (CUBE,)),
    "repetition": Kernel(lambda x: ops.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), (MATRIX,)),
    "concatenation": Kernel(lambda *x: ops.concat(x, 1), lambda *x: np.concatenate(x, 1), (CUBE, CUBE[:, 1:3])),
    "stack": Kernel(lambda *x: ops.stack(x, 1), lambda *x: np.stack(x, 1), (CUBE, CUBE[::-1].copy())),
    "split": Kernel(lambda x: ops.split(x, 2, 1)[1], lambda x: x[:, 2:4], (CUBE,)),
    "unstack": Kernel(lambda x: ops.unstack(x, 1)[3], lambda x: x[:, 3], (CUBE,)),
    "slice": Kernel(lambda x: ops.slice(x, (1, 0, 2), (2, 3, 3)), lambda x: x[1:3, :3, 2:], (CUBE,)),
    "strided slice": Kernel(
        lambda x: ops.strided_slice(x, (0, 3, 1), (3, 0, 5), (2, -1, 3)), lambda x: x[::2, 3:0:-1, 1:5:3], (CUBE,)
    ),
    "slice's gradient": Kernel(
        ops.grad(lambda x: ops.square(x[1:, 1]).sum()),
        lambda x: np.where((np.indices(x.shape)[0] >= 1) & (np.indices(x.shape)[1] == 1), 2 * x, 0),
        (CUBE,),
    ),
    "gather": Kernel(lambda x, k: ops.gather(x, k, 1), lambda x, k: np.take(x, k, 1), (CUBE, PLACES)),
    "gather by element": Kernel(
        lambda x, k: ops.gather_elements(x, 1, k), lambda x, k: np.take_along_axis(x, k, 1), (CUBE, PLACES_IN_CUBE)
    ),
    "its gradient": Kernel(
        ops.grad(lambda x, k: ops.square(ops.gather_elements(x, 1, k)).sum()),
        lambda x, k: 2 * x * (k[:, :, None] == np.arange(4)[:, None]).sum(1),
        (CUBE, PLACES_IN_CUBE),
    ),
    "scattered sum": Kernel(ops.tensor_scatter_add, _added, (MATRIX, PLACES, MATRIX[0, :3])),
    "segments": Kernel(lambda x, k: ops.unsorted_segment_sum(x, k, 3), _sums, (MATRIX, SEGMENTS)),
    "Adam": Kernel(_updated_by_adam, _adam, (MATRIX, MATRIX.T.copy(), _positive(4, 4), MATRIX * MATRIX.T)),
    "momentum": Kernel(
        _updated_by_momentum, lambda x, v, g: x - 0.01 * (0.9 * v + g), (MATRIX, MATRIX.T.copy(), MATRIX * MATRIX.T)
    ),
    "product": _differentiated(ops.matmul, torch.matmul, _random(5, 7), _random(7, 4)),
    "product, transposed": _differentiated(
        ops.MatMul(True, True), lambda a, b: a.T @ b.T, _random(7, 5), _random(4, 7)
    ),
    "product in float16": _differentiated(
        ops.matmul, torch.matmul, _random(5, 7).astype(np.float16), _random(7, 4).astype(np.float16)
    ),
    "products": _differentiated(ops.BatchMatMul(), torch.matmul, _random(3, 4, 5), _random(3, 5, 2)),
    "products, transposed": _differentiated(
        ops.BatchMatMul(transpose_b=True), lambda a, b: a @ b.mT, _random(3, 4, 5), _random(3, 2, 5)
    ),
    "convolution": _convolution((2, 3, 6, 5), (4, 3, 3, 2)),
    "convolution, stride and padding": _convolution((2, 3, 7, 6), (4, 3, 3, 3), (1, 2), (2, 3)),
    "convolution, dilation": _convolution((1, 2, 9, 8), (3, 2, 3, 2), (2, 0), (2, 1), (2, 3)),
    "convolution, groups": _convolution((2, 6, 5, 5), (4, 3, 3, 3), (1, 1), (1, 2), groups=2),
    "convolution of each channel": _convolution((2, 4, 5, 5), (4, 1, 3, 3), (1, 1), groups=4),
    "convolution in float16": _convolution((2, 3, 7, 6), (4, 3, 3, 3), (1, 2), (2, 3), dtype="float16"),
    "convolution, channels last": _convolution((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (2, 2), last=True),
    **{
        f"BatchNorm {shape}, {dtype}, {training}": _batch_norm(training, dtype, *shape)
        for shape in ((4, 3, 5, 2), (6, 5))
        for dtype in ("float32", "float16")
        for training in (True, False)
    },
    "BatchNorm's averages": Kernel(
        _averages,
        lambda x: 0.8 + 0.2 * np.stack((x.mean((0, 2, 3)), x.swapaxes(0, 1).reshape(4, -1).var(1, ddof=1))),
        (_random(3, 4, 5, 2),),
    ),
    "largest of windows": _differentiated(
        ops.MaxPool(3, 2), lambda x: functional.max_pool2d(x, 3, 2), np.round(_random(2, 3, 7, 9))
    ),
    "mean of windows": _differentiated(
        ops.AvgPool((3, 2), (1, 2)), lambda x: functional.avg_pool2d(x, (3, 2), (1, 2)), _random(2, 3, 6, 8)
    ),
    "mean of windows, padded": _differentiated(
        ops.AvgPool(3, 2, "same"),
        lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        _random(2, 3, 7, 9),
    ),
    "sigmoid": _differentiated(ops.sigmoid, torch.sigmoid, _random(3, 4)),
    "tanh": _differentiated(ops.tanh, torch.tanh, _random(3, 4)),
    "ELU": _differentiated(ops.elu, functional.elu, _random(3, 4)),
    "ReLU6": _differentiated(ops.relu6, functional.relu6, 5 * _random(3, 4)),
    "softmax with its gradient": _differentiated(lambda x: ops.softmax(x, 1), lambda x: x.softmax(1), CUBE),
    "log softmax": _differentiated(ops.LogSoftmax(), lambda x: x.log_softmax(-1), _random(4, 6)),
    "bias": _differentiated(ops.BiasAdd(), lambda x, b: x + b[:, None, None], _random(2, 3, 4, 5), _random(3)),
    "bias of rows": _differentiated(ops.BiasAdd(), torch.add, _random(6, 5), _random(5)),
    "descent": Kernel(_updated_by_descent, lambda x, g: x - 0.01 * g, (MATRIX, MATRIX.T.copy())),
}


def kernel_error(name: str) -> float:
    return KERNELS[name].error()


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_what_numpy_computes(worker, name):
    # Each value is rounded once, to a type of 24 bits, or of 11 where float16 has a part.
    assert worker.do("kernel_error", name) <= (1e-3 if "float16" in name else 1e-6)

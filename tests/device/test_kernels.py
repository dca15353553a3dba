"""MindSpore's own CUDA kernels on the stand-in GPU, each by an operator that launches it, against NumPy."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, ops

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
    "descent": Kernel(_updated_by_descent, lambda x, g: x - 0.01 * g, (MATRIX, MATRIX.T.copy())),
}


def kernel_error(name: str) -> float:
    return KERNELS[name].error()


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_what_numpy_computes(worker, name):
    # Each value is rounded once, to a type of 24 bits, or of 11 where float16 has a part.
    assert worker.do("kernel_error", name) <= (1e-3 if "float16" in name else 1e-6)

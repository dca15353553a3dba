"""What PyNative needs on a GPU to neither copy nor wait between operators. A graph sees the same operators.

PyNative copies what an operator takes besides tensors to the device at each call: a number as an operand, an axis, a
transposition, even the factor 1 of the second operand of `x + y`. It waits for most of these copies.
"""

from functools import cache

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import Primitive

from ms_vireid.programs.ascend import on_ascend


@ops.constexpr
@cache
def constant(value: float | bool | tuple, dtype: ms.dtype) -> Tensor:
    """A number, or numbers, as an operand: a tensor that is made, and copied to the device, once."""
    return Tensor(value, dtype)


@ops.constexpr
@cache
def numbers(count: int) -> Tensor:
    """0 ... count - 1: int32 [count]."""
    return Tensor(list(range(count)), ms.int32)


@ops.constexpr
@cache
def ones(count: int) -> Tensor:
    """float32 [count]. (A graph that multiplies a tuple calls itself for each of its items, 1,000 times at most.)"""
    return Tensor([1.0] * count, ms.float32)


# Called as a `Primitive`, an operator is built with its axes and the like, once for these and the shapes. To an Ascend
# it would go by name, and goes ready if called as usual.
# (`ops.ReduceSum` and `ops.ReduceMean` are called so by MindSpore itself.)


class _BuiltOnce:
    def __call__(self, *inputs: Tensor | tuple[int, ...]) -> Tensor | tuple[Tensor, ...]:
        return super().__call__(*inputs) if on_ascend() else Primitive.__call__(self, *inputs, *self.options())

    def options(self) -> tuple:
        return ()


class _OfMatrices(_BuiltOnce):
    def options(self) -> tuple[bool, bool]:
        return self.transpose_a, self.transpose_b


class MatMul(_OfMatrices, ops.MatMul): ...


class BatchMatMul(_OfMatrices, ops.BatchMatMul): ...


class Transpose(_BuiltOnce, ops.Transpose):
    """Not a view: PyNative would copy that for each operator that reads it."""


class Softmax(_BuiltOnce, ops.Softmax):
    def options(self) -> tuple[int]:
        return (self.axis,)


class NLLLoss(_BuiltOnce, ops.NLLLoss):
    def options(self) -> tuple[str, int]:
        return self.reduction, self.ignore_index


class _AlongAxis(_BuiltOnce):
    def __call__(self, x: Tensor, axis: int) -> Tensor:
        return super().__call__(x, (axis,))

    def options(self) -> tuple[bool]:
        return (self.keep_dims,)


class ReduceMax(_AlongAxis, ops.ReduceMax): ...


class ReduceAny(_AlongAxis, ops.ReduceAny): ...


_sum = ops.ReduceSum()
_sum_kept = ops.ReduceSum(keep_dims=True)
_mean = ops.ReduceMean()
maximum = ReduceMax()
_maximum_kept = ReduceMax(keep_dims=True)
_chosen = NLLLoss("mean")
any_along = ReduceAny()
transpose = Transpose()


# What goes to an Ascend by name, or ready as `mint` has it.


def total(x: Tensor, axis: int | tuple[int, ...] = ()) -> Tensor:
    """The sum along axes, or of everything."""
    return mint.sum(x, None if axis == () else axis) if on_ascend() else _sum(x, axis)


def total_kept(x: Tensor, axis: int) -> Tensor:
    """The sum along an axis, which stays, of length 1."""
    return mint.sum(x, axis, keepdim=True) if on_ascend() else _sum_kept(x, axis)


def mean(x: Tensor, axis: int | tuple[int, ...] = ()) -> Tensor:
    """The mean along axes, or of everything."""
    return mint.mean(x, None if axis == () else axis) if on_ascend() else _mean(x, axis)


def stack(scalars: tuple[Tensor, ...]) -> Tensor:
    """[n]."""
    return mint.stack(scalars) if on_ascend() else ops.stack(scalars)


def plus_product(x: Tensor, y: Tensor, factor: Tensor) -> Tensor:
    """x + y * factor."""
    return mint.addcmul(x, y, factor) if on_ascend() else ops.addcmul(x, y, factor, constant(1.0, x.dtype))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return mint.nn.functional.softplus(x) if on_ascend() else ops.softplus(x)


def bitwise_and(x: Tensor, y: Tensor) -> Tensor:
    return mint.bitwise_and(x, y) if on_ascend() else ops.bitwise_and(x, y)


def bitwise_or(x: Tensor, y: Tensor) -> Tensor:
    return mint.bitwise_or(x, y) if on_ascend() else ops.bitwise_or(x, y)


def bitwise_xor(x: Tensor, y: Tensor) -> Tensor:
    return mint.bitwise_xor(x, y) if on_ascend() else ops.bitwise_xor(x, y)


def selected(x: Tensor, places: Tensor, axis: int) -> Tensor:
    """The places along an axis, int32 [n], one after another."""
    return mint.index_select(x, axis, places) if on_ascend() else ops.gather(x, places, axis)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows: [n, N], int32 [n] in 0 ... N - 1 -> float32 scalar. (MindSpore's own takes 26 kernels.)"""
    logits = logits.astype(ms.float32)
    shifted = ops.sub(logits, _maximum_kept(ops.stop_gradient(logits), -1))
    normaliser = mean(ops.log(total(ops.exp(shifted), -1)))
    return ops.add(normaliser, _chosen(shifted, labels, ones(logits.shape[1]))[0])


class ByHand(nn.Cell):
    """A cell of two tensors whose derivative is written out for PyNative, with the operators of this module: a method
    `derivative` with the arguments of a `bprop`.

    A graph differentiates `construct` by itself: with a `bprop` anywhere in it, MindSpore's compiler copies the weights
    that `engine.optimizer.SGD` reads, twice a step.
    """

    def __init__(self):
        super().__init__()
        self.differentiated = (_Differentiated(self),)  # not a part of this cell

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.differentiated[0](x, y)

    def derivative(self, x: Tensor, y: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class _Differentiated(nn.Cell):
    def __init__(self, cell: ByHand):
        super().__init__()
        self.methods = cell.construct, cell.derivative

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return self.methods[0](x, y)

    def bprop(self, x: Tensor, y: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return self.methods[1](x, y, out, gradient)


class Product(ByHand):
    """Of matrices, or of batches of them, the second of which may be transposed."""

    def __init__(self, transpose_y: bool = False, batches: bool = False):
        super().__init__()
        operator = BatchMatMul if batches else MatMul
        self.transpose_y = transpose_y
        self.plain = operator()
        self.second_transposed = operator(transpose_b=True)
        self.first_transposed = operator(transpose_a=True)

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., n, C] and [..., C, m], or with transpose_y [..., m, C] -> [..., n, m]."""
        return self.second_transposed(x, y) if self.transpose_y else self.plain(x, y)

    def derivative(self, x: Tensor, y: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        left, right = x.astype(gradient.dtype), y.astype(gradient.dtype)
        if self.transpose_y:
            grad_x, grad_y = self.plain(gradient, right), self.first_transposed(gradient, left)
        else:
            grad_x, grad_y = self.second_transposed(gradient, right), self.first_transposed(left, gradient)
        return grad_x.astype(x.dtype), grad_y.astype(y.dtype)


class Dense(nn.Dense):
    """x W^T + b: [..., C] -> [..., D]."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.matmul = Product(transpose_y=True)

"""What PyNative needs on a GPU to neither copy nor wait between operators. A graph sees the same operators.

PyNative copies what an operator takes besides tensors to the device at each call: a number as an operand, an axis, a
transposition, even the factor 1 of the second operand of `x + y`. It waits for most of these copies.
"""

from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import Primitive


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


# Called as a `Primitive`, an operator is built with its axes and the like, once for these and the shapes.
# (`ops.ReduceSum` and `ops.ReduceMean` are called so by MindSpore itself.)


class MatMul(ops.MatMul):
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return Primitive.__call__(self, x, y, self.transpose_a, self.transpose_b)


class BatchMatMul(ops.BatchMatMul):
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return Primitive.__call__(self, x, y, self.transpose_a, self.transpose_b)


class Transpose(ops.Transpose):
    """Not a view: PyNative would copy that for each operator that reads it."""

    def __call__(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return Primitive.__call__(self, x, axes)


class Softmax(ops.Softmax):
    def __call__(self, x: Tensor) -> Tensor:
        return Primitive.__call__(self, x, self.axis)


class NLLLoss(ops.NLLLoss):
    def __call__(self, x: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return Primitive.__call__(self, x, labels, weight, self.reduction, self.ignore_index)


class ReduceMax(ops.ReduceMax):
    def __call__(self, x: Tensor, axis: int) -> Tensor:
        return Primitive.__call__(self, x, (axis,), self.keep_dims)


class ReduceAny(ops.ReduceAny):
    def __call__(self, x: Tensor, axis: int) -> Tensor:
        return Primitive.__call__(self, x, (axis,), self.keep_dims)


total = ops.ReduceSum()
total_kept = ops.ReduceSum(keep_dims=True)
mean = ops.ReduceMean()
maximum = ReduceMax()
_maximum_kept = ReduceMax(keep_dims=True)
_chosen = NLLLoss("mean")
any_along = ReduceAny()
transpose = Transpose()


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

"""Replacements of methods and functions in a graph on a GPU.

Without a row, the compiled step takes more launches, copies, waits or memory, as the comment beside it says: counted on
the stand-in with the papers' batch of 64 (`python parity/benchmark.py --only replacements`).
"""

import math
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations import _grad_ops as gradients
from mindspore.ops.operations import nn_ops

from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, IntraModalityLearner, ResidualDepthwise
from ms_vireid.models.layers import Dropout, DropPath, constant
from ms_vireid.models.noise import Noise
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated
from ms_vireid.programs import optimizers
from ms_vireid.programs.graph import common
from ms_vireid.programs.graph.common import heads, product, product_transposed


class _Dense(nn.Cell):
    """x w^T + b. Automatic differentiation sums the bias's gradient by cuDNN, at a twentieth of memory's speed."""

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _matmul_transposed(x.reshape(-1, x.shape[-1]), weight)
        return _add_bias(rows, bias).reshape(*x.shape[:-1], -1)

    def bprop(self, x: Tensor, weight: Tensor, _bias: Tensor, _out: Tensor, gradient: Tensor) -> tuple:
        rows = gradient.reshape(-1, gradient.shape[-1])
        grad_weight = _transposed_matmul(rows, x.reshape(-1, x.shape[-1]))
        return _matmul(rows, weight).reshape(x.shape), grad_weight, rows.sum(0)


class _Gelu(nn.Cell):
    """u erfc(u), which is -sqrt(2) times the GELU of x = -sqrt(2) u. Automatic differentiation would keep three more
    tensors of the MLP's hidden size."""

    def construct(self, u: Tensor) -> Tensor:
        return u * ops.erfc(u)

    def bprop(self, u: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        # Operators with scalars or broadcasting are slow, except `addcdiv`, which has a kernel for it.
        growth = ops.exp(ops.square(u))  # infinite for large u, where the quotient is 0
        return (gradient * ops.addcdiv(ops.erfc(u), u, growth, constant(-2.0 / math.sqrt(math.pi), u.dtype)),)


class _Dead(nn.Cell):
    """Replaces dropped inputs of `_Gelu` by `DEAD`, where its value and gradient are 0: the gradient needs no mask."""

    def construct(self, u: Tensor, dropped: Tensor) -> Tensor:
        return u.masked_fill(dropped, constant(DEAD, u.dtype))

    def bprop(self, _u: Tensor, dropped: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, dropped


class _Kept(nn.Cell):
    """A branch after its last dropout and its drop path: multiplied by a tensor of factors, 0 where dropped, which
    takes a third of the time of broadcasting."""

    def construct(self, branch: Tensor, dropped: Tensor, factors: Tensor) -> Tensor:
        return branch * ops.where(dropped, constant(0.0, branch.dtype), factors)

    def bprop(self, _branch: Tensor, dropped: Tensor, factors: Tensor, _out: Tensor, gradient: Tensor) -> tuple:
        if gradient.dtype == ms.float32:  # computed again: keeping it would take 0.7 GiB of a PMT's step and save 3 ms
            dropped = ops.depend(dropped, gradient)
        return gradient * ops.where(dropped, constant(0.0, gradient.dtype), factors), dropped, factors


class _Softmax(nn.Cell):
    """Softmax over the last axis. Automatic differentiation would subtract each row's sum by broadcasting."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)

    def bprop(self, _x: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        sums = (gradient * out).sum(-1)
        difference = _add_to_channels(gradient.reshape(1, -1, gradient.shape[-1]), -sums.reshape(-1))
        return (difference.reshape(out.shape) * out,)


class _HalfDepthwise(nn.Cell):
    """A depth-wise convolution of float16 that computes output and input gradient in float32, by cuDNN: MindSpore's own
    kernels for float16 are slower."""

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        channels, _, kernel, _ = weight.shape
        convolution = ops.Conv2D(channels, kernel, pad_mode="pad", pad=kernel // 2, group=channels)
        return convolution(x.astype(ms.float32), weight.astype(ms.float32)).astype(x.dtype)

    def bprop(self, x: Tensor, weight: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        channels, _, kernel, _ = weight.shape
        options = {"pad_mode": "pad", "pad": kernel // 2, "pad_list": (kernel // 2,) * 4, "group": channels}
        grad_x = nn_ops.Conv2DBackpropInput(channels, kernel, **options)(
            gradient.astype(ms.float32), weight.astype(ms.float32), x.shape
        )
        grad_weight = gradients.Conv2DBackpropFilter(channels, kernel, **options)(gradient, x, weight.shape)
        return grad_x.astype(x.dtype), grad_weight


class _Joined(nn.Cell):
    """Joins tensors of one shape along an axis by selection. At every call, Concat copies its tensors' addresses to the
    device, which waits for them."""

    def construct(self, parts: tuple[Tensor, ...], axis: int) -> Tensor:
        shape, count = parts[0].shape, len(parts)
        joined = parts[count - 1].unsqueeze(axis)
        for i in range(count - 1):
            joined = ops.where(_is_place(i, count, axis, len(shape) + 1), parts[i].unsqueeze(axis), joined)
        return joined.reshape(*shape[:axis], count * shape[axis], *shape[axis + 1 :])

    def bprop(self, parts: tuple[Tensor, ...], axis: int, _out: Tensor, gradient: Tensor) -> tuple:
        size = parts[0].shape[axis]
        grad_parts = ()
        for i in range(len(parts)):
            grad_parts += (ops.narrow(gradient, axis, i * size, size),)
        return grad_parts, 0


class _Halves(nn.Cell):
    """Splits feature maps [N, C, H, W] into two of [N, C / 2, H, W]. Automatic differentiation would pad each half's
    gradient to full size and add them."""

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]

    def bprop(self, _x: Tensor, _out: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (_joined(gradients, 1),)


@ops.constexpr
@cache
def _is_place(i: int, count: int, axis: int, ndim: int) -> Tensor:
    """Mark the i-th of `count` places along one of `ndim` axes: bool [1, ..., count, ..., 1]."""
    return Tensor((np.arange(count) == i).reshape(-1, *[1] * (ndim - axis - 1)))


DEAD = 30.0  # erfc(u) and u / exp(u^2) are 0 there in float16 and float32
_dense, _gelu, _dead, _kept, _softmax = _Dense(), _Gelu(), _Dead(), _Kept(), _Softmax()
_half_depthwise, _joined, halves = _HalfDepthwise(), _Joined(), _Halves()
_concat = ops.concat
_matmul, _matmul_transposed, _transposed_matmul = ops.MatMul(), ops.MatMul(False, True), ops.MatMul(True)
_add_bias, _add_to_channels = ops.BiasAdd(), ops.BiasAdd("NCHW")  # cuDNN's, which are fast
_fill = ops.FillV2()
_MOST_JOINED = 3  # tensors: each but the last takes a pass over the result


_TRUE = Tensor([True])


@ops.constexpr
@cache
def _query_scales(width: int, head_dim: int, dtype: ms.Type) -> Tensor:
    """Factors of the weights' rows for queries, keys and values: [3 * width]."""
    scales = np.ones(3 * width)
    scales[:width] = head_dim**-0.5
    return Tensor(scales, dtype)


def _dropped(self: Dropout, noise: Noise) -> Tensor:
    """Compares two tensors, in a third of the time that a tensor and a scalar take."""
    positions = noise[0]
    numbers = self.numbers(positions)
    # From a tensor: the compiler would keep a constant one in memory.
    limit = ops.masked_fill(positions.reshape(-1)[:1], _TRUE, self.limit)
    return numbers < _fill(numbers.shape, limit.reshape(()))


def _after(drop: Dropout, path: DropPath, branch: Tensor, noise: Noise | None) -> Tensor:
    if not drop.training or drop.rate == 0.0:
        return path(branch, noise)
    return _kept(branch, _dropped(drop, noise), noise[1][path.layer].reshape(-1, 1, 1))


def _hidden(self: vit.Mlp, x: Tensor, noise: Noise | None) -> Tensor:
    """An MLP before its last dropout, with scalars multiplied into the weights."""
    root = -math.sqrt(0.5)
    u = _dense(x, self.fc1.weight * root, self.fc1.bias * root)
    if self.training and self.drop1.rate > 0.0:
        u = _dead(u, _dropped(self.drop1, noise).reshape(u.shape))
        root = root * self.drop1.scale
    return _dense(_gelu(u), self.fc2.weight * root, self.fc2.bias)


def _attended(self: vit.Attention, x: Tensor) -> Tensor:
    """Attention before its dropout, with the queries' scale multiplied into the weights."""
    scales = _query_scales(x.shape[-1], self.head_dim, x.dtype)
    qkv = _dense(x, self.qkv.weight * scales.unsqueeze(1), self.qkv.bias * scales)
    query, key, value = heads(qkv, self.num_heads)  # [N, heads, T, head_dim]
    attention = _softmax(product_transposed(query, key))  # [N, heads, T, T]
    return _dense(product(attention, value).swapaxes(1, 2).reshape(x.shape), self.proj.weight, self.proj.bias)


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    x = x + _after(self.attn.proj_drop, self.drop_path1, _attended(self.attn, self.norm1(x)), noise)
    hidden = _hidden(self.mlp, self.norm2(x), noise)
    return x + _after(self.mlp.drop2, self.drop_path2, hidden, noise)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    if self.group == 1 or x.dtype != ms.float16:
        return nn.Conv2d.construct(self, x)
    return _half_depthwise(x, self.weight)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return convolution(self, ops.relu(x)) + x


def _scaled(scale: Tensor, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution whose result is scaled by channel: scales the weight instead."""
    by_output = scale[0].unsqueeze(-1)  # [C, 1, 1, 1]; reshaping a weight would copy it
    weight = layer.weight * by_output.astype(layer.weight.dtype)
    return ops.Conv2D(weight.shape[0], 1)(x, weight)


def intra_modality_learner(self: IntraModalityLearner, x: Tensor) -> Tensor:
    first, second = halves(x)
    x = ops.cat((self.first(first), self.second(second)), 1)
    x = self.spatial(self.expand(self.bn1(x)))
    return _scaled(self.scale, self.reduce, self.bn2(x))


def cross_modality_learner(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    return _scaled(self.scale, self.fuse, self.bn(self.pyramids(visible, infrared)))


def prototypes(self: ModalityPrototypes, features: Tensor, beta: Tensor, labels: Tensor | None = None) -> Tensor:
    if self.by_identity:
        return ModalityPrototypes.construct(self, features, beta, labels)
    distilled = product_transposed(features.float(), self.projection)
    updated = accumulated(distilled, beta, self.memory, self.seen)
    for parameter, value in ((self.memory, ops.stop_gradient(updated)), (self.seen, 1.0)):
        ops.assign_sub(parameter, parameter - value)
    return updated


def cat(tensors: tuple[Tensor, ...], axis: int = 0) -> Tensor:
    for other in tensors[1:]:
        if other.shape != tensors[0].shape:
            return _concat(tensors, axis)
    if len(tensors) > _MOST_JOINED:
        return _concat(tensors, axis)
    return _joined(tensors, axis)


NOT_RECOMPUTED = (vit.Block.construct,)  # recomputing one with gradients of its own puts a cycle into MindSpore's graph
# Cost of a step without / with each row.
TABLE = {
    **optimizers.TABLE,
    **common.TABLE,
    # PMT: 1,286 launches for 1,219, 36 copies for 13; peak 16.1 GiB for 10.8. On an H100 (`--only costs`)
    # 442 ms for 282; with replacements that only saved memory 385 were measured, in float16 235 for 117. In float32
    # and float16, gradients of biases 64 for 2 and 59 for 2, GELU and numbers 49 for 20 and 39 for 13, dropout and
    # drop path 49 for 29 and 45 for 23, softmax's gradient 15 for 7 and 11 for 5.
    vit.Block.construct: block,
    nn.Conv2d.construct: convolution,  # MUN in float16, with the next: 95 ms for 89
    ResidualDepthwise.construct: residual_depthwise,
    IntraModalityLearner.construct: intra_modality_learner,  # MUN: 117 ms for 113
    CrossModalityLearner.construct: cross_modality_learner,  # MUN: 1 ms
    ModalityPrototypes.construct: prototypes,  # MUN: 15 copies for 11, for 2 launches more
    (ops, "cat"): cat,  # MUN: 21 copies for 11, for 2 launches more
}

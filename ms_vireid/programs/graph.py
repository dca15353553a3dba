"""What takes the place of cells in a graph on a GPU and on an Ascend: the tables.

Each function takes the place of its cell's `construct`. It stays because the compiled step launches, copies, waits or
holds more without it, as the comment beside it says: counted on the stand-ins with the papers' batch of 64
(`python parity/benchmark.py --only replacements`).
"""

import math
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate
from mindspore.ops.operations import _grad_ops as gradients
from mindspore.ops.operations import nn_ops

from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, IntraModalityLearner, ResidualDepthwise
from ms_vireid.models.layers import Dropout, DropPath, GeM, constant
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated


class _Dense(nn.Cell):
    """x w^T + b. Automatic differentiation lets cuDNN sum the bias's gradient, 20 times as long as memory takes."""

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _matmul_transposed(x.reshape(-1, x.shape[-1]), weight)
        return _add_bias(rows, bias).reshape(*x.shape[:-1], -1)

    def bprop(self, x: Tensor, weight: Tensor, _bias: Tensor, _out: Tensor, gradient: Tensor) -> tuple:
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_weight = _transposed_matmul(rows, x.reshape(-1, x.shape[-1]))
        return _matmul(rows, weight).reshape(x.shape), of_weight, rows.sum(0)


class _Gelu(nn.Cell):
    """u erfc(u), which is -sqrt(2) times the GELU of x = -sqrt(2) u. Automatic differentiation keeps three more tensors
    of the MLP's hidden size."""

    def construct(self, u: Tensor) -> Tensor:
        return u * ops.erfc(u)

    def bprop(self, u: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        # By operators without a number and without broadcasting, but for that of `addcdiv`, which has a kernel for it.
        growth = ops.exp(ops.square(u))  # infinite for a large u, where the quotient is 0
        return (gradient * ops.addcdiv(ops.erfc(u), u, growth, constant(-2.0 / math.sqrt(math.pi), u.dtype)),)


class _Dead(nn.Cell):
    """What `_Gelu` takes, with `DEAD` in the place of what is dropped: there its value and its gradient are 0, so that
    the gradient needs no mask."""

    def construct(self, u: Tensor, dropped: Tensor) -> Tensor:
        return u.masked_fill(dropped, constant(DEAD, u.dtype))

    def bprop(self, _u: Tensor, dropped: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, dropped


class _Kept(nn.Cell):
    """A branch after its last dropout and its drop path. By a tensor of factors, 0 for what is dropped: a tensor is
    multiplied by a tensor in a third of the time that it takes by broadcasting."""

    def construct(self, branch: Tensor, dropped: Tensor, factors: Tensor) -> Tensor:
        return branch * ops.where(dropped, constant(0.0, branch.dtype), factors)

    def bprop(self, _branch: Tensor, dropped: Tensor, factors: Tensor, _out: Tensor, gradient: Tensor) -> tuple:
        if gradient.dtype == ms.float32:  # made again: PMT's step would hold 0.7 GiB more, for 3 ms less
            dropped = ops.depend(dropped, gradient)
        return gradient * ops.where(dropped, constant(0.0, gradient.dtype), factors), dropped, factors


class _Softmax(nn.Cell):
    """Over the last axis. Automatic differentiation subtracts a sum of each row by broadcasting."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)

    def bprop(self, _x: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        sums = (gradient * out).sum(-1)
        less = _add_to_channels(gradient.reshape(1, -1, gradient.shape[-1]), -sums.reshape(-1))
        return (less.reshape(out.shape) * out,)


class _Heads(nn.Cell):
    """Queries, keys and values of all heads, [N, T, 3 * D] -> [N, heads, T, head_dim] of each. Automatic
    differentiation pads the gradient of each third to the whole and adds them."""

    def construct(self, qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, width = qkv.shape
        qkv = qkv.reshape(batch, tokens, 3, num_heads, width // (3 * num_heads)).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def bprop(self, qkv: Tensor, _num_heads: int, _out: tuple, gradients: tuple[Tensor, Tensor, Tensor]) -> tuple:
        # By selection: MindSpore's Stack copies the addresses of its tensors to the device.
        together = ops.where(_OF_QUERY, gradients[0], ops.where(_OF_KEY, gradients[1], gradients[2]))
        return together.permute(1, 3, 0, 2, 4).reshape(qkv.shape), 0


class _HalfDepthwise(nn.Cell):
    """A depth-wise convolution of float16 whose output and input gradient are computed in float32: by cuDNN, where
    MindSpore has kernels of its own for float16."""

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        channels, _, kernel, _ = weight.shape
        convolution = ops.Conv2D(channels, kernel, pad_mode="pad", pad=kernel // 2, group=channels)
        return convolution(x.astype(ms.float32), weight.astype(ms.float32)).astype(x.dtype)

    def bprop(self, x: Tensor, weight: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        channels, _, kernel, _ = weight.shape
        how = {"pad_mode": "pad", "pad": kernel // 2, "pad_list": (kernel // 2,) * 4, "group": channels}
        of_x = nn_ops.Conv2DBackpropInput(channels, kernel, **how)(
            gradient.astype(ms.float32), weight.astype(ms.float32), x.shape
        )
        of_weight = gradients.Conv2DBackpropFilter(channels, kernel, **how)(gradient, x, weight.shape)
        return of_x.astype(x.dtype), of_weight


class _GeM(nn.Cell):
    """As `GeM`. Automatic differentiation makes three more maps."""

    def construct(self, x: Tensor, power: float, eps: float) -> Tensor:
        cubed = x * ops.square(x) if power == 3.0 else x.pow(power)
        return (cubed.mean((2, 3)) + eps).pow(1.0 / power)

    def bprop(self, x: Tensor, power: float, _eps: float, out: Tensor, gradient: Tensor) -> tuple:
        rows, columns = x.shape[2:]
        of_mean = gradient * out.pow(1.0 - power) * (1.0 / (rows * columns))
        squared = ops.square(x) if power == 3.0 else x.pow(power - 1.0)
        return squared * of_mean.unsqueeze(-1).unsqueeze(-1), 0, 0


class Joined(nn.Cell):
    """In place of an `ops.Concat` that a cell holds, of tensors of one shape: by selection, as the device is given the
    addresses of Concat's tensors at every call, and waits for them."""

    def __init__(self, concat: ops.Concat):
        super().__init__()
        self.axis = concat.axis

    def construct(self, parts: tuple[Tensor, ...]) -> Tensor:
        axis, shape, count = self.axis, parts[0].shape, len(parts)
        joined = parts[count - 1].unsqueeze(axis)
        for i in range(count - 1):
            joined = ops.where(_is_place(i, count, axis, len(shape) + 1), parts[i].unsqueeze(axis), joined)
        return joined.reshape(*shape[:axis], count * shape[axis], *shape[axis + 1 :])

    def bprop(self, parts: tuple[Tensor, ...], _out: Tensor, gradient: Tensor) -> tuple[tuple[Tensor, ...]]:
        size = parts[0].shape[self.axis]
        gradients = ()
        for i in range(len(parts)):
            gradients += (ops.narrow(gradient, self.axis, i * size, size),)
        return (gradients,)


class _Halves(nn.Cell):
    """Feature maps [N, C, H, W] as two of [N, C / 2, H, W]. Automatic differentiation pads the gradient of each to the
    whole and adds them."""

    def __init__(self):
        super().__init__()
        self.joined = Joined(ops.Concat(1))

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]

    def bprop(self, _x: Tensor, _out: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (self.joined(gradients),)


@ops.constexpr
@cache
def _is_place(i: int, count: int, axis: int, ndim: int) -> Tensor:
    """Which of `count` places along one of `ndim` axes is the i-th: bool [1, ..., count, ..., 1]."""
    return Tensor((np.arange(count) == i).reshape(-1, *[1] * (ndim - axis - 1)))


_OF_QUERY, _OF_KEY = (Tensor(np.arange(3).reshape(3, 1, 1, 1, 1) == i) for i in range(2))
DEAD = 30.0  # of which erfc, and u over the exponential of its square, are 0 in float16 and float32
_dense, _gelu, _dead, _kept, _softmax = _Dense(), _Gelu(), _Dead(), _Kept(), _Softmax()
_heads, _half_depthwise, _gem, _halves = _Heads(), _HalfDepthwise(), _GeM(), _Halves()
_convolution = auto_generate.Conv2DExt()
_product, _product_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)
_matmul, _matmul_transposed, _transposed_matmul = ops.MatMul(), ops.MatMul(False, True), ops.MatMul(True)
_add_bias, _add_to_channels = ops.BiasAdd(), ops.BiasAdd("NCHW")  # cuDNN's, which is fast
_fill = ops.FillV2()


@ops.constexpr
@cache
def _query_scales(width: int, head_dim: int, dtype: ms.Type) -> Tensor:
    """What rows of the weights of queries, keys and values are multiplied by: [3 * width]."""
    scales = np.ones(3 * width)
    scales[:width] = head_dim**-0.5
    return Tensor(scales, dtype)


def _dropped(self: Dropout, noise: Tensor) -> Tensor:
    """Two tensors are compared in a third of the time that a tensor and a number take."""
    numbers = self.numbers(noise)
    limit = noise.reshape(-1)[:1] & 0 | self.limit  # of a number alone the compiler makes a tensor that stays
    return numbers < _fill(numbers.shape, limit.reshape(()))


def _after(drop: Dropout, path: DropPath, branch: Tensor, factors: Tensor, noise: Tensor) -> Tensor:
    if not drop.training or drop.rate == 0.0:
        return path(branch, factors)
    return _kept(branch, _dropped(drop, noise), factors[path.layer].reshape(-1, 1, 1))


def _hidden(self: vit.Mlp, x: Tensor, noise: Tensor | None) -> Tensor:
    """An MLP before its last dropout, with numbers multiplied into weights."""
    root = -math.sqrt(0.5)
    u = _dense(x, self.fc1.weight * root, self.fc1.bias * root)
    if self.training and self.drop1.rate > 0.0:
        u = _dead(u, _dropped(self.drop1, noise).reshape(u.shape))
        root = root * self.drop1.scale
    return _dense(_gelu(u), self.fc2.weight * root, self.fc2.bias)


def _attended(self: vit.Attention, x: Tensor) -> Tensor:
    """Attention before its dropout, with the queries' factor multiplied into weights."""
    scales = _query_scales(x.shape[-1], self.head_dim, x.dtype)
    qkv = _dense(x, self.qkv.weight * scales.unsqueeze(1), self.qkv.bias * scales)
    query, key, value = _heads(qkv, self.num_heads)  # [N, heads, T, head_dim]
    attention = _softmax(_product_transposed(query, key))  # [N, heads, T, T]
    return _dense(_product(attention, value).swapaxes(1, 2).reshape(x.shape), self.proj.weight, self.proj.bias)


def block(self: vit.Block, x: Tensor, factors: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    x = x + _after(self.attn.proj_drop, self.drop_path1, _attended(self.attn, self.norm1(x)), factors, noise)
    hidden = _hidden(self.mlp, self.norm2(x), noise)
    return x + _after(self.mlp.drop2, self.drop_path2, hidden, factors, noise)


def gpu_convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    if self.group == 1 or x.dtype != ms.float16:
        return nn.Conv2d.construct(self, x)
    return _half_depthwise(x, self.weight)


def gpu_residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return gpu_convolution(self, ops.relu(x)) + x


def _scaled(scale: Tensor, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution whose result is multiplied by a factor for each channel, by a weight that is."""
    weight = layer.weight * scale.reshape(-1, 1, 1, 1).astype(layer.weight.dtype)
    return ops.Conv2D(weight.shape[0], 1)(x, weight)


def intra_modality_learner(self: IntraModalityLearner, x: Tensor) -> Tensor:
    first, second = _halves(x)
    x = self.concat((self.first(first), self.second(second)))
    x = self.spatial(self.expand(self.bn1(x)))
    return _scaled(self.scale, self.reduce, self.bn2(x))


def cross_modality_learner(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    return _scaled(self.scale, self.fuse, self.bn(self.pyramids(visible, infrared)))


def gem(self: GeM, x: Tensor) -> Tensor:
    if self.learned:
        return GeM.construct(self, x)
    return _gem(x.astype(ms.float32), self.power, self.eps)


def prototypes(self: ModalityPrototypes, features: Tensor, beta: Tensor, labels: Tensor | None = None) -> Tensor:
    if self.by_identity:
        return ModalityPrototypes.construct(self, features, beta, labels)
    distilled = _product_transposed(features.float(), self.projection)
    made = accumulated(distilled, beta, self.memory, self.seen)
    for parameter, value in ((self.memory, ops.stop_gradient(made)), (self.seen, 1.0)):
        ops.assign_sub(parameter, parameter - value)
    return made


def ascend_gelu(self: nn.GELU, x: Tensor) -> Tensor:
    return mint.nn.functional.gelu(x)


def attention(self: vit.Attention, x: Tensor, noise: Tensor | None) -> Tensor:
    query, key, value = _heads(self.qkv(x), self.num_heads)  # [N, heads, T, head_dim]
    scores = _product_transposed(query * self.head_dim**-0.5, key)  # [N, heads, T, T]
    out = _product(ops.softmax(scores, -1), value).swapaxes(1, 2).reshape(x.shape)
    return self.proj_drop(self.proj(out), noise)


def cross_entropy(self: nn.CrossEntropyLoss, logits: Tensor, labels: Tensor) -> Tensor:
    return mint.nn.functional.cross_entropy(logits, labels)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return mint.nn.functional.layer_norm(x, self.normalized_shape, self.gamma, self.beta, self.epsilon)


def dense(self: nn.Dense, x: Tensor) -> Tensor:
    return mint.nn.functional.linear(x, self.weight, self.bias)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    """By the operator itself: `mint.nn.functional.conv2d` is not computed again by `Cell.recompute`."""
    padding = (0, 0) if self.pad_mode == "valid" else (self.padding, self.padding)
    return _convolution(x, self.weight, self.bias, self.stride, padding, self.dilation, self.group)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return convolution(self, ops.relu(x)) + x


def transposed_convolution(self: nn.Conv2dTranspose, x: Tensor) -> Tensor:
    return mint.nn.functional.conv_transpose2d(x, self.weight, self.bias, self.stride)


def batch_norm(self: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not isinstance(self.bn_train, ops.BatchNorm):  # by the statistics of several processes
        return nn.BatchNorm2d.construct(self, x)
    held = self.moving_mean, self.moving_variance, self.gamma, self.beta
    return mint.nn.functional.batch_norm(x, *held, self.training, self.momentum, self.eps)


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    given = x.astype(ms.float32) if x.dtype == ms.bfloat16 else x  # which MindSpore refuses there
    return mint.nn.functional.max_pool2d(given, self.kernel_size, self.stride, self.padding[1:]).astype(x.dtype)


def average_pool(self: nn.AvgPool2d, x: Tensor) -> Tensor:
    return mint.nn.functional.avg_pool2d(x, self.kernel_size, self.stride)


NOT_RECOMPUTED = (vit.Block,)  # MindSpore makes a circle of the graph of one whose gradients are its own

# By the device: what takes the place of which cells, and what a step of a method asks without it, for with it.
GRAPH = {
    "GPU": {
        # PMT: 1,286 launches for 1,219, 36 copies for 13; peak 16.1 GiB for 10.8. On an H100 (`--only costs`)
        # 442 ms for 282; with replacements that only saved memory 385 were measured, in float16 235 for 117. In float32
        # and float16, gradients of biases 64 for 2 and 59 for 2, GELU and numbers 49 for 20 and 39 for 13, dropout and
        # drop path 49 for 29 and 45 for 23, softmax's gradient 15 for 7 and 11 for 5.
        vit.Block: block,
        nn.Conv2d: gpu_convolution,  # MUN in float16, with the next: 95 ms for 89
        ResidualDepthwise: gpu_residual_depthwise,
        IntraModalityLearner: intra_modality_learner,  # MUN: 1,050 launches for 1,038, 117 ms for 113
        CrossModalityLearner: cross_modality_learner,  # MUN: 1 ms
        GeM: gem,  # AGW: 727 launches for 720, 0.7 ms of cubes and squares less; MUN: 1,057 for 1,050
        nn.CrossEntropyLoss: cross_entropy,  # AGW: 769 launches for 720; MUN: 1,184 for 1,050
        ops.Concat: Joined,  # MUN: 21 copies for 11, for 2 launches more
        ModalityPrototypes: prototypes,  # MUN: 15 copies for 11, for 2 launches more
    },
    "Ascend": {  # where many launches are by name, which CANN compiles at their first use
        GeM: gem,  # AGW: 581 launches for 576
        nn.GELU: ascend_gelu,  # PMT: 1,293 launches for 1,137; peak 14.6 GiB for 10.9
        vit.Attention: attention,  # PMT: 1,173 launches for 1,137; peak 12.4 GiB for 10.9
        nn.CrossEntropyLoss: cross_entropy,  # AGW: 628 launches for 576; MUN: 1,043 for 904
        nn.LayerNorm: layer_norm,  # PMT: 232 by name for 182
        nn.Dense: dense,  # PMT: 1,183 launches for 1,137, 278 by name for 182
        nn.Conv2d: convolution,  # AGW: 688 launches for 576, 303 by name for 43
        ResidualDepthwise: residual_depthwise,  # MUN: 131 by name for 125
        nn.Conv2dTranspose: transposed_convolution,  # MUN: 149 by name for 125
        nn.BatchNorm1d: batch_norm,  # PMT: 186 by name for 182
        nn.BatchNorm2d: batch_norm,  # AGW: 694 launches for 576, 279 by name for 43
        nn.MaxPool2d: max_pool,  # AGW: 47 by name for 43, some of them by the slow AI CPU
        nn.AvgPool2d: average_pool,  # MUN: 141 by name for 125
    },
}
# Of operators one by one what gives other numbers: MindSpore hands the gradient of `nn.LayerNorm` to an Ascend without
# its epsilon, and CANN takes 1e-12; the older BatchNorm takes a variance for the mean of squares less the squared mean.
OPERATORS = {"Ascend": {nn.LayerNorm: layer_norm, nn.BatchNorm1d: batch_norm, nn.BatchNorm2d: batch_norm}}


def replacements(program: str) -> dict:
    """The table of a program, "graph", "cuda" or "operators", on the device that is set."""
    table = (OPERATORS if program == "operators" else GRAPH).get(ms.get_context("device_target"), {})
    if program == "cuda":
        from ms_vireid.programs.cuda import operators  # which compiles them

        return table | operators.CELLS
    return table

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

from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.models.layers import GeM, constant
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated


class _TwiceGelu(nn.Cell):
    """x erfc(-x / sqrt 2). Automatic differentiation keeps three more tensors of the MLP's hidden size."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.erfc(x * -math.sqrt(0.5))

    def bprop(self, x: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        dtype = x.dtype
        scaled = x * -math.sqrt(0.5)
        square = ops.addcmul(constant(0.0, dtype), scaled, x, constant(math.sqrt(0.5), dtype))  # -x^2 / 2
        slope = ops.addcmul(ops.erfc(scaled), x, ops.exp(square), constant(math.sqrt(2.0 / math.pi), dtype))
        return (gradient * slope,)


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


class _GeM(nn.Cell):
    """As `GeM`. Automatic differentiation makes three more maps."""

    def construct(self, x: Tensor, power: float, eps: float) -> Tensor:
        return (x.pow(power).mean((2, 3)) + eps).pow(1.0 / power)

    def bprop(self, x: Tensor, power: float, _eps: float, out: Tensor, gradient: Tensor) -> tuple:
        rows, columns = x.shape[2:]
        of_mean = gradient * out.pow(1.0 - power) * (1.0 / (rows * columns))
        return x.pow(power - 1.0) * of_mean.unsqueeze(-1).unsqueeze(-1), 0, 0


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


@ops.constexpr
@cache
def _is_place(i: int, count: int, axis: int, ndim: int) -> Tensor:
    """Which of `count` places along one of `ndim` axes is the i-th: bool [1, ..., count, ..., 1]."""
    return Tensor((np.arange(count) == i).reshape(-1, *[1] * (ndim - axis - 1)))


_OF_QUERY, _OF_KEY = (Tensor(np.arange(3).reshape(3, 1, 1, 1, 1) == i) for i in range(2))
_twice_gelu, _heads, _gem = _TwiceGelu(), _Heads(), _GeM()
_convolution = auto_generate.Conv2DExt()
_product, _product_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)


def mlp(self: vit.Mlp, x: Tensor, noise: Tensor | None, multipliers: Tensor | None) -> Tensor:
    x = _twice_gelu(self.fc1(x))
    scale = self.drop1.scale if self.training else 1.0
    x = self.drop1.masked(x, noise, multipliers) * (0.5 * scale)
    return self.drop2(self.fc2(x), noise, multipliers)


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


def attention(self: vit.Attention, x: Tensor, noise: Tensor | None, multipliers: Tensor | None) -> Tensor:
    query, key, value = _heads(self.qkv(x), self.num_heads)  # [N, heads, T, head_dim]
    scores = _product_transposed(query * self.head_dim**-0.5, key)  # [N, heads, T, T]
    out = _product(ops.softmax(scores, -1), value).swapaxes(1, 2).reshape(x.shape)
    return self.proj_drop(self.proj(out), noise, multipliers)


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


# By the device: what takes the place of which cells, and what a step of a method asks without it, for with it.
GRAPH = {
    "GPU": {
        vit.Mlp: mlp,  # PMT: 1,313 launches for 1,217; peak 14.6 GiB for 11.0
        vit.Attention: attention,  # PMT: 1,253 launches for 1,217, 35 copies for 11; peak 12.5 GiB for 11.0
        GeM: gem,  # AGW: 727 launches for 720; MUN: 1,057 for 1,050
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

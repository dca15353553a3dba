"""What takes the place of cells in a graph on a GPU and on an Ascend: the tables.

Each function takes the place of its cell's `construct`. It stays because the compiled step launches, copies, waits or
holds more without it, as the comment beside it says: counted on the stand-ins with the papers' batch of 64
(`python parity/benchmark.py --only replacements`).
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

from ms_vireid.models import auxiliary_generator, layers, vit
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated


class _Gelu(nn.Cell):
    """x (1 + erf(x / sqrt 2)) / 2. Automatic differentiation keeps three more tensors of the MLP's hidden size."""

    def construct(self, x: Tensor) -> Tensor:
        return x * self.distribution(x)

    def bprop(self, x: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        density = ops.exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
        return (gradient * (self.distribution(x) + x * density),)

    def distribution(self, x: Tensor) -> Tensor:
        return (ops.erf(x * math.sqrt(0.5)) + 1.0) * 0.5


class _Masked(nn.Cell):
    """x with zeros where `dropped`, times `scale`. Automatic differentiation sums the gradient of what is filled in."""

    def construct(self, x: Tensor, dropped: Tensor, scale: float) -> Tensor:
        return x.masked_fill(dropped, 0.0) * scale

    def bprop(self, _x: Tensor, dropped: Tensor, scale: float, _out: Tensor, gradient: Tensor) -> tuple:
        return gradient.masked_fill(dropped, 0.0) * scale, ops.zeros_like(dropped), 0.0


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


_OF_QUERY, _OF_KEY = (Tensor(np.arange(3).reshape(3, 1, 1, 1, 1) == i) for i in range(2))
_IS_FIRST = Tensor(np.arange(2).reshape(1, 2, 1, 1, 1) == 0)
_gelu, _masked, _heads = _Gelu(), _Masked(), _Heads()
_product, _product_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)


def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    return _gelu(x)


def intra_modality_learner(self: auxiliary_generator.IntraModalityLearner, x: Tensor) -> Tensor:
    first, second = x[:, : self.half], x[:, self.half :]
    parts = self.first(first).unsqueeze(1), self.second(second).unsqueeze(1)  # [N, 1, C / 2, H, W] each
    x = self.expand(self.bn1(ops.where(_IS_FIRST, *parts).reshape(x.shape)))
    x = self.spatial(ops.relu(x)) + x
    return self.scale * self.reduce(self.bn2(x))


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


def dropout(self: layers.Dropout, x: Tensor, noise: Tensor | None, multipliers: Tensor | None) -> Tensor:
    if not self.training or self.rate == 0.0:
        return x
    own = multipliers[self.layer : self.layer + self.parts].reshape(self.parts, 1)
    dropped = noise.unsqueeze(-2) * own < self.limit  # [..., parts, C]
    return _masked(x, dropped.reshape(x.shape), self.scale)


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
    padding = 0 if self.pad_mode == "valid" else self.padding
    return mint.nn.functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.group)


def transposed_convolution(self: nn.Conv2dTranspose, x: Tensor) -> Tensor:
    return mint.nn.functional.conv_transpose2d(x, self.weight, self.bias, self.stride)


def batch_norm(self: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not isinstance(self.bn_train, ops.BatchNorm):  # by the statistics of several processes
        return nn.BatchNorm2d.construct(self, x)
    held = self.moving_mean, self.moving_variance, self.gamma, self.beta
    return mint.nn.functional.batch_norm(x, *held, self.training, self.momentum, self.eps)


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    return mint.nn.functional.max_pool2d(x, self.kernel_size, self.stride, self.padding[1:])


def average_pool(self: nn.AvgPool2d, x: Tensor) -> Tensor:
    return mint.nn.functional.avg_pool2d(x, self.kernel_size, self.stride)


# By the device: what takes the place of which cells, and what the step asks more without it.
GRAPH = {
    "GPU": {
        nn.GELU: gelu,
        layers.Dropout: dropout,
        vit.Attention: attention,
        nn.CrossEntropyLoss: cross_entropy,
        auxiliary_generator.IntraModalityLearner: intra_modality_learner,
        ModalityPrototypes: prototypes,
    },
    "Ascend": {
        nn.GELU: ascend_gelu,
        layers.Dropout: dropout,
        vit.Attention: attention,
        nn.CrossEntropyLoss: cross_entropy,
        nn.LayerNorm: layer_norm,
        nn.Dense: dense,
        nn.Conv2d: convolution,
        nn.Conv2dTranspose: transposed_convolution,
        nn.BatchNorm1d: batch_norm,
        nn.BatchNorm2d: batch_norm,
        nn.MaxPool2d: max_pool,
        nn.AvgPool2d: average_pool,
    },
}
# Of operators one by one what gives other numbers: MindSpore hands the gradient of `nn.LayerNorm` to an Ascend without
# its epsilon, and CANN takes 1e-12; the older BatchNorm takes a variance for the mean of squares less the squared mean.
OPERATORS = {"Ascend": {nn.LayerNorm: layer_norm, nn.BatchNorm1d: batch_norm, nn.BatchNorm2d: batch_norm}}


def replacements(program: str) -> dict:
    """The table of a program, "graph" or "operators", on the device that is set."""
    return (GRAPH if program == "graph" else OPERATORS).get(ms.get_context("device_target"), {})

"""Layers of feature maps by the CUDA kernels."""

from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_vireid.config.models import check_pooled
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, ResidualDepthwise
from ms_vireid.models.layers import GeM
from ms_vireid.models.resnet import Bottleneck, ResNet
from ms_vireid.programs.cuda import build
from ms_vireid.programs.cuda.operators import PARTS, floats, operator, same, writing

_BLOCKS = build.constant("BLOCKS")
_PLACES = 2048  # at least, of a channel, for a block


def _channel_parts(x: tuple) -> int:
    """Blocks among which a channel of feature maps [N, C, H, W] is divided."""
    batch, channels, height, width = x
    return max(1, min(PARTS, -(-_BLOCKS // channels), batch * height * width // _PLACES))


class Depthwise(nn.Cell):
    """Depth-wise convolution of x [N, C, H, W] with weight [C, 1, K, K], stride 1, "same" padding. residual: convolve
    ReLU(x), add x."""

    def __init__(self, residual: bool = False):
        super().__init__()
        name = "residual_depthwise" if residual else "depthwise"
        self.forward = operator(name, same, same)
        self.backward = operator(
            f"{name}_gradient", self._shapes, lambda gradient, *_: (gradient, ms.float32, gradient)
        )

    @staticmethod
    def _shapes(gradient: tuple, weight: tuple, *_) -> tuple:
        return gradient, (_channel_parts(gradient), *weight), weight

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.forward(x, weight)

    def bprop(self, x, weight, _out, gradient):
        grad_x, _, grad_weight = self.backward(gradient, weight, x)
        return grad_x, grad_weight


class BatchNorm(nn.Cell):
    """BatchNorm in training of x [N, C, H, W], or its ReLU, and the statistics [2, C]; updates the running averages.

    numbers: float32 [2], eps and the momentum of new statistics.
    """

    def __init__(self, relu: bool = False):
        super().__init__()
        name = "batch_norm_relu" if relu else "batch_norm"
        self.forward = _normalisation(name)
        self.backward = operator(f"{name}_gradient", _gradient_shapes, _gradient_types)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, statistics, _ = self.forward(x, gamma, beta, mean, variance, numbers)
        return out, statistics

    def bprop(self, x, gamma, beta, mean, variance, numbers, out, gradients):
        grad_x, _, grad_gamma, grad_beta = self.backward(gradients[0], x, gamma, beta, out[1])
        return grad_x, grad_gamma, grad_beta, ops.zeros_like(mean), ops.zeros_like(variance), ops.zeros_like(numbers)


class BatchNormAdd(nn.Cell):
    """As `BatchNorm`, plus `rest`, or ReLU of that."""

    def __init__(self, relu: bool = False):
        super().__init__()
        self.relu = relu
        self.forward = _normalisation("batch_norm_add_relu" if relu else "batch_norm_add", rest=True)
        self.backward = (
            operator("batch_norm_add_relu_gradient", _with_rest(_gradient_shapes), _with_rest(_gradient_types))
            if relu
            else operator("batch_norm_gradient", _gradient_shapes, _gradient_types)
        )

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, numbers: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, statistics, _ = self.forward(x, gamma, beta, mean, variance, numbers, rest)
        return out, statistics

    def bprop(self, x, gamma, beta, mean, variance, numbers, rest, out, gradients):
        grad_rest = gradients[0]
        if self.relu:
            grad_x, _, grad_gamma, grad_beta, grad_rest = self.backward(grad_rest, x, gamma, beta, out[1], out[0])
        else:
            grad_x, _, grad_gamma, grad_beta = self.backward(grad_rest, x, gamma, beta, out[1])
        zeros = ops.zeros_like(mean), ops.zeros_like(variance), ops.zeros_like(numbers)
        return grad_x, grad_gamma, grad_beta, *zeros, grad_rest


def _normalisation(name: str, rest: bool = False) -> ops.Custom:
    """Writes its inputs 3 and 4, the running averages."""
    return writing(
        name,
        written=(3, 4),
        inputs=7 if rest else 6,
        shapes=lambda x, *_: (x, (2, x[1]), (x[1], _channel_parts(x), 2)),
        types=lambda x, *_: (x, ms.float32, ms.float32),
    )


def _gradient_shapes(x: tuple, *_) -> tuple:
    channels = (x[1],)
    return x, (x[1], _channel_parts(x), 2), channels, channels


def _gradient_types(x: ms.Type, *_) -> tuple:
    return x, ms.float32, ms.float32, ms.float32


def _with_rest(outputs):
    return lambda x, *others: (*outputs(x, *others), x)


class Pooling(nn.Cell):
    """(mean(x^power) + eps)^(1 / power) over all places of x [N, C, H, W]: float32 [N, C]. numbers: power and eps."""

    def __init__(self):
        super().__init__()
        self.forward = operator("gem", lambda x, _: x[:2], lambda *_: ms.float32)
        self.backward = operator("gem_gradient", lambda _1, _2, x, _3: x, lambda _1, _2, x, _3: x)

    def construct(self, x: Tensor, numbers: Tensor) -> Tensor:
        return self.forward(x, numbers)

    def bprop(self, x, numbers, out, gradient):
        return self.backward(gradient, out, x, numbers), ops.zeros_like(numbers)


class MaxPool(nn.Cell):
    """Max pooling of [N, C, H, W] by 3x3 windows of stride 2 with a border of one, and where each maximum is in its
    window."""

    def __init__(self):
        super().__init__()
        self.forward = operator("max_pool", self._shapes, lambda x: (x, ms.uint8))
        self.backward = operator("max_pool_gradient", lambda _1, _2, x: x, lambda _1, _2, x: x)

    @staticmethod
    def _shapes(x: tuple) -> tuple:
        pooled = *x[:2], (x[2] + 1) // 2, (x[3] + 1) // 2
        return pooled, pooled

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward(x)

    def bprop(self, x, out, gradients):
        return (self.backward(gradients[0], out[1], x),)


class AveragePools(nn.Cell):
    """The averages of windows of ratio x ratio places of x [N, C, H, W], for ratios that divide H and W."""

    def construct(self, x: Tensor, ratios: tuple[int, ...]) -> tuple[Tensor, ...]:
        return _average_pools(ratios)(x)

    def bprop(self, x, ratios, _out, gradients):
        return _average_pools_gradient(ratios)(*gradients, x), 0


@ops.constexpr
@cache
def _average_pools(ratios: tuple[int, ...]) -> ops.Custom:
    def shapes(x: tuple) -> tuple:
        return tuple((*x[:2], x[2] // ratio, x[3] // ratio) for ratio in ratios)

    return operator("average_pools", shapes, lambda x: (x,) * len(ratios))


@ops.constexpr
@cache
def _average_pools_gradient(_ratios: tuple[int, ...]) -> ops.Custom:
    return operator("average_pools_gradient", lambda *inputs: inputs[-1], lambda *inputs: inputs[-1])


_depthwise, _residual_depthwise = Depthwise(), Depthwise(residual=True)
_batch_norm, _batch_norm_relu = BatchNorm(), BatchNorm(relu=True)
_batch_norm_add, _batch_norm_add_relu = BatchNormAdd(), BatchNormAdd(relu=True)
_evaluation, _evaluation_relu, _evaluation_add_relu = (
    operator(f"batch_norm{kind}_evaluation", same, same) for kind in ("", "_relu", "_add_relu")
)
_pooling, _max_pool, _average = Pooling(), MaxPool(), AveragePools()
_MOST_RATIOS = build.constant("RATIOS")
_SIZES = (3, 5, 7)  # of depth-wise kernels


def _by_channel(self: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = self.kernel_size[0], self.in_channels
    plain = self.stride == (1, 1) and self.dilation == (1, 1) and not self.has_bias
    halves = self.pad_mode == "pad" and self.padding in (size // 2, (size // 2,) * 4)
    sizes = self.kernel_size == (size, size) and size in _SIZES
    return plain and halves and sizes and self.group == self.out_channels == channels


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    return _depthwise(x, self.weight.value()) if _by_channel(self) else nn.Conv2d.construct(self, x)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return _residual_depthwise(x, self.weight.value()) if _by_channel(self) else ResidualDepthwise.construct(self, x)


def _parameters(self: nn.BatchNorm2d) -> tuple:
    numbers = floats(self.eps, self.momentum)
    return self.gamma, self.beta, self.moving_mean, self.moving_variance, numbers


def batch_norm(
    self: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, rest: Tensor | None = None, relu: bool = False
) -> Tensor:
    """With what follows in a residual network: adding `rest`, ReLU."""
    if x.ndim == 2 or not isinstance(self.bn_train, ops.BatchNorm):  # the latter: statistics of several processes
        x = nn.BatchNorm2d.construct(self, x)
        x = x if rest is None else x + rest
        return ops.relu(x) if relu else x
    if not self.training:
        if rest is None:
            return (_evaluation_relu if relu else _evaluation)(x, *_parameters(self))
        return _evaluation_add_relu(x, *_parameters(self), rest) if relu else _evaluation(x, *_parameters(self)) + rest
    if rest is None:
        return (_batch_norm_relu if relu else _batch_norm)(x, *_parameters(self))[0]
    return (_batch_norm_add_relu if relu else _batch_norm_add)(x, *_parameters(self), rest)[0]


def bottleneck(self: Bottleneck, x: Tensor) -> Tensor:
    shortcut = x if self.downsample is None else self.downsample(x)
    x = batch_norm(self.bn1, self.conv1(x), relu=True)
    x = batch_norm(self.bn2, self.conv2(x), relu=True)
    return batch_norm(self.bn3, self.conv3(x), shortcut, relu=True)


def resnet(self: ResNet, x: Tensor) -> Tensor:
    if self.has_stem:
        x = _max_pool(batch_norm(self.bn1, self.conv1(x), relu=True))[0]
    for block in self.blocks:
        x = block(x)
    return x


def gem(self: GeM, x: Tensor) -> Tensor:
    if self.learned:
        return GeM.construct(self, x)
    return _pooling(x, floats(self.power, self.eps))


def pyramids(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    if len(self.ratios) > _MOST_RATIOS:
        return CrossModalityLearner.pyramids(self, visible, infrared)
    check_pooled(visible.shape[2], visible.shape[3], self.ratios)
    scales = ()
    for features in (visible, infrared):
        for pyramid, rebuild in zip(_average(features, self.ratios), self.transposed):  # noqa: B905 (no strict= in a graph)
            scales += (rebuild(pyramid),)
    return self.concat(*scales)


# Not where convolutions are recomputed: MindSpore keeps what a cell with a gradient of its own is given.
NOT_RECOMPUTED = nn.BatchNorm2d.construct, Bottleneck.construct, ResNet.construct
# On an H100, ms of a step in float32 and float16, each operator measured alone, for what MindSpore's took.
TABLE = {
    # With the next, MUN: convolutions by channel and their casts, 3.9 and 3.6 for 7.0 and 12.2.
    nn.Conv2d.construct: convolution,
    ResidualDepthwise.construct: residual_depthwise,
    # With the next two, BatchNorm, ReLU, additions and their gradients, AGW: 11.1 and 6.8 for 19.3 and 10.9; MUN: 17.3
    # and 10.1 for 31.2 and 16.3. Max pooling and its gradient, predicted: 0.2 and 0.1 for 0.8
    # and 0.7. In inference, AGW, predicted: 2.8 for 7.2.
    nn.BatchNorm2d.construct: batch_norm,
    Bottleneck.construct: bottleneck,
    ResNet.construct: resnet,
    GeM.construct: gem,  # AGW, predicted: 0.1 and 0.1 for 0.7 and 0.8
    # MUN, predicted: 0.2 and 0.1 for 1.7 and 1.4, with additions of their gradients
    CrossModalityLearner.pyramids: pyramids,
}

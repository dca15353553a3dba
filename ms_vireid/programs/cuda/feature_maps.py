"""Layers of feature maps by the CUDA kernels, with channels last: [N, H, W, C].

So cuDNN's convolutions in float16 and TF32 read them as they are, and kernels load whole packs of channels. A network's
first layer turns the pictures, `channels_last` the weights.
"""

from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from ms_vireid.config.models import check_pooled
from ms_vireid.models import auxiliary_generator
from ms_vireid.models.agw import AGW, NonLocal
from ms_vireid.models.auxiliary_generator import (
    Concatenation,
    CrossModalityLearner,
    IntraModalityLearner,
    ResidualDepthwise,
)
from ms_vireid.models.layers import GeM
from ms_vireid.models.resnet import Bottleneck, ResNet
from ms_vireid.programs.cuda.declarations import constants
from ms_vireid.programs.cuda.joining import separated
from ms_vireid.programs.cuda.operators import ABSENT, Differentiable, differentiated, operator

_depthwise, _depthwise_halves, _scaled, _gem, _max_pool, _average_pools = map(
    Differentiable, ("depthwise", "depthwise_halves", "scaled", "gem", "max_pool", "average_pools")
)
_channels_last, _to_one_channel, _attended = map(Differentiable, ("channels_last", "to_one_channel", "attended"))
_widened = Differentiable("widened", twice=True)
# In the gradient, y is computed again from x, but for what follows an addition. Without ReLU, what was added has the
# gradient of the sum.
_batch_norm = Differentiable("batch_norm", without=("y",))
_batch_norm_add = Differentiable("batch_norm", without=("y",), passed=("rest", "y"))
_batch_norm_add_relu, _batch_norm_twice = Differentiable("batch_norm"), Differentiable("batch_norm", twice=True)
_MOST_RATIOS, _MOST_CONVOLUTIONS = constants()["RATIOS"], constants()["CONVOLUTIONS"]
_MOST_JOINED, _LARGEST_SIZE = constants()["JOINED"], constants()["LARGEST_SIZE"]
_SIZES = (3, 5, 7)  # of depth-wise kernels


def last(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C]."""
    return x.permute(0, 2, 3, 1)


def first(x: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, C, H, W]."""
    return x.permute(0, 3, 1, 2)


def channels_last(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Weights [outputs, inputs, size, size] of any number of convolutions -> [outputs, size, size, inputs]. Give them
    by value."""
    turned = ()
    for weight in weights:
        if weight.shape[2] > _LARGEST_SIZE:
            return tuple([last(weight) for weight in weights])
    for start in range(0, len(weights), _MOST_CONVOLUTIONS):
        some = weights[start : start + _MOST_CONVOLUTIONS]
        rows, columns, sizes = (), (), ()
        for weight in some:
            rows += (weight.shape[0],)
            columns += (weight.shape[1],)
            sizes += (weight.shape[2],)
        turned += differentiated(_channels_last, *some, rows=rows, columns=columns, sizes=sizes)
    return turned


def _by_channel(self: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = self.kernel_size[0], self.in_channels
    plain = self.stride == (1, 1) and self.dilation == (1, 1) and not self.has_bias
    halves = self.pad_mode == "pad" and self.padding in (size // 2, (size // 2,) * 4)
    sizes = self.kernel_size == (size, size) and size in _SIZES
    return plain and halves and sizes and self.group == self.out_channels == channels


def convolution(self: nn.Conv2d, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of maps with channels last, by its weight in that order; without it of pictures as they come."""
    if weight is None:
        return nn.Conv2d.construct(self, x)
    convolve = ops.Conv2D(
        self.out_channels,
        self.kernel_size,
        1,
        self.pad_mode,
        self.padding,
        self.stride,
        self.dilation,
        self.group,
        "NHWC",
    )
    y = convolve(x, weight)
    return y + self.bias if self.has_bias else y


class _Transposed(nn.Cell):
    """A transposed convolution that makes a patch of each place, [N, H, W, inputs] -> [N, ratio H, ratio W, outputs],
    by a weight [inputs, ratio, ratio, outputs]. MindSpore's derivative of it refuses channels last."""

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        (batch, height, width, _), (inputs, ratio, _, outputs) = x.shape, weight.shape
        rebuild = ops.Conv2DTranspose(inputs, ratio, "valid", stride=ratio, data_format="NHWC")
        return rebuild(x, weight, (batch, height * ratio, width * ratio, outputs))

    def bprop(self, x: Tensor, weight: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, ratio, _, _ = weight.shape
        of_x = ops.Conv2D(inputs, ratio, 1, "valid", stride=ratio, data_format="NHWC")
        of_weight = Conv2DBackpropFilter(inputs, ratio, "valid", stride=(ratio, ratio), data_format="NHWC")
        return of_x(gradient, weight), of_weight(x, gradient, weight.shape)


_transposed = _Transposed()


def transposed_convolution(self: nn.Conv2dTranspose, x: Tensor, weight: Tensor) -> Tensor:
    return _transposed(x, weight)


def first_and_back(self: nn.Cell, x: Tensor) -> Tensor:
    """What the kernels do not compute."""
    return last(nn.Conv2d.construct(self, first(x)))


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    if not _by_channel(self):
        return first_and_back(self, ops.relu(x)) + x
    return differentiated(_depthwise, x, self.weight.value())[0]


def scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Scales the weight."""
    if scale.shape[1] == 1:
        return scale * layer(x, channels_last((layer.weight.value(),))[0])
    weight = differentiated(_scaled, layer.weight.value(), scale.value())[0]
    return ops.Conv2D(weight.shape[0], 1, data_format="NHWC")(x, weight)


def mindspores_batch_norm(
    self: nn.BatchNorm1d | nn.BatchNorm2d,
    x: Tensor | tuple[Tensor, ...],
    rest: Tensor | None = None,
    relu: bool = False,
    twice: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """As `batch_norm`, of rows, with statistics of several processes, and where convolutions are recomputed: MindSpore
    keeps what a cell with a gradient of its own is given."""
    if isinstance(x, tuple):
        x = ops.cat(x, 3)
    if x.ndim == 2:
        x = nn.BatchNorm2d.construct(self, x)
    elif not isinstance(self.bn_train, ops.BatchNorm):
        x = last(nn.BatchNorm2d.construct(self, first(x)))
    else:
        normalise = ops.BatchNorm(self.training, self.eps, self.momentum, "NHWC")
        x = normalise(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
    x = x if rest is None else x + rest
    x = ops.relu(x) if relu else x
    return (x, x) if twice else x


def batch_norm(
    self: nn.BatchNorm1d | nn.BatchNorm2d,
    x: Tensor | tuple[Tensor, ...],
    rest: Tensor | None = None,
    relu: bool = False,
    twice: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """With what follows in a residual network: adding `rest`, ReLU. x: also maps of equal widths, which are joined.
    twice: the output as two, for `in_order`."""
    maps = x if isinstance(x, tuple) else (x,)
    if maps[0].ndim == 2 or not isinstance(self.bn_train, ops.BatchNorm):
        return mindspores_batch_norm(self, x, rest, relu, twice)
    widths = (maps[0].shape[3],) * len(maps)
    # By value: in a bprop a parameter of a tuple may be another layer's of the same shape (MindSpore 2.10).
    parameters = self.gamma.value(), self.beta.value(), self.moving_mean, self.moving_variance
    added = ABSENT if rest is None else rest
    if not self.training:
        y = operator("batch_norm_evaluation", relu=relu, eps=self.eps, widths=widths)(*maps, *parameters, added)
        return (y, y) if twice else y
    of_sum = _batch_norm_twice if twice else _batch_norm_add_relu if relu else _batch_norm_add
    cell = _batch_norm if rest is None else of_sum
    numbers = {"relu": relu, "eps": self.eps, "momentum": self.momentum, "widths": widths}
    outputs = differentiated(cell, *maps, *parameters, added, **numbers)
    return (outputs[0], outputs[-1]) if twice else outputs[0]


def _weights(block: nn.Cell) -> tuple[Tensor, ...]:
    """Those of a block's convolutions, without those that both orders have alike."""
    if hasattr(block, "theta"):
        return ()
    weights = block.conv1.weight.value(), block.conv2.weight.value(), block.conv3.weight.value()
    return weights if block.downsample is None else (*weights, block.downsample[0].weight.value())


def bottleneck(
    self: Bottleneck,
    x: Tensor,
    again: Tensor | None = None,
    twice: bool = False,
    weights: tuple[Tensor, ...] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """again: x, for the shortcut. twice: give the output twice. weights: with channels last."""
    weights = channels_last(_weights(self)) if weights is None else weights
    shortcut = x if again is None else again
    if self.downsample is not None:
        shortcut = self.downsample[1](self.downsample[0](shortcut, weights[3]))
    x = self.bn1(self.conv1(x, weights[0]), None, True)
    x = self.bn2(self.conv2(x, weights[1]), None, True)
    return self.bn3(self.conv3(x, weights[2]), shortcut, True, twice)


def non_local(
    self: NonLocal,
    x: Tensor,
    again: Tensor | None = None,
    twice: bool = False,
    _weights: tuple[Tensor, ...] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """again: x, which is added. twice: give the output twice."""
    (batch, rows, columns, _), (widen, norm) = x.shape, (self.W[0], self.W[1])
    again = x if again is None else again
    if self.width > 1:
        weights = self.g.weight.value(), self.theta.weight.value(), self.phi.weight.value(), widen.weight.value()
        of_g, of_theta, of_phi, of_w = channels_last(weights)
        flat = (batch, rows * columns, self.width)
        g, phi = self.g(x, of_g).reshape(flat), self.phi(x, of_phi).reshape(flat)
        context = g.swapaxes(1, 2) @ phi / (rows * columns)  # [N, width, width]
        y = self.theta(x, of_theta).reshape(flat) @ context.swapaxes(1, 2)  # [N, L, width]
        return norm(widen(y.reshape(batch, rows, columns, self.width), of_w), again, False, twice)
    # By value: what a bprop gets as a parameter is copied, as BatchNorm may have written it in between.
    weights = self.g.weight.value(), self.theta.weight.value(), self.phi.weight.value()
    biases = self.g.bias, self.theta.bias, self.phi.bias
    y = differentiated(_attended, *differentiated(_to_one_channel, x, *weights, *biases))[0]  # [N, 1, L]
    if not isinstance(norm.bn_train, ops.BatchNorm):
        # A weight of one input is the same in both orders.
        return norm(widen(y.reshape(batch, rows, columns, 1), widen.weight), again, False, twice)
    of_norm = norm.gamma.value(), norm.beta.value(), norm.moving_mean, norm.moving_variance
    inputs = again, y, widen.weight.value(), widen.bias.value(), *of_norm
    if not self.training:
        z = operator("widened_evaluation", eps=norm.eps)(*inputs)
        return (z, z) if twice else z
    outputs = differentiated(_widened, *inputs, eps=norm.eps, momentum=norm.momentum)
    return (outputs[0], outputs[-1]) if twice else outputs[0]


def in_order(blocks: tuple[nn.Cell, ...], x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Blocks one after the other, with the weights of all their convolutions. Each takes its input twice, for the
    branch and for the shortcut, so that no operator adds up their gradients: the BatchNorm that has given it does as it
    reads them."""
    if not blocks:
        return x
    again = x
    for block in blocks[:-1]:
        count = len(_weights(block))
        x, again = block(x, again, True, weights[:count])
        weights = weights[count:]
    return blocks[-1](x, again, False, weights)


def _weights_of(blocks: tuple[nn.Cell, ...]) -> tuple[Tensor, ...]:
    weights = ()
    for block in blocks:
        weights += _weights(block)
    return weights


def resnet(self: ResNet, x: Tensor) -> Tensor:
    if not self.has_stem:
        return in_order(self.blocks, x, channels_last(_weights_of(self.blocks)))
    weights = channels_last((self.conv1.weight.value(), *_weights_of(self.blocks)))
    x = self.bn1(self.conv1(last(x), weights[0]), None, True)
    return in_order(self.blocks, differentiated(_max_pool, x)[0], weights[1:])


def shared_blocks(self: AGW, x: Tensor) -> Tensor:
    return in_order(self.shared, x, channels_last(_weights_of(self.shared)))


def gem(self: GeM, x: Tensor) -> Tensor:
    if self.learned:
        return GeM.construct(self, first(x))
    return differentiated(_gem, x, power=self.power, eps=self.eps)[0]


def intra_modality(self: IntraModalityLearner, x: Tensor) -> Tensor:
    if _by_channel(self.first) and _by_channel(self.second):
        x = differentiated(_depthwise_halves, self.first.weight.value(), self.second.weight.value(), x)[0]
    else:
        halves = separated(x, ((*x.shape[:3], x.shape[3] // 2),) * 2, 3)
        x = ops.cat((first_and_back(self.first, halves[0]), first_and_back(self.second, halves[1])), 3)
    x = self.expand(self.bn1(x), channels_last((self.expand.weight.value(),))[0])
    return auxiliary_generator.scaled(self.scale, self.reduce, self.bn2(self.spatial(x)))


def _scales(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> tuple[Tensor, ...]:
    check_pooled(visible.shape[1], visible.shape[2], self.ratios)
    weights, scales = (), ()
    for layer in self.transposed:
        weights += (layer.weight.value(),)
    weights = channels_last(weights)
    for features in (visible, infrared):
        for start in range(0, len(self.ratios), _MOST_RATIOS):
            ratios = self.ratios[start : start + _MOST_RATIOS]
            pooled = differentiated(_average_pools, features, ratios=ratios)
            for i in range(len(ratios)):
                scales += (self.transposed[start + i](pooled[i], weights[start + i]),)
    return scales


def pyramids(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor | tuple[Tensor, ...]:
    """As they are: the BatchNorm behind them joins them as it reads them."""
    scales = _scales(self, visible, infrared)
    return scales if len(scales) <= _MOST_JOINED else self.concat(*scales)


def joined_pyramids(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    return self.concat(*_scales(self, visible, infrared))


def concatenation(self: Concatenation, *maps: Tensor) -> Tensor:
    return ops.cat(maps, 3)


# Predicted of an H100, ms of a step in float32 / float16: with channels last, AGW 30.0 / 16.1 and MUN 54.8 / 29.1; by
# kernels for channels before places 35.4 / 21.2 and 66.1 / 38.1; without kernels 55.8 and 104.8 in float32.
# Measured there of the latter kernels: BatchNorm, ReLU and additions with their gradients, AGW 11.1 / 6.8 for 19.3 /
# 10.9; depth-wise convolutions, MUN 3.9 / 3.6 for 7.0 / 12.2.
TABLE = {
    nn.Conv2d.construct: convolution,
    nn.Conv2dTranspose.construct: transposed_convolution,
    nn.BatchNorm2d.construct: batch_norm,
    Bottleneck.construct: bottleneck,
    ResNet.construct: resnet,
    AGW.shared_blocks: shared_blocks,
    NonLocal.construct: non_local,
    GeM.construct: gem,
    IntraModalityLearner.construct: intra_modality,  # both halves at once: 16 launches and 0.2 GiB less than apart
    ResidualDepthwise.construct: residual_depthwise,
    auxiliary_generator.scaled: scaled,
    CrossModalityLearner.pyramids: pyramids,  # joined by BatchNorm: MUN 1.0 / 0.6
    Concatenation.construct: concatenation,
}
RECOMPUTED = TABLE | {nn.BatchNorm2d.construct: mindspores_batch_norm, CrossModalityLearner.pyramids: joined_pyramids}
_OF_MAPS = {key for key in TABLE if key is not nn.Conv2d.construct}


def takes_maps(cell: nn.Cell) -> bool:
    """Whether a cell has layers of feature maps."""
    return any(getattr(type(part), "construct", None) in _OF_MAPS for _, part in cell.cells_and_names())

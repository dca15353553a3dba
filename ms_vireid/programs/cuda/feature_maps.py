"""Layers of feature maps by the CUDA kernels."""

from mindspore import Parameter, Tensor, nn, ops

from ms_vireid.config.models import check_pooled
from ms_vireid.models import auxiliary_generator
from ms_vireid.models.agw import AGW
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, ResidualDepthwise
from ms_vireid.models.layers import GeM
from ms_vireid.models.resnet import Bottleneck, ResNet
from ms_vireid.programs.cuda.declarations import constants
from ms_vireid.programs.cuda.operators import ABSENT, Differentiable, differentiated, operator

_depthwise, _scaled, _gem, _max_pool, _average_pools = map(
    Differentiable, ("depthwise", "scaled", "gem", "max_pool", "average_pools")
)
# In the gradient, y is computed again from x, but for what follows an addition. Without ReLU, what was added has the
# gradient of the sum.
_batch_norm = Differentiable("batch_norm", without=("y",))
_batch_norm_add = Differentiable("batch_norm", without=("y",), passed=("rest", "y"))
_batch_norm_add_relu, _batch_norm_twice = Differentiable("batch_norm"), Differentiable("batch_norm", twice=True)
_MOST_RATIOS = constants()["RATIOS"]
_SIZES = (3, 5, 7)  # of depth-wise kernels


def _by_channel(self: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = self.kernel_size[0], self.in_channels
    plain = self.stride == (1, 1) and self.dilation == (1, 1) and not self.has_bias
    halves = self.pad_mode == "pad" and self.padding in (size // 2, (size // 2,) * 4)
    sizes = self.kernel_size == (size, size) and size in _SIZES
    return plain and halves and sizes and self.group == self.out_channels == channels


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    if not _by_channel(self):
        return nn.Conv2d.construct(self, x)
    return differentiated(_depthwise, x, self.weight.value(), residual=False)[0]


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    if not _by_channel(self):
        return ResidualDepthwise.construct(self, x)
    return differentiated(_depthwise, x, self.weight.value(), residual=True)[0]


def scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Scales the weight."""
    weight = differentiated(_scaled, layer.weight.value(), scale.value())[0]
    return ops.Conv2D(weight.shape[0], 1)(x, weight)


def batch_norm(
    self: nn.BatchNorm1d | nn.BatchNorm2d,
    x: Tensor,
    rest: Tensor | None = None,
    relu: bool = False,
    twice: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """With what follows in a residual network: adding `rest`, ReLU. twice: the output as two, for `in_order`."""
    if x.ndim == 2 or not isinstance(self.bn_train, ops.BatchNorm):  # the latter: statistics of several processes
        x = nn.BatchNorm2d.construct(self, x)
        x = x if rest is None else x + rest
        x = ops.relu(x) if relu else x
        return (x, x) if twice else x
    # By value: in a bprop a parameter of a tuple may be another layer's of the same shape (MindSpore 2.10).
    parameters = self.gamma.value(), self.beta.value(), self.moving_mean, self.moving_variance
    added = ABSENT if rest is None else rest
    if not self.training:
        x = operator("batch_norm_evaluation", relu=relu, eps=self.eps)(x, *parameters, added)
        return (x, x) if twice else x
    of_sum = _batch_norm_twice if twice else _batch_norm_add_relu if relu else _batch_norm_add
    cell = _batch_norm if rest is None else of_sum
    outputs = differentiated(cell, x, *parameters, added, relu=relu, eps=self.eps, momentum=self.momentum)
    return (outputs[0], outputs[-1]) if twice else outputs[0]


def bottleneck(
    self: Bottleneck, x: Tensor, again: Tensor | None = None, twice: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """again: x, for the shortcut. twice: give the output twice."""
    again = x if again is None else again
    shortcut = again if self.downsample is None else self.downsample(again)
    x = batch_norm(self.bn1, self.conv1(x), relu=True)
    x = batch_norm(self.bn2, self.conv2(x), relu=True)
    return batch_norm(self.bn3, self.conv3(x), shortcut, relu=True, twice=twice)


def in_order(blocks: tuple[nn.Cell, ...], x: Tensor) -> Tensor:
    """Residual blocks one after the other. Each takes its input twice, for the branch and for the shortcut, so that no
    operator adds up their gradients: the BatchNorm that has given it does as it reads them."""
    if not blocks:
        return x
    again = x
    for block in blocks[:-1]:
        x, again = block(x, again, True)
    return blocks[-1](x, again)


def resnet(self: ResNet, x: Tensor) -> Tensor:
    if self.has_stem:
        x = differentiated(_max_pool, batch_norm(self.bn1, self.conv1(x), relu=True))[0]
    return in_order(self.blocks, x)


def shared_blocks(self: AGW, x: Tensor) -> Tensor:
    return in_order(self.shared, x)


def gem(self: GeM, x: Tensor) -> Tensor:
    if self.learned:
        return GeM.construct(self, x)
    return differentiated(_gem, x, power=self.power, eps=self.eps)[0]


def pyramids(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    if len(self.ratios) > _MOST_RATIOS:
        return CrossModalityLearner.pyramids(self, visible, infrared)
    check_pooled(visible.shape[2], visible.shape[3], self.ratios)
    scales = ()
    for features in (visible, infrared):
        for pyramid, rebuild in zip(differentiated(_average_pools, features, ratios=self.ratios), self.transposed):  # noqa: B905 (no strict= in a graph)
            scales += (rebuild(pyramid),)
    return self.concat(*scales)


# Not where convolutions are recomputed: MindSpore keeps what a cell with a gradient of its own is given.
NOT_RECOMPUTED = nn.BatchNorm2d.construct, Bottleneck.construct, ResNet.construct, AGW.shared_blocks
# On an H100, ms of a step in float32 and float16, each operator measured alone, for what MindSpore's took.
TABLE = {
    # With the next, MUN: convolutions by channel and their casts, 3.9 and 3.6 for 7.0 and 12.2.
    nn.Conv2d.construct: convolution,
    ResidualDepthwise.construct: residual_depthwise,
    auxiliary_generator.scaled: scaled,  # MUN: 15 launches less
    # With the next two, BatchNorm, ReLU, additions and their gradients, AGW: 11.1 and 6.8 for 19.3 and 10.9; MUN: 17.3
    # and 10.1 for 31.2 and 16.3. Max pooling and its gradient, predicted: 0.2 and 0.1 for 0.8
    # and 0.7. In inference, AGW, predicted: 2.8 for 7.2.
    nn.BatchNorm2d.construct: batch_norm,
    Bottleneck.construct: bottleneck,
    ResNet.construct: resnet,
    AGW.shared_blocks: shared_blocks,  # with resnet's, AGW, predicted: 35.4 and 21.2 a step for 36.7 and 21.8
    GeM.construct: gem,  # AGW, predicted: 0.1 and 0.1 for 0.7 and 0.8
    # MUN, predicted: 0.2 and 0.1 for 1.7 and 1.4, with additions of their gradients
    CrossModalityLearner.pyramids: pyramids,
}

"""Networks of feature maps by the CUDA kernels. Everybody gives and gets maps [N, C, H, W].

Within, channels are last, [N, H, W, C]: so cuDNN's convolutions in float16 and TF32 read maps as they are, and kernels
load whole packs of channels. What a whole replaces hands maps in this order from one part to the next, by the functions
whose names begin with an underscore; nobody else calls them. `channels_last` turns the weights.
"""

from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from ms_vireid.backends import settings
from ms_vireid.backends.cuda.declarations import FILTERS, constants
from ms_vireid.backends.cuda.joining import separated
from ms_vireid.backends.cuda.operators import ABSENT, Differentiable, differentiated, operator
from ms_vireid.config.models import check_pooled
from ms_vireid.models import base, mun
from ms_vireid.models.agw import AGW, NonLocal
from ms_vireid.models.auxiliary_generator import (
    AuxiliaryGenerator,
    Concatenation,
    CrossModalityLearner,
    IntraModalityLearner,
    ResidualDepthwise,
)
from ms_vireid.models.intermediate import PixelModality
from ms_vireid.models.layers import GeM
from ms_vireid.models.mun import MUN
from ms_vireid.models.resnet import Bottleneck, ResNet
from ms_vireid.replaceable import Replacement

_depthwise, _depthwise_halves, _scaled, _gem, _max_pool, _average_pools = map(
    Differentiable, ("depthwise", "depthwise_halves", "scaled", "gem", "max_pool", "average_pools")
)
_channels_last, _to_one_channel, _attended = map(Differentiable, ("channels_last", "to_one_channel", "attended"))
_widened = Differentiable("widened", duplicate=True)
# In the gradient, y is computed again from x, but for what follows an addition. Without ReLU, what was added has the
# gradient of the sum.
_batch_norm = Differentiable("batch_norm", without=("y",))
_batch_norm_add = Differentiable("batch_norm", without=("y",), passed=("rest", "y"))
_batch_norm_add_relu, _batch_norm_duplicate = Differentiable("batch_norm"), Differentiable("batch_norm", duplicate=True)
_MOST_RATIOS, _MOST_CONVOLUTIONS, _LARGEST_SIZE = map(constants().get, ("RATIOS", "CONVOLUTIONS", "LARGEST_SIZE"))


def to_nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def to_nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def channels_last(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Weights [outputs, inputs, size, size] of any number of convolutions -> [outputs, size, size, inputs]. Give them
    by value."""
    turned = ()
    for weight in weights:
        if weight.shape[2] > _LARGEST_SIZE:
            return tuple([to_nhwc(weight) for weight in weights])
    for start in range(0, len(weights), _MOST_CONVOLUTIONS):
        some = weights[start : start + _MOST_CONVOLUTIONS]
        rows, columns, sizes = (), (), ()
        for weight in some:
            rows += (weight.shape[0],)
            columns += (weight.shape[1],)
            sizes += (weight.shape[2],)
        turned += differentiated(_channels_last, *some, rows=rows, columns=columns, sizes=sizes)
    return turned


def _is_recomputed(layer: nn.Cell) -> bool:
    """Whether `Cell.recompute` was called: what computes a layer in its place must heed it."""
    return layer._has_config_recompute


def _kept_and_recomputed(kind: type[nn.Cell]) -> tuple[nn.Cell, nn.Cell]:
    """Two of a kind of cell. The second is computed again in the backward pass; MindSpore does so with the operators
    that its own `construct` calls, not with those of functions that it is given."""
    recomputed = kind()
    recomputed.recompute(output_recompute=True)
    return kind(), recomputed


class _Convolution(nn.Cell):
    """By a weight with channels last."""

    def construct(self, conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
        convolve = ops.Conv2D(
            conv.out_channels,
            conv.kernel_size,
            1,
            conv.pad_mode,
            conv.padding,
            conv.stride,
            conv.dilation,
            data_format="NHWC",
        )
        y = convolve(x, weight)
        return y + conv.bias if conv.has_bias else y


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


class _ResidualDepthwise(nn.Cell):
    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return differentiated(_depthwise, x, weight)[0]


class _Joining(nn.Cell):
    def construct(self, *maps: Tensor) -> Tensor:
        return ops.cat(maps, 3)


_convolution, _recomputed_convolution = _kept_and_recomputed(_Convolution)
_transposed, _recomputed_transposed = _kept_and_recomputed(_Transposed)
_kernel_of_residual, _recomputed_kernel_of_residual = _kept_and_recomputed(_ResidualDepthwise)
_recomputed_joining = _kept_and_recomputed(_Joining)[1]


def _convolved(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """weight: with channels last."""
    if _is_recomputed(conv):
        return _recomputed_convolution(conv, x, weight)
    return _convolution(conv, x, weight)


def _rebuilt(layer: nn.Conv2dTranspose, x: Tensor, weight: Tensor) -> Tensor:
    """weight: with channels last."""
    if _is_recomputed(layer):
        return _recomputed_transposed(x, weight)
    return _transposed(x, weight)


def _by_channel(conv: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = conv.kernel_size[0], conv.in_channels
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and not conv.has_bias
    same = conv.pad_mode == "pad" and conv.padding in (size // 2, (size // 2,) * 4)
    sizes = conv.kernel_size == (size, size) and size in FILTERS
    return plain and same and sizes and conv.group == conv.out_channels == channels


def _by_its_own(layer: nn.Cell, x: Tensor) -> Tensor:
    """A layer of MindSpore's that no kernel computes."""
    return to_nhwc(layer(to_nchw(x)))


def _residual_depthwise(conv: ResidualDepthwise, x: Tensor) -> Tensor:
    if not _by_channel(conv):
        return _by_its_own(conv, x)
    if _is_recomputed(conv):
        return _recomputed_kernel_of_residual(x, conv.weight.value())
    return _kernel_of_residual(x, conv.weight.value())


def _scaled_convolution(scale: Parameter, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Scales the weight of a 1x1 convolution."""
    if scale.shape[1] == 1:
        return scale * _convolved(conv, x, channels_last((conv.weight.value(),))[0])
    weight = differentiated(_scaled, conv.weight.value(), scale.value())[0]
    return ops.Conv2D(weight.shape[0], 1, data_format="NHWC")(x, weight)


class _Evaluated(nn.Cell):
    """BatchNorm by its running averages. A layer may be in evaluation mode within a training: hence the gradient."""

    def construct(
        self, maps: tuple[Tensor, ...], parameters: tuple[Tensor, ...], rest: Tensor, relu: bool, eps: float
    ) -> Tensor:
        widths = (maps[0].shape[3],) * len(maps)
        return operator("batch_norm_evaluation", relu=relu, eps=eps, widths=widths)(*maps, *parameters, rest)

    def bprop(self, maps, parameters, rest, relu, eps, out, gradient):
        gamma, _, mean, variance = parameters
        inverse = ops.rsqrt(variance + eps)
        gradient = gradient * (out > 0).astype(gradient.dtype) if relu else gradient
        grad_sum = gradient.float()  # of what ReLU is given
        x = maps[0] if len(maps) == 1 else ops.cat(maps, 3)
        grad_x = (grad_sum * (gamma * inverse)).astype(x.dtype)
        grad_maps, start = (), 0
        for each in maps:
            grad_maps += (ops.narrow(grad_x, 3, start, each.shape[3]),)
            start += each.shape[3]
        grad_gamma = (grad_sum * (x.float() - mean)).sum((0, 1, 2)) * inverse
        grad_parameters = grad_gamma, grad_sum.sum((0, 1, 2)), ops.zeros_like(mean), ops.zeros_like(variance)
        grad_rest = gradient if rest.shape == gradient.shape else ops.zeros_like(rest)
        return grad_maps, grad_parameters, grad_rest, 0, 0


class _WidenedEvaluated(nn.Cell):
    """As `_Evaluated`, of a NonLocal of one channel: x + BatchNorm(w y + b) of x [N, H, W, C], y [N, 1, L]."""

    def construct(self, x: Tensor, y: Tensor, convolution: tuple[Tensor, Tensor], norm: tuple, eps: float) -> Tensor:
        return operator("widened_evaluation", eps=eps)(x, y, *convolution, *norm)

    def bprop(self, x, y, convolution, norm, eps, _out, gradient):
        (weight, bias), (gamma, _, mean, variance) = convolution, norm
        row, inverse = weight.reshape(1, -1).float(), ops.rsqrt(variance + eps)  # [1, C], [C]
        channels = row.shape[1]
        places = gradient.reshape(-1, channels).float()  # [N L, C]
        flat = y.reshape(-1, 1).float()  # [N L, 1]
        total, product = places.sum(0), (flat * places).sum(0)  # [C]
        scale = gamma * inverse
        grad_y = ops.matmul(places, (scale * row).swapaxes(0, 1)).reshape(y.shape).astype(y.dtype)
        grad_weight = (scale * product).reshape(weight.shape).astype(weight.dtype)
        grad_bias = (scale * total).astype(bias.dtype)
        grad_gamma = inverse * (row[0] * product + (bias.float() - mean) * total)
        grad_norm = grad_gamma, total, ops.zeros_like(mean), ops.zeros_like(variance)
        return gradient, grad_y, (grad_weight, grad_bias), grad_norm, 0


_evaluated, _widened_evaluated = _Evaluated(), _WidenedEvaluated()


def _averages(bn: nn.BatchNorm2d) -> tuple[Tensor, ...]:
    """What a BatchNorm in evaluation mode reads. By value: in a bprop a parameter of a tuple may be another layer's of
    the same shape (MindSpore 2.10)."""
    return bn.gamma.value(), bn.beta.value(), bn.moving_mean.value(), bn.moving_variance.value()


def _normalised(
    bn: nn.BatchNorm2d,
    x: Tensor | tuple[Tensor, ...],
    rest: Tensor | None = None,
    relu: bool = False,
    duplicate: bool = False,
    recomputed: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """BatchNorm with what follows in a residual network: adding `rest`, ReLU.

    x: also maps of equal widths, which are joined. duplicate: give the output twice, for `_in_order`. recomputed: x is;
    then by MindSpore's operators, as MindSpore keeps what a cell with a gradient of its own is given.
    """
    maps = x if isinstance(x, tuple) else (x,)
    if not isinstance(bn.bn_train, ops.BatchNorm):  # statistics of several processes
        y = _by_its_own(bn, maps[0] if len(maps) == 1 else ops.cat(maps, 3))
    elif not bn.training:
        y = _evaluated(maps, _averages(bn), ABSENT if rest is None else rest, relu, bn.eps)
        return (y, y) if duplicate else y
    elif recomputed:
        normalise = ops.BatchNorm(True, bn.eps, bn.momentum, "NHWC")
        x = maps[0] if len(maps) == 1 else ops.cat(maps, 3)
        y = normalise(x, bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance)[0]
    else:
        return _normalised_by_kernel(bn, maps, rest, relu, duplicate)
    y = y if rest is None else y + rest
    y = ops.relu(y) if relu else y
    return (y, y) if duplicate else y


def _normalised_by_kernel(
    bn: nn.BatchNorm2d, maps: tuple[Tensor, ...], rest: Tensor | None, relu: bool, duplicate: bool
) -> Tensor | tuple[Tensor, Tensor]:
    # By value as in `_averages`, but for those that the kernel writes.
    parameters = bn.gamma.value(), bn.beta.value(), bn.moving_mean, bn.moving_variance
    of_sum = _batch_norm_duplicate if duplicate else _batch_norm_add_relu if relu else _batch_norm_add
    cell = _batch_norm if rest is None else of_sum
    numbers = {"relu": relu, "eps": bn.eps, "momentum": bn.momentum, "widths": (maps[0].shape[3],) * len(maps)}
    outputs = differentiated(cell, *maps, *parameters, ABSENT if rest is None else rest, **numbers)
    return (outputs[0], outputs[-1]) if duplicate else outputs[0]


def _convolved_and_normalised(
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    x: Tensor,
    weight: Tensor,
    rest: Tensor | None = None,
    relu: bool = False,
    duplicate: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    return _normalised(bn, _convolved(conv, x, weight), rest, relu, duplicate, _is_recomputed(conv))


def _weights(block: Bottleneck | NonLocal) -> tuple[Tensor, ...]:
    """Those of a block's convolutions, without those that both orders have alike."""
    if isinstance(block, NonLocal):
        return ()
    weights = block.conv1.weight.value(), block.conv2.weight.value(), block.conv3.weight.value()
    return weights if block.downsample is None else (*weights, block.downsample[0].weight.value())


def _bottleneck(
    block: Bottleneck, x: Tensor, shortcut: Tensor, weights: tuple[Tensor, ...], duplicate: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """shortcut: x, for the shortcut. weights: with channels last. duplicate: give the output twice."""
    if block.downsample is not None:
        shortcut = _convolved_and_normalised(block.downsample[0], block.downsample[1], shortcut, weights[3])
    x = _convolved_and_normalised(block.conv1, block.bn1, x, weights[0], None, True)
    x = _convolved_and_normalised(block.conv2, block.bn2, x, weights[1], None, True)
    return _convolved_and_normalised(block.conv3, block.bn3, x, weights[2], shortcut, True, duplicate)


def _non_local(block: NonLocal, x: Tensor, shortcut: Tensor, duplicate: bool) -> Tensor | tuple[Tensor, Tensor]:
    """shortcut: x, which is added. duplicate: give the output twice."""
    (batch, rows, columns, _), widen, norm = x.shape, block.W[0], block.W[1]
    if block.width > 1:
        weights = block.g.weight.value(), block.theta.weight.value(), block.phi.weight.value(), widen.weight.value()
        of_g, of_theta, of_phi, of_w = channels_last(weights)
        flat = (batch, rows * columns, block.width)
        g, phi = _convolved(block.g, x, of_g).reshape(flat), _convolved(block.phi, x, of_phi).reshape(flat)
        context = g.swapaxes(1, 2) @ phi / (rows * columns)  # [N, width, width]
        y = _convolved(block.theta, x, of_theta).reshape(flat) @ context.swapaxes(1, 2)  # [N, L, width]
        y = y.reshape(batch, rows, columns, block.width)
        return _convolved_and_normalised(widen, norm, y, of_w, shortcut, False, duplicate)
    # By value: what a bprop gets as a parameter is copied, as BatchNorm may have written it in between.
    weights = block.g.weight.value(), block.theta.weight.value(), block.phi.weight.value()
    biases = block.g.bias, block.theta.bias, block.phi.bias
    y = differentiated(_attended, *differentiated(_to_one_channel, x, *weights, *biases))[0]  # [N, 1, L]
    if not isinstance(norm.bn_train, ops.BatchNorm):
        y = y.reshape(batch, rows, columns, 1)
        # A weight of one input is the same in both orders.
        return _convolved_and_normalised(widen, norm, y, widen.weight.value(), shortcut, False, duplicate)
    convolution = widen.weight.value(), widen.bias.value()
    if not norm.training:
        z = _widened_evaluated(shortcut, y, convolution, _averages(norm), norm.eps)
        return (z, z) if duplicate else z
    of_norm = norm.gamma.value(), norm.beta.value(), norm.moving_mean, norm.moving_variance
    outputs = differentiated(_widened, shortcut, y, *convolution, *of_norm, eps=norm.eps, momentum=norm.momentum)
    return (outputs[0], outputs[-1]) if duplicate else outputs[0]


def _in_order(blocks: tuple[Bottleneck | NonLocal, ...], x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Blocks one after the other, with the weights of all their convolutions. Each takes its input twice, for the
    branch and for the shortcut, so that no operator adds up their gradients: the BatchNorm that has given it does as it
    reads them."""
    shortcut = x
    for place, block in enumerate(blocks):
        duplicate, count = place < len(blocks) - 1, len(_weights(block))
        if isinstance(block, NonLocal):
            output = _non_local(block, x, shortcut, duplicate)
        else:
            output = _bottleneck(block, x, shortcut, weights[:count], duplicate)
        x, shortcut = output if duplicate else (output, output)
        weights = weights[count:]
    return x


def _weights_of(blocks: tuple[Bottleneck | NonLocal, ...]) -> tuple[Tensor, ...]:
    weights = ()
    for block in blocks:
        weights += _weights(block)
    return weights


def _resnet(network: ResNet, x: Tensor) -> Tensor:
    """x: pictures or maps, with channels last."""
    if not network.has_stem:
        return _in_order(network.blocks, x, channels_last(_weights_of(network.blocks)))
    weights = channels_last((network.conv1.weight.value(), *_weights_of(network.blocks)))
    x = _convolved_and_normalised(network.conv1, network.bn1, x, weights[0], None, True)
    return _in_order(network.blocks, differentiated(_max_pool, x)[0], weights[1:])


def _pooled(gem: GeM, x: Tensor) -> Tensor:
    if gem.learned:
        return gem(to_nchw(x))
    return differentiated(_gem, x, power=gem.power, eps=gem.eps)[0]


def _intra_modality(learner: IntraModalityLearner, x: Tensor) -> Tensor:
    halves = learner.first, learner.second
    if _by_channel(halves[0]) and _by_channel(halves[1]):
        x = differentiated(_depthwise_halves, halves[0].weight.value(), halves[1].weight.value(), x)[0]
    else:
        parts = separated(x, ((*x.shape[:3], x.shape[3] // 2),) * 2, 3)
        x = ops.cat((_by_its_own(halves[0], parts[0]), _by_its_own(halves[1], parts[1])), 3)
    recomputed = _is_recomputed(learner.spatial)
    x = _normalised(learner.bn1, x, recomputed=recomputed)
    x = _convolved(learner.expand, x, channels_last((learner.expand.weight.value(),))[0])
    x = _residual_depthwise(learner.spatial, x)
    x = _normalised(learner.bn2, x, recomputed=recomputed)
    return _scaled_convolution(learner.scale, learner.reduce, x)


def _cross_modality(learner: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    """BatchNorm joins the pyramids as it reads them, if they need not be joined again in the backward pass."""
    check_pooled(visible.shape[1], visible.shape[2], learner.ratios)
    weights, scales = (), ()
    for layer in learner.transposed:
        weights += (layer.weight.value(),)
    weights = channels_last(weights)
    for features in (visible, infrared):
        pooled = differentiated(_average_pools, features, ratios=learner.ratios)
        for i in range(len(learner.ratios)):
            scales += (_rebuilt(learner.transposed[i], pooled[i], weights[i]),)
    recomputed = _is_recomputed(learner.concat)
    if recomputed:
        scales = _recomputed_joining(*scales)
    return _scaled_convolution(learner.scale, learner.fuse, _normalised(learner.bn, scales, recomputed=recomputed))


def _intermediate(
    generator: AuxiliaryGenerator | PixelModality,
    pictures: tuple[Tensor, Tensor],
    maps: tuple[Tensor, Tensor],
    key: Tensor | None,
) -> Tensor:
    """The modality between visible and infrared. pictures: [PK, 3, H, W] each."""
    if isinstance(generator, PixelModality):
        return _resnet(generator.stage, to_nhwc(generator.picture(pictures[0], pictures[1], key)))
    visible = _intra_modality(generator.visible_learner, maps[0])
    return _cross_modality(generator.cross_learner, visible, _intra_modality(generator.infrared_learner, maps[1]))


def bottleneck(self: Bottleneck, x: Tensor) -> Tensor:
    x = to_nhwc(x)
    return to_nchw(_bottleneck(self, x, x, channels_last(_weights(self)), False))


def non_local(self: NonLocal, x: Tensor) -> Tensor:
    x = to_nhwc(x)
    return to_nchw(_non_local(self, x, x, False))


def resnet(self: ResNet, x: Tensor) -> Tensor:
    return to_nchw(_resnet(self, to_nhwc(x)))


def shared_blocks(self: AGW, x: Tensor) -> Tensor:
    return to_nchw(_in_order(self.shared, to_nhwc(x), channels_last(_weights_of(self.shared))))


def intra_modality(self: IntraModalityLearner, x: Tensor) -> Tensor:
    return to_nchw(_intra_modality(self, to_nhwc(x)))


def cross_modality(self: CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    return to_nchw(_cross_modality(self, to_nhwc(visible), to_nhwc(infrared)))


def agws_pooled(self: AGW, images: Tensor, modality: str | None) -> Tensor:
    if self.training:
        visible, infrared = base.by_modality(images, self.parts)
        x = ops.cat((_resnet(self.visible_stem, to_nhwc(visible)), _resnet(self.infrared_stem, to_nhwc(infrared))), 0)
    else:
        x = _resnet(self.stem_of(modality), to_nhwc(images))
    return _pooled(self.pool, _in_order(self.shared, x, channels_last(_weights_of(self.shared))))


def muns_pooled(self: MUN, images: Tensor, modality: str | None) -> Tensor:
    maps = _resnet(self.stage_of(modality), to_nhwc(images))
    return _pooled(self.pool, _resnet(self.shared, maps))


def pooled_and_normalised(self: MUN, images: Tensor, key: Tensor | None) -> tuple[Tensor, Tensor]:
    pictures = base.by_modality(images, self.parts)
    rows = pictures[1].shape[0]
    visible = _resnet(self.visible_stage, to_nhwc(pictures[0]))
    infrared = _resnet(self.infrared_stage, to_nhwc(pictures[1]))
    maps = (*mun.in_parts(visible, rows), infrared)
    if self.generator is not None:
        pictures = mun.in_parts(pictures[0], rows)[0], pictures[1]
        maps += (_intermediate(self.generator, pictures, (maps[0], infrared), key),)
    return _features(self, maps)


def _features(self: MUN, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """As `MUN.features`."""
    if not self.separate:
        pooled = _pooled(self.pool, _resnet(self.shared, ops.cat(maps, 0)))
        return pooled, self.bottleneck(pooled)
    visible = self.parts - 1
    modalities = (maps[0] if visible == 1 else ops.cat(maps[:visible], 0), *maps[visible:])
    pooled, normalised = (), ()
    for modality in modalities:
        features = _pooled(self.pool, _resnet(self.shared, modality))
        pooled += mun.in_parts(features, maps[0].shape[0])
        normalised += mun.in_parts(self.bottleneck(features), maps[0].shape[0])
    return ops.cat(pooled, 0), ops.cat(normalised, 0)


def knows_bottleneck(block: Bottleneck) -> bool:
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    if block.downsample is not None:
        if not isinstance(block.downsample, nn.SequentialCell) or len(block.downsample) != 2:
            return False
        pairs.append(tuple(block.downsample))
    return all(settings.is_whole_convolution(conv) and settings.is_batch_norm(bn) for conv, bn in pairs)


def knows_resnet(network: ResNet) -> bool:
    stem = not network.has_stem or (
        settings.is_whole_convolution(network.conv1)
        and settings.is_batch_norm(network.bn1)
        and settings.is_max_pool(network.maxpool)
    )
    return stem and all(map(knows_bottleneck, network.blocks))


def knows_non_local(block: NonLocal) -> bool:
    if not isinstance(block.W, nn.SequentialCell) or len(block.W) != 2:
        return False
    narrow = block.g, block.theta, block.phi
    widths = {block.width} == {conv.out_channels for conv in narrow}
    return (
        widths and all(settings.is_pointwise(conv, True) for conv in (*narrow, block.W[0]))
    ) and settings.is_batch_norm(block.W[1])


def knows_shared_blocks(model: AGW) -> bool:
    kinds = {Bottleneck: knows_bottleneck, NonLocal: knows_non_local}
    return all(type(block) in kinds and kinds[type(block)](block) for block in model.shared)


def knows_intra_modality(learner: IntraModalityLearner) -> bool:
    halves = all(settings.is_convolution(conv) for conv in (learner.first, learner.second))
    spatial = settings.is_convolution(learner.spatial, ResidualDepthwise)
    pointwise = settings.is_whole_convolution(learner.expand) and _knows_scaled(learner.scale, learner.reduce)
    norms = settings.is_batch_norm(learner.bn1) and settings.is_batch_norm(learner.bn2)
    return halves and spatial and pointwise and norms


def knows_cross_modality(learner: CrossModalityLearner) -> bool:
    if not len(learner.pools) == len(learner.transposed) == len(learner.ratios) <= _MOST_RATIOS:
        return False
    pyramids = all(
        settings.is_average_pool(pool, ratio) and settings.is_patching(rebuild, ratio)
        for pool, rebuild, ratio in zip(learner.pools, learner.transposed, learner.ratios, strict=True)
    )
    same_widths = len({rebuild.out_channels for rebuild in learner.transposed}) == 1
    joined = type(learner.concat) is Concatenation and settings.is_batch_norm(learner.bn)
    return pyramids and same_widths and joined and _knows_scaled(learner.scale, learner.fuse)


def _knows_scaled(scale: Parameter, conv: nn.Conv2d) -> bool:
    return settings.is_pointwise(conv, False) and scale.shape in ((1, 1, 1, 1), (1, conv.out_channels, 1, 1))


def knows_agw(model: AGW) -> bool:
    return knows_resnet(model.visible_stem) and knows_resnet(model.infrared_stem) and knows_shared_blocks(model)


def knows_muns_evaluation(model: MUN) -> bool:
    return all(map(knows_resnet, (model.visible_stage, model.infrared_stage, model.shared)))


def knows_muns_training(model: MUN) -> bool:
    return knows_muns_evaluation(model) and _knows_intermediate(model.generator)


def _knows_intermediate(generator: AuxiliaryGenerator | PixelModality | None) -> bool:
    if generator is None:
        return True
    if isinstance(generator, PixelModality):
        return knows_resnet(generator.stage)
    learners = generator.visible_learner, generator.infrared_learner
    return all(map(knows_intra_modality, learners)) and knows_cross_modality(generator.cross_learner)


# Costs: launches of a step.
TABLE = {
    # The whole way from pictures: channels are turned once.
    AGW.pooled: Replacement(agws_pooled, "without any kernel AGW: 727 launches for 431", knows_agw),
    MUN.pooled: Replacement(muns_pooled, "", knows_muns_evaluation),
    MUN.pooled_and_normalised: Replacement(
        pooled_and_normalised, "without any kernel MUN: 1,054 launches for 631", knows_muns_training
    ),
    # Its parts, where the whole is another one.
    AGW.shared_blocks: Replacement(shared_blocks, "", knows_shared_blocks),
    ResNet.construct: Replacement(resnet, "", knows_resnet),
    Bottleneck.construct: Replacement(bottleneck, "", knows_bottleneck),
    NonLocal.construct: Replacement(non_local, "", knows_non_local),
    # Both halves at once take 16 launches and 0.2 GiB less than apart.
    IntraModalityLearner.construct: Replacement(intra_modality, "", knows_intra_modality),
    CrossModalityLearner.construct: Replacement(cross_modality, "", knows_cross_modality),
}

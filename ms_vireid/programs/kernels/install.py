"""Which cells and optimisers compute by kernels, and how: the table."""

from functools import partial

from mindspore import Tensor, nn, ops

from ms_vireid.engine import optimizer
from ms_vireid.models import agw, auxiliary_generator, layers, resnet, vit
from ms_vireid.programs import operators, tensors
from ms_vireid.programs.kernels.base import align
from ms_vireid.programs.kernels.convolution import Convolution, Winograd
from ms_vireid.programs.kernels.feature_maps import Fork, Joined
from ms_vireid.programs.kernels.generator import Depthwise, Pyramids
from ms_vireid.programs.kernels.normalisation import BatchNorm
from ms_vireid.programs.kernels.optimizer import adamw, sgd
from ms_vireid.programs.kernels.pooling import MaxPool, MeanOfCubes
from ms_vireid.programs.kernels.transformer import GELU, Attention, Dense, Dropout, DropPath, LayerNorm, Patches

WINOGRAD = 64  # channels from which fewer multiplications outweigh the transformations, as measured


def install(model: nn.Cell, *others: nn.Cell) -> None:
    """Have a model and all its sub-cells, and its optimiser, compute by kernels from now on, and align its weights.

    The caller makes sure that this is PyNative, float32 and a CPU. Hooks are called as before, except those of cells
    that their parent's kernel computes as well (in MUN's learners). The cells can no longer be compiled or exported.
    """
    for weight in model.get_parameters():
        align(weight)
    for part in (part for cell in (model, *others) for _, part in cell.cells_and_names()):
        if type(part) in KERNELS:
            part.construct = partial(KERNELS[type(part)], part)
            part.has_bprop = False  # of `construct`, where a cell has its own: a kernel brings its derivative


def _patches(cell: vit.PatchProjection, images: Tensor) -> Tensor:
    patches = Patches.apply(images, cell.grid_size, cell.patch_size, cell.stride)
    return Dense.apply(patches, cell.weight.reshape(cell.embed_dim, -1), cell.bias)


def _gelu(cell: vit.GELU, x: Tensor) -> Tensor:
    return GELU.apply(x)


# Of MindSpore's own cells a kernel has the kind that this project's models are made of; operators compute all others.


def _layer_norm(cell: nn.LayerNorm, x: Tensor) -> Tensor:
    if (cell.begin_norm_axis, cell.begin_params_axis) != (-1, -1):
        return nn.LayerNorm.construct(cell, x)
    return LayerNorm.apply(x, cell.gamma, cell.beta, cell.epsilon)


def _dense(cell: operators.Dense, x: Tensor) -> Tensor:
    if not cell.has_bias:
        return operators.Dense.construct(cell, x)
    return Dense.apply(x, cell.weight, cell.bias)


def _attention(cell: vit.HeadsAttention, qkv: Tensor) -> Tensor:
    return Attention.apply(qkv, cell.num_heads)


def _dropout(cell: layers.Dropout, x: Tensor, noise: Tensor | None, multipliers: Tensor | None) -> Tensor:
    if not cell.training or cell.rate == 0.0:
        return x
    own = multipliers.asnumpy()[cell.layer : cell.layer + cell.parts]
    return Dropout.apply(x, noise, own, cell.limit, cell.masked.scale)


def _drop_path(cell: layers.DropPath, x: Tensor, factors: Tensor | None) -> Tensor:
    if not cell.training or cell.rate == 0.0:
        return x
    return DropPath.apply(x, factors[cell.layer])


def _gem(cell: layers.GeM, x: Tensor) -> Tensor:
    if cell.power != 3.0:
        return layers.GeM.construct(cell, x)
    return ops.pow(MeanOfCubes.apply(x) + cell.eps, 1.0 / cell.power)


def _convolution(cell: nn.Conv2d, x: Tensor) -> Tensor:
    kernel, stride = cell.kernel_size[0], cell.stride[0]
    square = (cell.kernel_size, cell.stride) == ((kernel, kernel), (stride, stride)) and kernel % 2
    centred = cell.padding == kernel // 2 and (cell.pad_mode == "pad" or kernel == 1)
    if not (square and centred and cell.dilation == (1, 1) and cell.group == 1):
        return nn.Conv2d.construct(cell, x)
    if kernel == 3 and stride == 1 and min(cell.weight.shape[:2]) >= WINOGRAD:
        return Winograd.apply(x, cell.weight)
    return Convolution.apply(x, cell.weight, cell.bias if cell.has_bias else None, stride)


def _bottleneck(cell: resnet.Bottleneck, x: Tensor) -> Tensor:
    return cell.added(*Fork.apply(x, 2))


def _non_local(cell: agw.NonLocal, x: Tensor) -> Tensor:
    return cell.added(*Fork.apply(x, 4))


def _joined(cell: tensors.Joined, parts: tuple[Tensor, ...]) -> Tensor:
    if cell.axis != 0 or parts[0].ndim != 4:
        return tensors.Joined.construct(cell, parts)
    return Joined.apply(*parts)


def _batch_norm(cell: resnet.BatchNormAct2d, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
    if not isinstance(cell.bn_train, ops.BatchNorm):  # by the statistics of several processes
        return resnet.BatchNormAct2d.construct(cell, x, shortcut, relu)
    moving = cell.moving_mean, cell.moving_variance
    return BatchNorm.apply(x, cell.gamma, cell.beta, shortcut, moving, cell.eps, cell.momentum, cell.training, relu)


def _max_pool(cell: nn.MaxPool2d, x: Tensor) -> Tensor:
    if not cell.use_pad or (cell.kernel_size, cell.stride, cell.padding) != (3, 2, (0, 1, 1)) or cell.return_indices:
        return nn.MaxPool2d.construct(cell, x)
    return MaxPool.apply(x)


def _intra(cell: auxiliary_generator.IntraModalityLearner, x: Tensor) -> Tensor:
    x = Depthwise.apply(x, False, cell.first.weight, cell.second.weight)
    x = Convolution.apply(cell.bn1(x), cell.expand.weight, None, 1)
    x = Depthwise.apply(x, True, cell.spatial.weight)
    # The factor is the same on the weight, which is smaller.
    return Convolution.apply(cell.bn2(x), cell.scale.reshape(-1, 1, 1, 1) * cell.reduce.weight, None, 1)


def _cross(cell: auxiliary_generator.CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    auxiliary_generator.check_size(visible.shape[2], visible.shape[3], cell.ratios)
    x = Pyramids.apply(2, visible, infrared, *(rebuild.weight for rebuild in cell.transposed))
    return Convolution.apply(cell.bn(x), cell.scale.reshape(-1, 1, 1, 1) * cell.fuse.weight, None, 1)


def _adamw(cell: optimizer.AdamW, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    rows = scalars.asnumpy()
    for i, gradient in enumerate(gradients):
        group = cell.group_of[i]
        held = cell.weights[i], cell.exp_avg[i], cell.exp_avg_sq[i]
        adamw(*held, gradient, *rows[group], *cell.betas, limits=cell.limits[group])
    return True


def _sgd(cell: optimizer.SGD, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    rates, decays, momentum = (x.asnumpy() for x in (scalars, cell.decays, cell.momentum))
    for i, gradient in enumerate(gradients):
        group = cell.group_of[i]
        how = cell.nesterov, rates[group], decays[group], momentum
        sgd(cell.weights[i], cell.momentum_buffer[i], gradient, *how, limits=cell.limits[group])
    return True


# How many times as long a full-size training step takes without each, as `python parity/benchmark.py --only kernels`
# printed on two cores with AVX-512; a spread is given where it hides the worth, and seconds where a cell was timed by
# itself. Without the kernels of convolutions these are oneDNN's reference (see `runtime.cap_convolutions`).
KERNELS = {
    vit.PatchProjection: _patches,  # PMT 1.00; 0.04 s in place of 0.07, the demonstration's 0.02 in place of 0.04
    vit.GELU: _gelu,  # PMT 1.10
    nn.LayerNorm: _layer_norm,  # PMT 1.16
    operators.Dense: _dense,  # PMT 1.17
    vit.HeadsAttention: _attention,  # PMT 1.05
    layers.Dropout: _dropout,  # PMT 1.17
    layers.DropPath: _drop_path,  # PMT 1.04
    layers.GeM: _gem,  # AGW 1.05
    nn.Conv2d: _convolution,  # AGW 45
    resnet.Bottleneck: _bottleneck,  # AGW 1.23
    agw.NonLocal: _non_local,  # AGW 1.11
    tensors.Joined: _joined,  # MUN 1.04, 0.51 to 2.06
    resnet.BatchNormAct2d: _batch_norm,  # AGW 1.90
    nn.MaxPool2d: _max_pool,  # AGW 1.06
    auxiliary_generator.IntraModalityLearner: _intra,  # MUN 2.95
    auxiliary_generator.CrossModalityLearner: _cross,  # MUN 7.85
    optimizer.AdamW: _adamw,  # PMT 0.98, 0.84 to 1.04; 0.05 s in place of 0.23
    optimizer.SGD: _sgd,  # AGW 1.15
}

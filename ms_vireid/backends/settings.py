"""Whether layers of MindSpore are set as the kernels compute them.

A layer computes by the operator that it made when it was constructed: its attributes say nothing that this does not.
"""

import mindspore as ms
from mindspore import nn, ops

_MAX_POOL = nn.MaxPool2d(3, 2, "pad", 1).max_pool


def is_convolution(layer: nn.Cell, kind: type[nn.Conv2d] = nn.Conv2d) -> bool:
    """A convolution of maps [N, C, H, W]; of any stride, padding, dilation, groups."""
    if type(layer) is not kind:
        return False
    settings = layer.kernel_size, 1, layer.pad_mode, layer.padding, layer.stride, layer.dilation, layer.group
    made = layer.data_format == "NCHW" and _as_made(layer.conv2d, ops.Conv2D(layer.out_channels, *settings))
    shape = layer.out_channels, layer.in_channels // layer.group, *layer.kernel_size
    return made and layer.weight.shape == shape and layer.has_bias == (layer.bias is not None)


def is_whole_convolution(layer: nn.Cell) -> bool:
    """One without groups, of a square kernel."""
    return is_convolution(layer) and layer.group == 1 and layer.kernel_size[0] == layer.kernel_size[1]


def is_depthwise(layer: nn.Cell, kind: type[nn.Conv2d] = nn.Conv2d) -> bool:
    """One of each channel by itself, of an odd square kernel, to a map of the same size, without a bias."""
    if not is_convolution(layer, kind) or layer.has_bias or not layer.group == layer.in_channels == layer.out_channels:
        return False
    size = layer.kernel_size[0]
    same = layer.pad_mode == "pad" and layer.padding in (size // 2, (size // 2,) * 4)
    return same and size % 2 == 1 and layer.kernel_size == (size, size) and layer.stride == layer.dilation == (1, 1)


def is_pointwise(layer: nn.Cell, bias: bool) -> bool:
    """A 1x1 convolution of every place, with or without a bias."""
    if not is_whole_convolution(layer) or layer.has_bias != bias:
        return False
    padded = layer.pad_mode == "pad" and layer.padding not in (0, (0,) * 4)
    return layer.kernel_size == layer.stride == (1, 1) and not padded


def is_patching(layer: nn.Cell, ratio: int) -> bool:
    """A transposed convolution that makes a patch of `ratio` x `ratio` of each place."""
    if type(layer) is not nn.Conv2dTranspose:
        return False
    made = _as_made(layer.conv2d_transpose, ops.Conv2DTranspose(layer.in_channels, ratio, "valid", stride=ratio))
    sizes = layer.kernel_size == layer.stride == (ratio, ratio) and layer.dilation == (1, 1)
    plain = layer.pad_mode == "valid" and layer.padding == layer.output_padding == 0 and layer.bias is None
    shape = layer.in_channels, layer.out_channels, ratio, ratio
    return made and sizes and plain and not layer.has_bias and layer.weight.shape == shape


def is_batch_norm(layer: nn.Cell) -> bool:
    """Of maps [N, C, H, W], in the mode that its training flag says. Its operator may be another one, as with
    statistics of several processes; then it is called itself."""
    if type(layer) is not nn.BatchNorm2d or layer.use_batch_statistics is not None or layer.format != "NCHW":
        return False
    if not isinstance(layer.bn_train, ops.BatchNorm):
        return True
    train, infer = ops.BatchNorm(True, layer.eps, layer.momentum), ops.BatchNorm(False, layer.eps)
    parameters = layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance
    floats = all(parameter.dtype == ms.float32 for parameter in parameters)
    return floats and _as_made(layer.bn_train, train) and _as_made(layer.bn_infer, infer)


def is_max_pool(layer: nn.Cell) -> bool:
    """Of windows of 3x3, with stride 2 and a border of one."""
    plain = type(layer) is nn.MaxPool2d and layer.use_pad and not layer.return_indices
    return plain and _as_made(layer.max_pool, _MAX_POOL)


def is_average_pool(layer: nn.Cell, ratio: int) -> bool:
    """Of windows of `ratio` x `ratio`, side by side."""
    made = nn.AvgPool2d(ratio, ratio, "valid")
    plain = type(layer) is nn.AvgPool2d and not layer.is_expand
    return plain and _as_made(layer.avg_pool, made.avg_pool)


def is_dense(layer: nn.Cell, outputs: int) -> bool:
    """With a bias, without an activation."""
    if type(layer) is not nn.Dense or not layer.has_bias or layer.activation_flag:
        return False
    made = _as_made(layer.matmul, ops.MatMul(transpose_b=True)) and type(layer.bias_add) is ops.BiasAdd
    return made and layer.weight.shape == (outputs, layer.in_channels) and layer.bias.shape == (outputs,)


def _as_made(operator: ops.Primitive, made: ops.Primitive) -> bool:
    """Whether an operator has the settings of one that was just made."""
    return type(operator) is type(made) and all(operator.attrs.get(name) == value for name, value in made.attrs.items())

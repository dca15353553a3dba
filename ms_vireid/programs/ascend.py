"""What CANN has ready on an Ascend (aclnn...) in the place of operators that MindSpore hands over by name there, which
CANN compiles at their first use, once for each shape and type.

Other devices have no kernels of these: the device decides, in `ready` for cells and by `on_ascend` for operators.
"""

from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.mint.nn import functional


@ops.constexpr
@cache
def on_ascend() -> bool:
    """Whether operators are computed on an Ascend. To be asked once the device is chosen, as any operator."""
    return ms.get_context("device_target") == "Ascend"


def ready(cell: nn.Cell) -> nn.Cell:
    """A cell of MindSpore's own kinds, with its weights, computed by what CANN has ready; on other devices as it is."""
    if ms.get_context("device_target") != "Ascend":
        return cell
    for kind, readied in READY.items():
        if isinstance(cell, kind):
            object.__setattr__(cell, "__class__", readied)
    if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d):
        cell.bn_train = _BatchNorm(True, cell.momentum, cell.eps)
        cell.bn_infer = _BatchNorm(False, cell.momentum, cell.eps)
    return cell


class _LayerNorm(nn.LayerNorm):
    def construct(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.normalized_shape, self.gamma, self.beta, self.epsilon)


class _Dense(nn.Dense):
    def construct(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class _Conv2d(nn.Conv2d):
    def construct(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.group)


class _Conv2dTranspose(nn.Conv2dTranspose):
    def construct(self, x: Tensor) -> Tensor:
        return functional.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, 0, self.group)


class _MaxPool2d(nn.MaxPool2d):
    def construct(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, self.kernel_size, self.stride, self.padding[1:])


class _AvgPool2d(nn.AvgPool2d):
    def construct(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.kernel_size, self.stride)


class _BatchNorm(nn.Cell):
    """In the place of `bn_train` or `bn_infer`, an operator of MindSpore's BatchNorms."""

    def __init__(self, of_batch: bool, momentum: float, eps: float):
        super().__init__()
        self.options = of_batch, momentum, eps

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor]:
        return (functional.batch_norm(x, mean, variance, gamma, beta, *self.options),)


# For cells as this project's models make them: with padding by numbers, or none. What each saves from going by name:
READY = {
    nn.LayerNorm: _LayerNorm,  # LayerNorm; LayerNormGrad, which is given no epsilon and takes 1e-12 for PMT's 1e-5
    nn.Dense: _Dense,  # BiasAdd, BiasAddGrad
    nn.Conv2d: _Conv2d,  # Conv2D, Conv2DBackpropFilter, Conv2DBackpropInput
    nn.Conv2dTranspose: _Conv2dTranspose,  # the same three
    nn.MaxPool2d: _MaxPool2d,  # CustMaxPool3DWithArgmax and its gradient, both on the slow AI CPU
    nn.AvgPool2d: _AvgPool2d,  # AvgPool, AvgPoolGrad
}

"""Layers of feature maps by the CUDA kernels."""

from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.programs.cuda.operators import operator, same


class Depthwise(nn.Cell):
    """Depth-wise convolution of x [N, C, H, W] with weight [C, 1, K, K], stride 1, "same" padding. residual: convolve
    ReLU(x), add x."""

    def __init__(self, residual: bool = False):
        super().__init__()
        self.residual = residual
        name = "residual_depthwise" if residual else "depthwise"
        self.forward = operator(name, same, same)
        self.backward = operator(f"{name}_gradient", same, same)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.forward(x, weight)

    def bprop(self, x, weight, _out, gradient):
        if self.residual:
            grad_x, convolved = self.backward(gradient, weight, x), ops.relu(x)
        else:
            grad_x, convolved = self.backward(gradient, weight), x
        channels, _, size, _ = weight.shape
        border = (size // 2,) * 4
        grad_weight = Conv2DBackpropFilter(channels, (size, size), "pad", border, border, group=channels)
        return grad_x, grad_weight(gradient, convolved, weight.shape)


_depthwise, _residual_depthwise = Depthwise(), Depthwise(residual=True)
_SIZES = (3, 5, 7)  # of depth-wise kernels


def _by_channel(self: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = self.kernel_size[0], self.in_channels
    plain = self.stride == (1, 1) and self.dilation == (1, 1) and not self.has_bias
    return plain and self.group == self.out_channels == channels and self.kernel_size == (size, size) and size in _SIZES


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    return _depthwise(x, self.weight) if _by_channel(self) else nn.Conv2d.construct(self, x)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return _residual_depthwise(x, self.weight) if _by_channel(self) else ResidualDepthwise.construct(self, x)


TABLE = {nn.Conv2d.construct: convolution, ResidualDepthwise.construct: residual_depthwise}

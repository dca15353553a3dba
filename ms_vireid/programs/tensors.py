"""What models and losses both do with tensors."""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def overwrite(parameter: Parameter, value: Tensor) -> None:
    """Set a parameter to `value` within a rounding of float32, by taking off the difference: on a GPU that is two
    kernels, and `ops.assign` two copies."""
    ops.assign_sub(parameter, ops.sub(parameter, value))


@ops.constexpr
@cache
def _is_place(i: int, count: int, axis: int, axes: int) -> Tensor:
    """Which of `count` places along one of `axes` is the i-th: bool [1, ..., count, ..., 1]."""
    shape = [1] * axes
    shape[axis] = count
    return Tensor((np.arange(count) == i).reshape(shape), ms.bool_)


class Joined(nn.Cell):
    """Tensors of one shape, one after another along a new axis.

    Made by selection, with the derivative written out: at every call MindSpore's Concat and Stack copy the addresses of
    their tensors to a GPU, and the step waits for it.

    Args:
        axis: place of the new axis.
    """

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def construct(self, parts: tuple[Tensor, ...]) -> Tensor:
        """N tensors [..., ...] -> [..., N, ...]."""
        count = len(parts)
        axes = parts[0].ndim + 1
        joined = ops.expand_dims(parts[count - 1], self.axis)
        for i in range(count - 2, -1, -1):
            chosen = _is_place(i, count, self.axis, axes)
            joined = ops.where(chosen, ops.expand_dims(parts[i], self.axis), joined)
        return joined

    def bprop(self, parts: tuple[Tensor, ...], _out: Tensor, gradient: Tensor) -> tuple[tuple[Tensor, ...]]:
        gradients = ()
        for i in range(len(parts)):
            gradients += (ops.narrow(gradient, self.axis, i, 1).reshape(parts[i].shape),)
        return (gradients,)

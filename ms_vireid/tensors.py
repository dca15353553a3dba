"""What models and losses both do with tensors."""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops


def overwrite(parameter: Parameter, value: Tensor) -> None:
    """Set a parameter to `value` within a rounding of float32, by taking off the difference: on a GPU that is two
    kernels, and `ops.assign` two copies."""
    ops.assign_sub(parameter, parameter - value)


class Joined(nn.Cell):
    """Tensors of one shape, one after another along a new axis.

    A selection, with the derivative written out: MindSpore's Concat and Stack copy their tensors' addresses to a GPU at
    every call, which a step of many layers waits for.

    Args:
        axis: the new one's place.
    """

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def construct(self, parts: tuple[Tensor, ...]) -> Tensor:
        """N tensors [..., ...] -> [..., N, ...]."""
        count = len(parts)
        places = [1] * (parts[0].ndim + 1)
        places[self.axis] = count
        number = Tensor(list(range(count)), ms.int32).reshape(tuple(places))
        joined = ops.expand_dims(parts[count - 1], self.axis)
        for i in range(count - 2, -1, -1):
            joined = ops.where(number == i, ops.expand_dims(parts[i], self.axis), joined)
        return joined

    def bprop(self, parts: tuple[Tensor, ...], _out: Tensor, gradient: Tensor) -> tuple[tuple[Tensor, ...]]:
        gradients = ()
        for i in range(len(parts)):
            gradients += (ops.narrow(gradient, self.axis, i, 1).reshape(parts[i].shape),)
        return (gradients,)

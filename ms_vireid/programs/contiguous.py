"""Parameters in one contiguous buffer, so that one launch updates all of them."""

from collections.abc import Collection, Sequence
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.utils import _reuse_data_ptr  # made for such buffers in libraries that train large models

ALIGNED = 128  # elements, 512 bytes of float32: the alignment of separate parameters


class Contiguous:
    """Parameters of one type inside `buffer`, a one-dimensional parameter, with zeros in the gaps.

    Read them and write them by `ops.assign` and other operators; `set_data` would move a parameter elsewhere. MindSpore
    does not know that they share memory: a graph may read the parts and then write the buffer only if what it writes
    depends on all these reads, as an update does on the gradients.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter]):
        gaps = [-p.size % ALIGNED for p in parameters]
        self.parameters = tuple(parameters)
        self._gaps = tuple((i, gap) for i, gap in enumerate(gaps, 1) if gap)  # i: of the next parameter
        memory = self.joined(tuple(parameters), parameters[0].dtype)  # on the device
        self.buffer = Parameter(memory, name=name, requires_grad=False)
        self.buffer.set_data(memory)
        start = 0
        for parameter, gap in zip(parameters, gaps, strict=True):
            _reuse_data_ptr(parameter, self.buffer, start)
            start += parameter.size + gap

    def joined(self, tensors: tuple[Tensor, ...], dtype: ms.Type) -> Tensor:
        """Join tensors of the parameters' shapes, of one type, into one of the buffer's shape and of type `dtype`."""
        return join(tensors, self._gaps, dtype)


def join(tensors: tuple[Tensor, ...], gaps: tuple[tuple[int, int], ...], dtype: ms.Type) -> Tensor:
    """Join all elements of tensors; gaps: (i, elements) of zeros before the i-th tensor."""
    rows = _each(_row, tensors)  # not a loop: MindSpore's compiler would nest a level deeper at each iteration
    pieces = ()
    start = 0
    for end, gap in gaps:
        pieces += (*rows[start:end], _zeros(gap, tensors[0].dtype))
        start = end
    return ops.concat(pieces + rows[start:]).astype(dtype)


@ops.constexpr
@cache
def _zeros(count: int, dtype: ms.Type) -> Tensor:
    return Tensor(np.zeros(count), dtype)


_each = ops.HyperMap()


def _row(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)


class Layout:
    """An optimiser's weights where they are."""

    def __init__(self, optimizer: nn.Cell):
        self.weights = optimizer.weights

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Arrange gradients, in the order of `weights`, for the optimiser."""
        return gradients


class ContiguousWeights(Layout):
    """An optimiser's weights and states in contiguous buffers: one a group, or two if some are named in `separate`.

    The optimiser's `weights`, states and `group_of` become those of the buffers; `weights` here are the parameters
    themselves, in the order of the buffers.
    """

    def __init__(self, optimizer: nn.Cell, separate: Collection[str] = ()):
        parts: dict[tuple[int, bool], list[int]] = {}  # -> indices of the weights
        for place, (weight, group) in enumerate(zip(optimizer.weights, optimizer.group_of, strict=True)):
            parts.setdefault((group, weight.name in separate), []).append(place)
        parts = dict(sorted(parts.items()))
        for name in ("weights", *optimizer.STATES):
            parameters = getattr(optimizer, name)
            buffers = [
                Contiguous(f"{name}.{i}", [parameters[place] for place in places])
                for i, places in enumerate(parts.values())
            ]
            setattr(optimizer, name, ParameterTuple([part.buffer for part in buffers]))
            if name == "weights":
                self.buffers = tuple(buffers)
        optimizer.group_of = tuple(group for group, _ in parts)
        self.weights = ParameterTuple([p for part in self.buffers for p in part.parameters])
        ends = np.cumsum([len(part.parameters) for part in self.buffers]).tolist()
        self._ranges = tuple(zip((0, *ends[:-1]), ends, strict=True))

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Join gradients buffer by buffer, in float32."""
        joined = ()
        for i in range(len(self.buffers)):
            start, end = self._ranges[i]
            joined += (self.buffers[i].joined(gradients[start:end], ms.float32),)
        return joined

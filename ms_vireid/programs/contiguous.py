"""Parameters in one contiguous buffer, so that one launch updates all of them."""

from collections.abc import Collection, Sequence
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.utils import _reuse_data_ptr  # for parameters of this kind, in the libraries that train large models

_ALIGNED = 128  # elements, 512 bytes of float32: each parameter begins where memory of its own would


class Contiguous:
    """Parameters of one type within `buffer`, a parameter of one axis; zeros fill the gaps between them.

    Both may be read, and written by `ops.assign` and by operators; `set_data` would give a parameter other memory.
    MindSpore does not know that they share it. A graph may read the parts and then write the buffer, if all that reads
    them is needed for what is written, as gradients are.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter]):
        gaps = [-p.size % _ALIGNED for p in parameters]
        self.parameters = tuple(parameters)
        # Each gap with the number of the first parameter behind it.
        self._gaps = tuple((i, gap) for i, gap in enumerate(gaps, 1) if gap)
        memory = self.joined(tuple(parameters))  # on the device
        self.buffer = Parameter(memory, name=name, requires_grad=False)
        self.buffer.set_data(memory)
        start = 0
        for parameter, gap in zip(parameters, gaps, strict=True):
            _reuse_data_ptr(parameter, self.buffer, start)
            start += parameter.size + gap

    def joined(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Tensors of the parameters' shapes, of one type, as one of the buffer's shape."""
        rows = _each(_row, tensors)  # not by a loop, in which MindSpore's compiler goes a level deeper with each turn
        pieces = ()
        start = 0
        for end, gap in self._gaps:
            pieces += (*rows[start:end], _zeros(gap, tensors[0].dtype))
            start = end
        return ops.concat(pieces + rows[start:])


@ops.constexpr
@cache
def _zeros(count: int, dtype: ms.Type) -> Tensor:
    return Tensor(np.zeros(count), dtype)


_each = ops.HyperMap()


def _row(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)


class Layout:
    """An optimiser's weights as they are."""

    def __init__(self, optimizer: nn.Cell):
        self.weights = optimizer.weights

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients in the order of `weights` as the optimiser takes them."""
        return gradients


class ContiguousWeights(Layout):
    """An optimiser's weights and states in buffers, one of each group, or two: those named in `apart` have their own.

    The optimiser's `weights`, states and `group_of` become the buffers'; `weights` here are the parameters themselves,
    in the order of the buffers.
    """

    def __init__(self, optimizer: nn.Cell, apart: Collection[str] = ()):
        parts: dict[tuple[int, bool], list[int]] = {}  # places of the weights
        for place, (weight, group) in enumerate(zip(optimizer.weights, optimizer.group_of, strict=True)):
            parts.setdefault((group, weight.name in apart), []).append(place)
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
        """In float32."""
        joined = ()
        for i in range(len(self.buffers)):
            start, end = self._ranges[i]
            joined += (self.buffers[i].joined(gradients[start:end]).astype(ms.float32),)
        return joined

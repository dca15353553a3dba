"""Parameters in one contiguous buffer, so that one launch updates all of them."""

from collections.abc import Collection, Sequence
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, ops
from mindspore.utils import _reuse_data_ptr  # made for such buffers in libraries that train large models

from ms_vireid.optimizers.groups import GroupOptimizer, Part
from ms_vireid.replaceable import replaceable

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


@replaceable("cuda")
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


class WeightLayout:
    """An optimiser's weights where they are.

    weights: in the order in which they are differentiated. parts: what updates change.
    """

    def __init__(self, optimizer: GroupOptimizer):
        self.weights = optimizer.weights
        self.parts = optimizer.parts
        self.buffers: tuple[Contiguous, ...] = ()

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Arrange the weights' gradients by parts, in float32."""
        return tuple([gradient.astype(ms.float32) for gradient in gradients])


class ContiguousWeights(WeightLayout):
    """An optimiser's weights and states in contiguous buffers: one a group, or two if some are named in `separate`."""

    def __init__(self, optimizer: GroupOptimizer, separate: Collection[str] = ()):
        shares: dict[tuple[int, bool], list[Part]] = {}
        for part in optimizer.parts:
            shares.setdefault((part.group, part.weight.name in separate), []).append(part)
        self.buffers, parts = (), ()
        for number, ((group, _), share) in enumerate(sorted(shares.items(), key=lambda item: item[0])):
            weights = Contiguous(f"weights.{number}", [part.weight for part in share])
            states = {
                name: Contiguous(f"{name}.{number}", [part.states[i] for part in share]).buffer
                for i, name in enumerate(optimizer.STATES)
            }
            self.buffers += (weights,)
            parts += (Part(weights.buffer, states, group),)
        self.parts = parts
        self.weights = ParameterTuple([p for buffer in self.buffers for p in buffer.parameters])
        ends = np.cumsum([len(buffer.parameters) for buffer in self.buffers]).tolist()
        self._ranges = tuple(zip((0, *ends[:-1]), ends, strict=True))

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Join gradients buffer by buffer, in float32."""
        joined = ()
        for i in range(len(self.buffers)):
            start, end = self._ranges[i]
            joined += (self.buffers[i].joined(gradients[start:end], ms.float32),)
        return joined

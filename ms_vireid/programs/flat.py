"""Parameters that lie one behind the other in the memory of one, so that one launch updates all of them."""

from collections.abc import Sequence
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.utils import _reuse_data_ptr  # for parameters of this kind, in the libraries that train large models

_ALIGNED = 128  # elements, 512 bytes of float32: each parameter begins where memory of its own would


class Flat:
    """Parameters of one type in the memory of `whole`, a parameter of one axis; zeros fill the gaps between them.

    Both may be read, and written by `ops.assign` and by operators; `set_data` would give a parameter other memory.
    MindSpore does not know that they share it. A graph may read the parts and then write the whole, if all that reads
    them is needed for what is written, as gradients are.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter]):
        gaps = [-p.size % _ALIGNED for p in parameters]
        self.names = tuple(p.name for p in parameters)
        # Each gap with the number of the first parameter behind it.
        self._gaps = tuple((i, gap) for i, gap in enumerate(gaps, 1) if gap)
        memory = self.joined(tuple(parameters))  # on the device
        self.whole = Parameter(memory, name=name, requires_grad=False)
        self.whole.set_data(memory)
        start = 0
        for parameter, gap in zip(parameters, gaps, strict=True):
            _reuse_data_ptr(parameter, self.whole, start)
            start += parameter.size + gap

    def joined(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Tensors of the parameters' shapes, of one type, as one of the whole's shape."""
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

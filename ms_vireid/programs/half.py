"""Training in half precision: activations and copies of the weights in float16 or bfloat16, the weights in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops

from ms_vireid.programs.contiguous import Contiguous


class HalfWeights:
    """Copies in `dtype` of the weights that a model computes its feature maps with: those before its `HEAD`, but for
    BatchNorm's, whose operators take float32 beside maps of any type. All else stays in float32."""

    def __init__(self, model: nn.Cell, dtype: ms.Type):
        self.dtype = dtype
        cells = [cell for _, cell in model.cells_and_names()]
        norms = [cell for cell in cells if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d)]
        kept = {p.name for cell in norms for p in cell.get_parameters()}
        head = getattr(model, "HEAD", ())
        weights = [p for p in model.trainable_params() if p.name not in kept and not p.name.startswith(head)]
        self._copies = {p.name: Parameter(ops.zeros(p.shape, dtype), name=f"half.{p.name}") for p in weights}
        self._pairs = [(p, self._copies[p.name]) for p in weights]
        self._places = [
            (cell, attribute, weight)
            for cell in cells
            for attribute, weight in cell._params.items()
            if weight is not None and weight.name in self._copies
        ]

    def names(self) -> set[str]:
        """Of the weights that have copies."""
        return set(self._copies)

    def lay_out(self, weights: tuple[Contiguous, ...]) -> None:
        """Copy each of these buffers, if its weights have copies, by one launch."""
        self._pairs = []
        for part in weights:
            if part.parameters[0].name in self._copies:
                copies = [self._copies[weight.name] for weight in part.parameters]
                self._pairs.append((part.buffer, Contiguous(f"half.{part.buffer.name}", copies).buffer))

    def differentiated(self, weights: tuple[Parameter, ...]) -> ParameterTuple:
        """What the model computes with in place of these."""
        return ParameterTuple([self._copies.get(weight.name, weight) for weight in weights])

    def refresh(self) -> None:
        """Copy the weights as they are now; within a graph after they are updated."""
        for weight, copy in self._pairs:
            ops.assign(copy, weight.astype(self.dtype))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model computes with the copies."""
        for cell, attribute, weight in self._places:
            cell._params[attribute] = self._copies[weight.name]
        try:
            yield
        finally:
            for cell, attribute, weight in self._places:
                cell._params[attribute] = weight

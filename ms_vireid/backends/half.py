"""Mixed precision: activations and copies of weights in float16 or bfloat16, the weights themselves in float32; and the
scale of a float16 loss."""

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.amp import DynamicLossScaler

from ms_vireid.backends.contiguous import Contiguous
from ms_vireid.replaceable import replaceable


class HalfWeights:
    """Copies in `dtype` of the weights that compute a model's feature maps, frozen ones too: those before its `HEAD`,
    except BatchNorm's, whose operators take float32 with maps of any type. All others stay in float32."""

    def __init__(self, model: nn.Cell, dtype: ms.Type):
        self.dtype = dtype
        cells = [cell for _, cell in model.cells_and_names()]
        norms = [cell for cell in cells if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d)]
        excluded = {p.name for cell in norms for p in cell.get_parameters()}
        head = getattr(model, "HEAD", ())
        weights = [p for p in model.get_parameters() if p.name not in excluded and not p.name.startswith(head)]
        weights = [p for p in weights if p.dtype == ms.float32]
        self._copies = {p.name: Parameter(ops.zeros(p.shape, dtype), name=f"half.{p.name}") for p in weights}
        self._pairs = [(p, self._copies[p.name]) for p in weights]
        self._places = [
            (cell._params, attribute, weight, self._copies[weight.name])
            for cell in cells
            for attribute, weight in cell._params.items()
            if weight is not None and weight.name in self._copies
        ]

    def names(self) -> set[str]:
        """The names of the weights that have copies."""
        return set(self._copies)

    def lay_out(self, buffers: tuple[Contiguous, ...]) -> None:
        """Make the copies of each buffer contiguous too, so that one launch refreshes them."""
        if not buffers:
            return
        self._pairs = []
        for weights in buffers:
            if weights.parameters[0].name in self._copies:
                copies = [self._copies[weight.name] for weight in weights.parameters]
                self._pairs.append((weights.buffer, Contiguous(f"half.{weights.buffer.name}", copies).buffer))

    def differentiated(self, weights: tuple[Parameter, ...]) -> ParameterTuple:
        """The parameters that the model computes with: copies where there are any."""
        return ParameterTuple([self._copies.get(weight.name, weight) for weight in weights])

    def refresh(self) -> None:
        """Copy the current weights; within a graph, after their update."""
        for weight, copy in self._pairs:
            write(copy, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model compute with the copies within the block."""
        for held, attribute, _, copy in self._places:
            held[attribute] = copy
        try:
            yield
        finally:
            for held, attribute, weight, _ in self._places:
                held[attribute] = weight


@replaceable("cuda")
def unscaled(scaler: DynamicLossScaler, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Divide a step's gradients by the scale of their float16 loss, and adjust the scale to them. Returns them, and
    whether they are finite: a boolean scalar, by the sum of each tensor."""
    factor = ops.reciprocal(scaler.scale_value)
    gradients = tuple([gradient * factor for gradient in gradients])
    sums = [gradient.sum().reshape(1) for gradient in gradients]
    finite = ops.isfinite(ops.cat(sums)).all()
    scaler.adjust(finite)
    return gradients, finite


@replaceable("cuda")
def write(copy: Parameter, weight: Parameter) -> None:
    """Round a weight into its copy."""
    ops.assign(copy, weight.astype(copy.dtype))

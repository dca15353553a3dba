"""A MindSpore cell and its PyTorch twin with the same weights on the same inputs, and everything that comes out: of
MindSpore by each of its programs, of PyTorch once for all of them."""

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import mindspore as ms
import numpy as np
import torch
from mindspore import Parameter, nn, ops
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ms_vireid.command.names import PROGRAMS
from ms_vireid.files.weights import COUNTER
from ms_vireid.programs.half import HalfWeights
from ms_vireid.programs.program import program as program_named
from parity.compare import (
    FORWARD,
    GRADIENT,
    HALF,
    HALF_MARGIN,
    KINKS,
    MARGIN,
    ROUNDING,
    Comparison,
    compare,
    compare_all,
    compare_names,
)
from parity.mapping import twins, values
from parity.states import to_torch

# A bias before a BatchNorm, which takes it off again: its gradient is exactly 0, and what the sum of many terms,
# divided by a small standard deviation, leaves of it is rounding.
CANCELLED = re.compile(r"(^|\.)W\.0\.bias$")

Pair = tuple[nn.Cell, torch.nn.Module]


By = Callable[[str], list[Comparison]]  # what a program computes, beside a reference that is already there
OF_FUNCTIONS = ("operators", "graph")  # kernels, of both kinds, take the place of cells alone
OF_HALF = (*OF_FUNCTIONS, "cuda")


@dataclass(frozen=True)
class Case:
    """One thing to prove.

    rung: of the ladder, 1 to 7. subject: the layer, loss or model.
    prepare: computes PyTorch's side; what it returns computes MindSpore's by one program after another. Once the
        kernels are installed they stay: theirs is the last.
    small: takes a second or two at most.
    programs: of `PROGRAMS`, those that differ here; none where MindSpore computes nothing but once.
    device: the only one that computes it; "": all do.
    """

    rung: int
    subject: str
    prepare: Callable[[], By]
    small: bool = True
    programs: tuple[str, ...] = PROGRAMS
    device: str = ""

    def is_for(self, device: str) -> bool:
        return self.device in ("", device)

    def __str__(self) -> str:
        return f"{self.rung} {self.subject}"

    @property
    def training(self) -> str:
        """The recipe that it is a training of, if it is one."""
        return "" if self.small or self.rung != 5 else self.subject.partition(", ")[0]


def once(rung: int, subject: str, function: Callable[..., list[Comparison]], *arguments: Any) -> Case:
    """A case in which no program takes part."""
    return Case(rung, subject, lambda: lambda _program: function(*arguments), programs=())


def all_of(*parts: By) -> By:
    """One after another."""
    return lambda program: [comparison for part in parts for comparison in part(program)]


def from_here(cell: nn.Cell, *parts: By) -> By:
    """The parts one after another, by each program from the statistics and memories that the cell has now."""
    buffers = [
        (parameter, parameter.asnumpy().copy()) for parameter in cell.get_parameters() if not parameter.requires_grad
    ]

    def by(program: str) -> list[Comparison]:
        for parameter, value in buffers:
            parameter.set_data(ms.Tensor(value))
        return all_of(*parts)(program)

    return by


def by_program(program: str, function: Callable) -> Callable:
    """The function as a program computes it, which is prepared if it is a cell."""
    computing = program_named(program)
    if isinstance(function, nn.Cell):
        computing.prepare(function)
    return computing.computed(function)


@dataclass
class Computed:
    """What one framework computed, as arrays by PyTorch's names."""

    outputs: dict[str, np.ndarray]
    input_gradients: dict[str, np.ndarray] = field(default_factory=dict)
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


def same_weights(cell: nn.Cell, module: torch.nn.Module, seed: int = 0, residual: float = 1.0) -> None:
    """Give both the cell's weights after shaking them, so that no scale is 1, no bias 0 and no variance 1.

    residual: factor of the last BatchNorm weight of each of a ResNet's branches. At 1, as initialised, sixteen blocks
    amplify rounding ten-thousandfold; training makes the branches smaller than what they are added to.
    """
    rng = np.random.default_rng(seed)
    for twin in twins(cell):
        value = twin.parameter.asnumpy()
        if twin.torch_name.endswith("running_var"):
            value = value * rng.uniform(0.5, 2.0, value.shape)
        else:
            value = value + (0.3 * value.std() or 0.05) * rng.normal(size=value.shape)
        if twin.torch_name.endswith("bn3.weight"):
            value = value * residual
        twin.parameter.set_data(ms.Tensor(value.astype(np.float32)))
    to_torch(cell, module)


class HalfProducts(TorchDispatchMode):
    """PyTorch with all operands and results of products and convolutions, forward and backward, rounded to float16."""

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function.overloadpacket.__name__ not in self.PRODUCTS:
            return function(*arguments, **options)
        return tree_map(self._rounded, function(*tree_map(self._rounded, arguments), **options))

    @staticmethod
    def _rounded(value: Any) -> Any:
        return value.half().float() if isinstance(value, torch.Tensor) else value


def torch_side(module: torch.nn.Module, inputs: Sequence[Any], training: bool, half: bool = False) -> Computed:
    """Outputs in either mode; in training also the gradients of a random weighing of all outputs, of the float inputs
    and of every trainable weight, and the buffers afterwards.

    Args:
        inputs: positional arguments, arrays or plain values, as for `mindspore_side`.
        half: training with products and convolutions rounded to float16.
    """
    module.train(training)
    if training:
        with HalfProducts() if half else nullcontext():
            return _train_torch(module, inputs)
    with torch.no_grad():
        return Computed(_outputs(module(*map(_to_torch, inputs))))


def mindspore_side(
    cell: nn.Cell,
    inputs: Sequence[Any],
    training: bool,
    program: str,
    buffers: Collection[str] = (),
    half: bool = False,
) -> Computed:
    """The same by a program. buffers: PyTorch's names of those that are compared. half: as `train.amp` has it."""
    cell.set_train(training)
    if training:
        return _train_mindspore(cell, inputs, program, buffers, half)
    return Computed(_outputs(by_program(program, cell)(*map(_to_mindspore, inputs))))


def compare_evaluation(pair: Pair, inputs: Sequence[Any]) -> By:
    """Outputs in evaluation mode."""
    cell, module = pair
    expected = torch_side(module, inputs, training=False)

    def by(program: str) -> list[Comparison]:
        actual = mindspore_side(cell, inputs, False, program)
        return compare_all("output", actual.outputs, expected.outputs, FORWARD)

    return by


def compare_training(pair: Pair, inputs: Sequence[Any]) -> By:
    """Outputs, gradients of inputs and of every weight by name, and buffers, in training mode."""
    cell, module = pair
    expected = torch_side(module, inputs, training=True)

    def by(program: str) -> list[Comparison]:
        actual = mindspore_side(cell, inputs, True, program, expected.buffers)
        comparisons = compare_all("output", actual.outputs, expected.outputs, FORWARD)
        if expected.input_gradients:
            comparisons += compare_all("gradient of", actual.input_gradients, expected.input_gradients, GRADIENT)
        if expected.gradients:
            comparisons.append(compare_names("gradients: names", actual.gradients, expected.gradients))
            comparisons += [
                compare(f"gradient of {name}", actual.gradients[name], value, *_limit(name, expected.gradients))
                for name, value in expected.gradients.items()
                if name in actual.gradients
            ]
        if expected.buffers:
            comparisons += compare_all("buffer", actual.buffers, expected.buffers, FORWARD)
        return comparisons

    return by


def _limit(name: str, gradients: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The tolerance of a gradient, and the scale that it is relative to: its largest entry. A bias and its weight share
    one scale, as both sum the same terms."""
    if CANCELLED.search(name):
        tolerance, group = ROUNDING, [name.replace("W.0.bias", f"W.1.{own}") for own in ("weight", "bias")]
    else:
        tolerance, group = GRADIENT, [name, re.sub(r"\bbias$", "weight", name)]
    return tolerance, max(float(np.abs(gradients[member]).max()) for member in group if member in gradients)


def compare_with_float64(pair: Pair, inputs: Sequence[Any]) -> By:
    """What `compare_training` compares, where float32 itself is worth less than the tolerances: both frameworks'
    distance to PyTorch in float64.

    Fifty layers with BatchNorm and ReLU amplify rounding: an activation that is 0 up to rounding passes its gradient
    in one framework and not in the other. MindSpore may be `MARGIN` times as far from the exact result as PyTorch is,
    or, where PyTorch happens to meet no such activation, as far as a few of them reach (`KINKS`). Errors are given in
    times of PyTorch's, in the Euclidean norm. What is finer than this, the same code at small widths shows.
    """
    exact_inputs = [value.astype(np.float64) if _differentiable(value) else value for value in inputs]
    exact = torch_side(copy.deepcopy(pair[1]).double(), exact_inputs, training=True)
    return _compare_distances(pair, inputs, exact, FORWARD, KINKS)


def compare_half(pair: Pair, inputs: Sequence[Any]) -> By:
    """What `compare_training` compares, in float16 as `train.amp` has it: MindSpore's distance to PyTorch in float32,
    beside that of PyTorch with `HalfProducts`.

    How far float16's rounding (`HALF`) of every operand and result of a product reaches depends on the layers that come
    after it. PyTorch's distance says how far; MindSpore, which also casts what is between products, may be
    `HALF_MARGIN` times as far.
    """
    exact = torch_side(copy.deepcopy(pair[1]), inputs, training=True)
    return _compare_distances(pair, inputs, exact, HALF, HALF, half=True)


def _compare_distances(
    pair: Pair, inputs: Sequence[Any], exact: Computed, forward: float, backward: float, half: bool = False
) -> By:
    cell, module = pair
    expected = torch_side(module, inputs, training=True, half=half)

    def by(program: str) -> list[Comparison]:
        actual = mindspore_side(cell, inputs, True, program, expected.buffers, half)
        return _distances(actual, expected, exact, forward, backward, HALF_MARGIN if half else MARGIN)

    return by


def _distances(
    actual: Computed, expected: Computed, exact: Computed, forward: float, backward: float, margin: float
) -> list[Comparison]:
    """MindSpore's distances to what is exact, in times of PyTorch's own, of `forward` (outputs and buffers) or of
    `backward` (gradients): the largest of these. `margin` of them, or once one of the latter two, are the limit."""
    comparisons = []
    for prefix, tolerance, kind in (
        ("output", forward, "outputs"),
        ("gradient of", backward, "input_gradients"),
        ("gradient of", backward, "gradients"),
        ("buffer", forward, "buffers"),
    ):
        ours, theirs, truth = (getattr(computed, kind) for computed in (actual, expected, exact))
        comparisons.append(compare_names(f"{kind}: names", ours, truth))
        kept = [name for name in truth if name in ours and not CANCELLED.search(name)]
        # A bias is judged with its weight, and no tensor by less than the usual: one may be exact by chance.
        groups = {n: [member for member in (n, re.sub(r"\bbias$", "weight", n)) if member in truth] for n in kept}
        scales = {name: max(_norm(truth[member]) for member in group) or 1.0 for name, group in groups.items()}
        distances = {name: _norm(theirs[name] - truth[name]) / scales[name] for name in kept}
        usual = float(np.median(list(distances.values()) or [0.0]))
        for name in kept:
            error = _norm(ours[name] - truth[name]) / scales[name]
            reference = max(usual, *(distances.get(member, 0.0) for member in groups[name]))
            times = error / max(reference, tolerance / margin)
            detail = f"to the exact one, in the Euclidean norm: MindSpore {error:.1e}, PyTorch {reference:.1e}"
            comparisons.append(Comparison(f"{prefix} {name}", times, margin, detail))
    return comparisons


def _norm(value: np.ndarray) -> float:
    return float(np.linalg.norm(value.astype(np.float64)))


def trace(pair: Pair, inputs: Sequence[Any], training: bool = False) -> By:
    """Every layer's output, in the order in which PyTorch computes them, so that the first one over the tolerance is
    where a difference starts. Layers are matched by name; a layer that only one side has (as the fused softmax of an
    attention), or that a kernel takes in one with the layer around it, is passed over."""
    cell, module = pair
    cell.set_train(training)
    module.train(training)
    expected: dict[str, np.ndarray] = {}
    with _hooked(module.named_modules(), expected), torch.no_grad():
        module(*map(_to_torch, inputs))

    def by(program: str) -> list[Comparison]:
        cell.set_train(training)
        layers = _layers_of_graph if program_named(program).compiled else _layers
        actual = layers(program, cell, inputs)
        return [
            compare(f"output of {name}", actual[name], expected[name], FORWARD) for name in expected if name in actual
        ]

    return by


def _layers(program: str, cell: nn.Cell, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every layer's output by name, as its hook sees it."""
    actual: dict[str, np.ndarray] = {}
    computing = by_program(program, cell)
    with _hooked(cell.cells_and_names(), actual):
        computing(*map(_to_mindspore, inputs))
    return actual


@contextmanager
def _hooked(layers: Iterator[tuple[str, Any]], store: dict[str, np.ndarray]) -> Iterator[None]:
    hooks = [layer.register_forward_hook(partial(_keep, store, name)) for name, layer in layers if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _keep(store: dict[str, np.ndarray], name: str, _layer: Any, _inputs: Any, output: Any) -> None:
    if not isinstance(output, tuple):
        store.setdefault(name, _array(output))


def _layers_of_graph(program: str, cell: nn.Cell, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every layer's output by name, kept by the compiled graph itself, in which no hook is called: each layer also
    assigns what it gives to a parameter. Types and shapes are those of the operators. Layers within a cell that the
    program computes as a whole are not called, and are left out."""
    outputs = _layers("operators", cell, inputs)
    layers = {name: layer for name, layer in cell.cells_and_names() if name in outputs}
    computing = by_program(program, cell)  # which may replace a `construct`: before they are wrapped
    for name, layer in layers.items():
        layer.kept_output = Parameter(
            ms.Tensor(np.full_like(outputs[name], np.nan)), f"kept.{name}", requires_grad=False
        )
        vars(layer).update(plain_construct=layer.construct, construct=MethodType(_construct_and_keep, layer))
    try:
        computing(*map(_to_mindspore, inputs))
        kept = {name: layer.kept_output.asnumpy() for name, layer in layers.items()}
        return {name: value for name, value in kept.items() if not np.isnan(value).all()}
    finally:
        for layer in layers.values():
            del layer.kept_output
            layer.construct = vars(layer).pop("plain_construct")


def _construct_and_keep(self, *inputs):
    output = self.plain_construct(*inputs)
    ops.assign(self.kept_output, output)
    return output


def _train_mindspore(
    cell: nn.Cell, inputs: Sequence[Any], program: str, buffers: Collection[str], half: bool
) -> Computed:
    """`buffers`: PyTorch's names of them; in MindSpore they are parameters that are not trained, as frozen weights."""
    program_named(program).prepare(cell)
    tensors = [_to_mindspore(value) for value in inputs]
    trained = [twin for twin in twins(cell) if twin.parameter.requires_grad]
    weights = ms.ParameterTuple([twin.parameter for twin in trained])
    halved = None
    if half:
        halved = HalfWeights(cell, ms.float16)
        halved.refresh()
        weights = halved.differentiated(weights)
        tensors = [t.half() if isinstance(t, ms.Tensor) and t.dtype == ms.float32 else t for t in tensors]
    positions = tuple(i for i, value in enumerate(inputs) if _differentiable(value))

    def weighed(*arguments):
        outputs = cell(*arguments)
        if not isinstance(outputs, tuple):
            outputs = (outputs,)
        total = 0.0
        for number, output in enumerate(outputs):
            total = total + (output.astype(ms.float32) * _probe_tensor(output.shape, number)).sum()
        return total, outputs

    gradients_of = ms.value_and_grad(weighed, positions or None, weights if len(weights) else None, has_aux=True)
    with halved.in_place() if half else nullcontext():
        (_, outputs), gradients = by_program(program, gradients_of)(*tensors)
    of_inputs, of_weights = gradients if positions and len(weights) else (gradients, gradients)
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    return Computed(
        _outputs(outputs),
        {f"input {i}": _array(g) for i, g in zip(positions, of_inputs, strict=True)} if positions else {},
        {twin.torch_name: _array(g) for twin, g in zip(trained, of_weights, strict=True)} if trained else {},
        {name: value for name, value in values(cell).items() if name in buffers},
    )


def _train_torch(module: torch.nn.Module, inputs: Sequence[Any]) -> Computed:
    tensors = [_to_torch(value) for value in inputs]
    numbered = zip(tensors, inputs, strict=True)
    watched = {f"input {i}": t.requires_grad_() for i, (t, value) in enumerate(numbered) if _differentiable(value)}
    weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
    outputs = _given(module(*tensors))
    total = sum(
        (o * torch.from_numpy(_probe(tuple(o.shape), number)).to(o.dtype)).sum() for number, o in enumerate(outputs)
    )
    gradients = torch.autograd.grad(total, [*watched.values(), *weights.values()])
    arrays = dict(zip([*watched, *weights], map(_array, gradients), strict=True))
    return Computed(
        _outputs(outputs),
        {name: arrays[name] for name in watched},
        {name: arrays[name] for name in weights},
        {name: _array(value).copy() for name, value in module.named_buffers() if not name.endswith(COUNTER)},
    )


def _differentiable(value: Any) -> bool:
    """Images, tokens and features; not labels, keys, or a tuple, as noise is."""
    return isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64) and value.ndim > 1


def _probe(shape: tuple[int, ...], number: int) -> np.ndarray:
    """Weights for output `number`: entries of about 1, all different, so that no symmetry makes their sum 0."""
    return np.random.default_rng([number, *shape]).normal(size=shape).astype(np.float32)


_probe_tensor = ops.constexpr(lambda shape, number: ms.Tensor(_probe(tuple(shape), number)))  # within a graph too


def _given(value: Any) -> tuple[Any, ...]:
    """The outputs as a tuple; of PyTorch's named outputs those that are not None."""
    return tuple(v for v in value if v is not None) if isinstance(value, tuple) else (value,)


def _outputs(value: Any) -> dict[str, np.ndarray]:
    return {str(number): _array(v) for number, v in enumerate(_given(value))}


def _array(tensor: Any) -> np.ndarray:
    return tensor.asnumpy() if isinstance(tensor, ms.Tensor) else tensor.detach().numpy()


def _to_mindspore(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_to_mindspore, value))
    return ms.Tensor(value) if isinstance(value, np.ndarray | np.generic) else value


def _to_torch(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_to_torch, value))
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray | np.generic) else value

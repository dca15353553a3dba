"""Compare a MindSpore cell with its PyTorch twin: the same weights, the same inputs, all results. PyTorch computes
once, MindSpore once by each backend."""

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

from ms_vireid.backends.backend import Computation
from ms_vireid.backends.choosing import backend_named
from ms_vireid.backends.half import HalfWeights
from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.command.names import BACKENDS
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

# A bias before a BatchNorm, which subtracts it again: its exact gradient is 0. A sum of many terms, divided by a small
# standard deviation, leaves rounding of it.
CANCELLED = re.compile(r"(^|\.)W\.0\.bias$")

Pair = tuple[nn.Cell, torch.nn.Module]


CompareBackend = Callable[[str], list[Comparison]]  # compares one backend with a computed reference
FUNCTION_BACKENDS = ("eager", "graph")  # of functions that no kernel replaces
ALL_BUT_KERNELS = (*FUNCTION_BACKENDS, "cuda")


@dataclass(frozen=True)
class Case:
    """One claim of the ladder.

    rung: 1 to 7. subject: the layer, loss or model.
    prepare: computes PyTorch's side and returns a function that compares one backend of MindSpore with it. Installed
        kernels stay installed, so they are compared last.
    small: takes a second or two at most.
    backends: those of `BACKENDS` that differ here; empty if no backend takes part.
    device: the only device that computes it; "" for all.
    """

    rung: int
    subject: str
    prepare: Callable[[], CompareBackend]
    small: bool = True
    backends: tuple[str, ...] = BACKENDS
    device: str = ""

    def is_for(self, device: str) -> bool:
        return self.device in ("", device)

    def __str__(self) -> str:
        return f"{self.rung} {self.subject}"

    @property
    def training(self) -> str:
        """The recipe, if this is a training of one."""
        return "" if self.small or self.rung != 5 else self.subject.partition(", ")[0]


def once(rung: int, subject: str, function: Callable[..., list[Comparison]], *arguments: Any) -> Case:
    """Make a case in which no backend takes part."""
    return Case(rung, subject, lambda: lambda _backend: function(*arguments), backends=())


def all_of(*parts: CompareBackend) -> CompareBackend:
    """Run several comparisons in turn."""
    return lambda backend: [comparison for part in parts for comparison in part(backend)]


def from_saved_buffers(cell: nn.Cell, *parts: CompareBackend) -> CompareBackend:
    """Run several comparisons in turn; every backend starts with the running statistics and memories of now."""
    buffers = [
        (parameter, parameter.asnumpy().copy()) for parameter in cell.get_parameters() if not parameter.requires_grad
    ]

    def compare_backend(backend: str) -> list[Comparison]:
        for parameter, value in buffers:
            parameter.set_data(ms.Tensor(value))
        return all_of(*parts)(backend)

    return compare_backend


def computed_by(backend: str, function: Callable) -> Callable:
    """Return the function as a backend computes it; a cell is prepared first."""
    return prepared(backend, function if isinstance(function, nn.Cell) else nn.Cell()).compile(function)


def prepared(backend: str, *parts: nn.Cell | None) -> Computation:
    """Prepare a model, and its loss and optimiser. Raises RuntimeError if the backend leaves any of it as it is
    written: then it is not the kernels that are compared."""
    preparing = backend_named(backend)
    computation = preparing.accelerate(*parts)
    if preparing.notes:
        raise RuntimeError(f"{type(parts[0]).__name__} by {backend}: {'; '.join(preparing.notes)}")
    return computation


@dataclass
class Computed:
    """What one framework computed, as arrays by PyTorch's names."""

    outputs: dict[str, np.ndarray]
    input_gradients: dict[str, np.ndarray] = field(default_factory=dict)
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


def same_weights(cell: nn.Cell, module: torch.nn.Module, seed: int = 0, residual: float = 1.0) -> None:
    """Perturb the cell's weights, so that no scale is 1, no bias 0 and no variance 1, and copy them to the module.

    residual: factor of the last BatchNorm weight in each branch of a ResNet. At 1, as initialised, sixteen blocks
    amplify rounding ten-thousandfold; training makes the branches smaller than the shortcut.
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
    """Round all operands and results of PyTorch's products and convolutions, forward and backward, to float16."""

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function.overloadpacket.__name__ not in self.PRODUCTS:
            return function(*arguments, **options)
        return tree_map(self._rounded, function(*tree_map(self._rounded, arguments), **options))

    @staticmethod
    def _rounded(value: Any) -> Any:
        return value.half().float() if isinstance(value, torch.Tensor) else value


def evaluated(cell: nn.Cell, inputs: Sequence[Any], backend: str) -> dict[str, np.ndarray]:
    """Return the outputs in evaluation by a backend. inputs: positional arguments, arrays or plain values."""
    return _outputs(computed_by(backend, cell.set_train(False))(*map(_to_mindspore, inputs)))


def compare_evaluation(pair: Pair, inputs: Sequence[Any]) -> CompareBackend:
    """Compare outputs in evaluation mode."""
    cell, module = pair
    with torch.no_grad():
        expected = _outputs(module.eval()(*map(_to_torch, inputs)))

    def compare_backend(backend: str) -> list[Comparison]:
        return compare_all("output", evaluated(cell, inputs, backend), expected, FORWARD)

    return compare_backend


def compare_training(pair: Pair, inputs: Sequence[Any]) -> CompareBackend:
    """Compare outputs, gradients of inputs and of every weight by name, and buffers, in training mode."""
    cell, module = pair
    expected = _train_torch(module, inputs)

    def compare_backend(backend: str) -> list[Comparison]:
        actual = _train_mindspore(cell, inputs, backend, expected.buffers)
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

    return compare_backend


def _limit(name: str, gradients: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Return a gradient's tolerance and its scale, which is its largest entry. A bias shares its weight's scale: both
    sum the same terms."""
    if CANCELLED.search(name):
        tolerance, group = ROUNDING, [name.replace("W.0.bias", f"W.1.{kind}") for kind in ("weight", "bias")]
    else:
        tolerance, group = GRADIENT, [name, re.sub(r"\bbias$", "weight", name)]
    return tolerance, max(float(np.abs(gradients[member]).max()) for member in group if member in gradients)


def compare_with_float64(pair: Pair, inputs: Sequence[Any]) -> CompareBackend:
    """Compare what `compare_training` does, where float32 cannot meet its tolerances, by distances to PyTorch in
    float64: fifty layers with BatchNorm and ReLU amplify rounding. MindSpore's distance may be `MARGIN` times
    PyTorch's, or, where PyTorch happens to meet no activation that is 0 up to rounding, as large as a few of them make
    it (`KINKS`). Errors are multiples of PyTorch's, in the Euclidean norm. Finer ones show at small widths.
    """
    exact_inputs = [value.astype(np.float64) if _differentiable(value) else value for value in inputs]
    exact = _train_torch(copy.deepcopy(pair[1]).double(), exact_inputs)
    return _compare_distances(pair, inputs, exact, FORWARD, KINKS)


def compare_half(pair: Pair, inputs: Sequence[Any]) -> CompareBackend:
    """Compare what `compare_training` does in float16, as with `train.amp`, by distances to PyTorch in float32.
    PyTorch with `HalfProducts` shows how far the rounding (`HALF`) of a product's operands and result reaches;
    MindSpore, which also casts between products, may be `HALF_MARGIN` times as far."""
    exact = _train_torch(copy.deepcopy(pair[1]), inputs)
    return _compare_distances(pair, inputs, exact, HALF, HALF, half=True)


def _compare_distances(
    pair: Pair, inputs: Sequence[Any], exact: Computed, forward: float, backward: float, half: bool = False
) -> CompareBackend:
    cell, module = pair
    expected = _train_torch(module, inputs, half)

    def compare_backend(backend: str) -> list[Comparison]:
        actual = _train_mindspore(cell, inputs, backend, expected.buffers, half)
        return _distances(actual, expected, exact, forward, backward, HALF_MARGIN if half else MARGIN)

    return compare_backend


def _distances(
    actual: Computed, expected: Computed, exact: Computed, forward: float, backward: float, margin: float
) -> list[Comparison]:
    """Divide MindSpore's distances to the exact results by PyTorch's. The limit is `margin`, or a distance of `forward`
    (outputs and buffers) or `backward` (gradients), whichever is larger."""
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
        # A bias is judged with its weight, and no tensor by less than the median: it may be exact by chance.
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


def trace(pair: Pair, inputs: Sequence[Any], training: bool = False) -> CompareBackend:
    """Compare every layer's output in PyTorch's order: a difference starts at the first one over the tolerance. Layers
    are matched by name. Layers of one side only (an attention's fused softmax), or fused into a larger kernel, are
    skipped."""
    cell, module = pair
    cell.set_train(training)
    module.train(training)
    expected: dict[str, np.ndarray] = {}
    with _hooked(module.named_modules(), expected), torch.no_grad():
        module(*map(_to_torch, inputs))

    def compare_backend(backend: str) -> list[Comparison]:
        cell.set_train(training)
        layers = _layers_of_graph if backend_named(backend).compiled else _layers
        actual = layers(backend, cell, inputs)
        return [
            compare(f"output of {name}", actual[name], expected[name], FORWARD) for name in expected if name in actual
        ]

    return compare_backend


def _layers(backend: str, cell: nn.Cell, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return every layer's output by name, from forward hooks."""
    actual: dict[str, np.ndarray] = {}
    computing = computed_by(backend, cell)
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


def _layers_of_graph(backend: str, cell: nn.Cell, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return every layer's output by name from a compiled graph, which calls no hooks: each layer assigns its output to
    a parameter. Types and shapes come from the operators. Layers inside a cell that the backend computes as a whole are
    not called and are left out."""
    outputs = _layers("eager", cell, inputs)
    layers = {name: layer for name, layer in cell.cells_and_names() if name in outputs}
    computing = computed_by(backend, cell)  # which may replace a `construct`: before they are wrapped
    own = {name: vars(layer)["construct"] for name, layer in layers.items() if "construct" in vars(layer)}
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
        for name, layer in layers.items():
            del layer.kept_output
            del vars(layer)["plain_construct"], vars(layer)["construct"]  # which would count as an edit
            if name in own:
                layer.construct = own[name]


def _construct_and_keep(self, *inputs):
    output = self.plain_construct(*inputs)
    ops.assign(self.kept_output, output)
    return output


def _train_mindspore(
    cell: nn.Cell, inputs: Sequence[Any], backend: str, buffers: Collection[str], half: bool = False
) -> Computed:
    """Compute what `_train_torch` does by a backend. buffers: PyTorch's names of those to return; MindSpore stores them
    as parameters that are not trained, like frozen weights. half: as with `train.amp`."""
    prepared(backend, cell.set_train())
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
        (_, outputs), gradients = computed_by(backend, gradients_of)(*tensors)
    of_inputs, of_weights = gradients if positions and len(weights) else (gradients, gradients)
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    return Computed(
        _outputs(outputs),
        {f"input {i}": _array(g) for i, g in zip(positions, of_inputs, strict=True)} if positions else {},
        {twin.torch_name: _array(g) for twin, g in zip(trained, of_weights, strict=True)} if trained else {},
        {name: value for name, value in values(cell).items() if name in buffers},
    )


def _train_torch(module: torch.nn.Module, inputs: Sequence[Any], half: bool = False) -> Computed:
    """Compute the outputs in training, the gradients of a randomly weighted sum of them with respect to the float
    inputs and every trainable weight, and the buffers afterwards. half: products and convolutions in float16."""
    tensors = [_to_torch(value) for value in inputs]
    numbered = zip(tensors, inputs, strict=True)
    watched = {f"input {i}": t.requires_grad_() for i, (t, value) in enumerate(numbered) if _differentiable(value)}
    weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with HalfProducts() if half else nullcontext():
        outputs = _as_tuple(module.train()(*tensors))
        probes = (torch.from_numpy(_probe(tuple(o.shape), number)).to(o.dtype) for number, o in enumerate(outputs))
        total = sum((output * probe).sum() for output, probe in zip(outputs, probes, strict=True))
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
    """Weights for output `number`: standard normal, so that no symmetry cancels their sum."""
    return np.random.default_rng([number, *shape]).normal(size=shape).astype(np.float32)


_probe_tensor = ops.constexpr(lambda shape, number: ms.Tensor(_probe(tuple(shape), number)))  # within a graph too


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Return the outputs as a tuple, without None."""
    return tuple(v for v in value if v is not None) if isinstance(value, tuple) else (value,)


def _outputs(value: Any) -> dict[str, np.ndarray]:
    return {str(number): _array(v) for number, v in enumerate(_as_tuple(value))}


def _array(tensor: Any) -> np.ndarray:
    return tensor.asnumpy() if isinstance(tensor, ms.Tensor) else tensor.detach().numpy()


def _to_mindspore(value: Any) -> Any:
    if isinstance(value, tuple):
        return ms.mutable(tuple(map(_to_mindspore, value)))  # an input of a graph, as in training, no constant
    return ms.Tensor(value) if isinstance(value, np.ndarray | np.generic) else value


def _to_torch(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_to_torch, value))
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray | np.generic) else value

"""MindSpore's own layers in a model of one's own, with settings that this project's models never use: every backend
computes what MindSpore does, operator by operator."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from ms_vireid.backends.choosing import backend_named
from parity.compare import FORWARD, GRADIENT, HALF, HALF_MARGIN, compare

MAP = (2, 4, 7, 6)
SHARE = 6  # of the cases in a graph: on a CPU it has MindSpore's layers, and takes 0.2 s to compile each
SMALL = 0.2  # of a gradient that is 0 but for rounding, beside those of up to 10


@dataclass(frozen=True)
class Case:
    """A layer, the shape and the type of its input, and what is done to it once it is made."""

    layer: Callable[[], nn.Cell]
    shape: tuple[int, ...] = MAP
    dtype: ms.Type = ms.float32
    change: Callable[[nn.Cell], object] = lambda cell: None
    refused: bool = False


def setting(**values):
    """Set attributes, also of a part: "conv2d.stride"."""

    def change(cell):
        for name, value in values.items():
            *path, name = name.split(".")
            setattr(operator.attrgetter(".".join(path))(cell) if path else cell, name, value)

    return change


def frozen(*names):
    def change(cell):
        for name in names:
            getattr(cell, name).requires_grad = False

    return change


def in_float16(cell):
    for weight in cell.get_parameters():
        weight.set_dtype(ms.float16)


def computed_in_float16(cell):
    cell.to_float(ms.float16)


def layers_of(kind, *sizes, **usual):
    """Takes a layer's other arguments, and returns what makes it."""
    return lambda *arguments, **options: lambda: kind(*sizes, *arguments, **usual | options)


conv, transposed = layers_of(nn.Conv2d, 4, 6, has_bias=True), layers_of(nn.Conv2dTranspose, 4, 6)
pool, average, norm = layers_of(nn.MaxPool2d), layers_of(nn.AvgPool2d), layers_of(nn.BatchNorm2d, 4)
dense, layer_norm = layers_of(nn.Dense, 6, 5), layers_of(nn.LayerNorm)


def padded(kernel=3, stride=1, padding=1, **options):
    return conv(kernel, stride, "pad", padding, **options)


def another_stride(cell):
    cell.conv2d.add_prim_attr("stride", (1, 1, 2, 2))


def another_operator(cell):
    cell.conv2d = ops.Conv2D(6, 3, pad_mode="pad", pad=2, dilation=2)


class Doubled(nn.Cell):
    """Around an operator of MindSpore's."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def construct(self, x, *others):
        return self.part(2.0 * x, *others)


def doubled(name):
    return lambda cell: setattr(cell, name, Doubled(getattr(cell, name)))


def twice_as_wide(cell):
    cell.weight = ms.Parameter(Tensor(np.ones((10, 6), np.float32)), name="weight")


STEM = {"pad_mode": "pad", "padding": 1}  # with 3x3 windows and stride 2, what `numba` has a kernel for

CASES = {
    "GELU": Case(lambda: nn.GELU(approximate=False)),
    "GELU by tanh": Case(lambda: nn.GELU()),
    "GELU by tanh since": Case(lambda: nn.GELU(approximate=False), change=setting(approximate="tanh")),
    "GELU in float16": Case(lambda: nn.GELU(approximate=False), dtype=ms.float16),
    "GELU computed in float16": Case(lambda: nn.GELU(approximate=False), change=computed_in_float16),
    "GELU of a number": Case(lambda: nn.GELU(approximate=False), ()),
    "GELU of nothing known": Case(lambda: nn.GELU(), change=setting(approximate="erf"), refused=True),
    "LayerNorm": Case(layer_norm([6])),
    "LayerNorm, large epsilon": Case(layer_norm([6], epsilon=0.5)),
    "LayerNorm, epsilon set since": Case(layer_norm([6], epsilon=1e-5), change=setting(epsilon=0.5)),
    "LayerNorm, its operator's epsilon": Case(layer_norm([6]), change=setting(**{"layer_norm.epsilon": 0.5})),
    "LayerNorm, axis counted from the front": Case(layer_norm([6], 3, 3)),
    "LayerNorm over two axes": Case(layer_norm([7, 6], 2, 2)),
    "LayerNorm over two axes from behind": Case(layer_norm([7, 6], -2, -2), refused=True),
    "LayerNorm over all but one": Case(layer_norm([4, 7, 6], 1, 1)),
    "LayerNorm over two axes, weights of one": Case(layer_norm([6], 2, 3)),
    "LayerNorm of a row": Case(layer_norm([6]), (6,)),
    "LayerNorm in float16": Case(layer_norm([6], epsilon=1e-3), dtype=ms.float16),
    "LayerNorm computed in float16": Case(layer_norm([6], epsilon=1e-3), change=computed_in_float16),
    "LayerNorm, weights in float16": Case(layer_norm([6], dtype=ms.float16)),
    "LayerNorm, frozen": Case(layer_norm([6]), change=frozen("gamma", "beta")),
    "LayerNorm of another width": Case(layer_norm([5]), refused=True),
    "LayerNorm by another operator": Case(layer_norm([6]), change=doubled("layer_norm")),
    "Dense": Case(dense()),
    "Dense of a row": Case(dense(), (6,)),
    "Dense of rows": Case(dense(), (3, 6)),
    "Dense with ReLU": Case(dense(activation="relu")),
    "Dense with softmax over rows": Case(dense(activation=nn.Softmax(0))),
    "Dense with ReLU since": Case(dense(), change=setting(activation=nn.ReLU(), activation_flag=True)),
    "Dense without bias": Case(dense(has_bias=False)),
    "Dense without bias since": Case(dense(), change=setting(has_bias=False)),
    "Dense in float16": Case(dense(), dtype=ms.float16, change=in_float16),
    "Dense computed in float16": Case(dense(), change=computed_in_float16),
    "Dense, weights in float16": Case(dense(dtype=ms.float16), refused=True),
    "Dense, frozen": Case(dense(), change=frozen("weight")),
    "Dense, frozen bias": Case(dense(), change=frozen("bias")),
    "Dense of another width": Case(dense(), (3, 7), refused=True),
    "Dense, more outputs than biases": Case(dense(), change=twice_as_wide, refused=True),
    "Dense by another product": Case(dense(), change=doubled("matmul")),
    "Conv2d": Case(padded()),
    "Conv2d as MindSpore pads": Case(conv(3)),
    "Conv2d as MindSpore pads, stride 2": Case(conv(3, 2)),
    "Conv2d as MindSpore pads, even": Case(conv(2)),
    "Conv2d, not padded": Case(conv(3, 2, "valid")),
    "Conv2d, four borders": Case(padded(padding=(1, 1, 1, 1))),
    "Conv2d, other borders": Case(padded(padding=(1, 0, 2, 1))),
    "Conv2d, padded by more than its kernel": Case(padded(padding=4)),
    "Conv2d, dilated": Case(padded(dilation=2, padding=2)),
    "Conv2d, dilated one way": Case(padded(dilation=(1, 2), padding=2)),
    "Conv2d, grouped": Case(padded(group=2)),
    "Conv2d, depth-wise": Case(lambda: nn.Conv2d(4, 4, 3, pad_mode="pad", padding=1, group=4)),
    "Conv2d, oblong": Case(padded((3, 1))),
    "Conv2d, oblong stride": Case(padded(stride=(2, 1))),
    "Conv2d, even": Case(padded(2)),
    "Conv2d, 1x1 with a border": Case(padded(1)),
    "Conv2d, 1x1, stride 2": Case(padded(1, 2, 0)),
    "Conv2d, stride set since": Case(padded(), change=setting(stride=(2, 2))),
    "Conv2d, padding set since": Case(padded(), change=setting(padding=0)),
    "Conv2d, padding mode set since": Case(padded(), change=setting(pad_mode="valid")),
    "Conv2d, kernel size set since": Case(padded(), change=setting(kernel_size=(5, 5))),
    "Conv2d, dilation and group set since": Case(padded(), change=setting(dilation=(2, 2), group=2)),
    "Conv2d, its operator's stride": Case(padded(), change=another_stride),
    "Conv2d, another operator": Case(padded(), change=another_operator),
    "Conv2d by another cell": Case(padded(), change=doubled("conv2d")),
    "Conv2d without bias since": Case(padded(), change=setting(has_bias=False)),
    "Conv2d, frozen": Case(padded(), change=frozen("weight")),
    "Conv2d of another number of channels": Case(padded(), (2, 3, 7, 6), refused=True),
    "Conv2d of rows": Case(padded(), (4, 7, 6), refused=True),
    "Conv2d of a map below its kernel": Case(conv(3, 1, "valid"), (2, 4, 2, 6), refused=True),
    "Conv2d computed in float16": Case(padded(), change=computed_in_float16),
    "Conv2d in half precision alone": Case(padded(), dtype=ms.float16, refused=True),
    "BatchNorm2d": Case(norm()),
    "BatchNorm2d, epsilon and momentum": Case(norm(eps=0.3, momentum=0.4)),
    "BatchNorm2d, epsilon and momentum set since": Case(norm(), change=setting(eps=0.3, momentum=0.4)),
    "BatchNorm2d, its operators' epsilon and momentum": Case(
        norm(), change=setting(**{"bn_train.epsilon": 0.3, "bn_infer.epsilon": 0.2, "bn_train.momentum": 0.4})
    ),
    "BatchNorm2d, momentum 0": Case(norm(momentum=0.0)),
    "BatchNorm2d, momentum 1": Case(norm(momentum=1.0)),
    "BatchNorm2d by the batch": Case(norm(use_batch_statistics=True)),
    "BatchNorm2d by the batch since": Case(norm(), change=setting(use_batch_statistics=True)),
    "BatchNorm2d by what it has": Case(norm(use_batch_statistics=False)),
    "BatchNorm2d, frozen": Case(norm(affine=False)),
    "BatchNorm2d, frozen since": Case(norm(), change=frozen("gamma", "beta")),
    "BatchNorm2d, in evaluation alone": Case(norm(), change=lambda cell: cell.set_train(False)),
    "BatchNorm2d, training alone": Case(norm(), change=lambda cell: cell.set_train(True)),
    "BatchNorm2d, weights in float16": Case(norm(dtype=ms.float16)),
    "BatchNorm2d in float16": Case(norm(), dtype=ms.float16),
    "BatchNorm2d computed in float16": Case(norm(), change=computed_in_float16),
    "BatchNorm2d of two pictures of a pixel": Case(norm(), (2, 4, 1, 1)),
    "BatchNorm2d by another operator": Case(norm(), change=doubled("bn_train")),
    "BatchNorm2d of rows": Case(norm(), (2, 4), refused=True),
    "BatchNorm2d of another number of channels": Case(norm(), (2, 3, 7, 6), refused=True),
    "BatchNorm1d": Case(lambda: nn.BatchNorm1d(4), (5, 4)),
    "BatchNorm1d by the batch": Case(lambda: nn.BatchNorm1d(4, use_batch_statistics=True), (5, 4)),
    "BatchNorm1d of maps": Case(lambda: nn.BatchNorm1d(4), refused=True),
    "MaxPool2d": Case(pool(3, 2, **STEM)),
    "MaxPool2d, sides": Case(pool((3, 3), (2, 2), **STEM)),
    "MaxPool2d, odd sides": Case(pool(3, 2, **STEM), (2, 4, 7, 1)),
    "MaxPool2d, last windows cut": Case(pool(3, 2, ceil_mode=True, **STEM), (2, 4, 8, 6)),
    "MaxPool2d, dilated": Case(pool(3, 2, dilation=2, **STEM)),
    "MaxPool2d, with places": Case(pool(3, 2, return_indices=True, **STEM)),
    "MaxPool2d, with places since": Case(pool(3, 2, **STEM), change=setting(return_indices=True)),
    "MaxPool2d, one border": Case(pool(3, 2, pad_mode="pad", padding=(1, 0))),
    "MaxPool2d, oblong": Case(pool((3, 2), (2, 1), **STEM)),
    "MaxPool2d, not padded": Case(pool(3, 2)),
    "MaxPool2d as MindSpore pads": Case(pool(3, 2, pad_mode="same")),
    "MaxPool2d, stride set since": Case(pool(3, 2, **STEM), change=setting(stride=1)),
    "MaxPool2d, made like the kernel's since": Case(pool(3, 1, **STEM), change=setting(stride=2, padding=(0, 1, 1))),
    "MaxPool2d computed in float16": Case(pool(3, 2, **STEM), change=computed_in_float16),
    "MaxPool2d of a picture": Case(pool(3, 2, **STEM), (4, 7, 6)),
    "MaxPool2d in float16": Case(pool(3, 2, **STEM), dtype=ms.float16),
    "MaxPool2d in float64": Case(pool(3, 2, **STEM), dtype=ms.float64),
    "MaxPool2d of rows": Case(pool(3, 2, **STEM), (7, 6), refused=True),
    "AvgPool2d": Case(average(2, 2)),
    "AvgPool2d, overlapping": Case(average(3, 1)),
    "AvgPool2d, oblong": Case(average((3, 2), (2, 1))),
    "AvgPool2d as MindSpore pads": Case(average(3, 2, "same")),
    "AvgPool2d, padded": Case(average(3, 2, "pad", 1)),
    "AvgPool2d, padding not counted": Case(average(3, 2, "pad", 1, count_include_pad=False)),
    "AvgPool2d, another divisor": Case(average(3, 2, divisor_override=5)),
    "AvgPool2d, last windows cut": Case(average(2, 2, ceil_mode=True), (2, 4, 6, 8)),
    "AvgPool2d, stride set since": Case(average(2, 2), change=setting(stride=1)),
    "AvgPool2d of a picture": Case(average(2, 2), (4, 7, 6)),
    "Conv2dTranspose": Case(transposed(2, 2, "valid")),
    "Conv2dTranspose with bias": Case(transposed(2, 2, "valid", has_bias=True)),
    "Conv2dTranspose, overlapping": Case(transposed(3, 2, "valid")),
    "Conv2dTranspose, apart": Case(transposed(2, 3, "valid")),
    "Conv2dTranspose as MindSpore pads": Case(transposed(3, 2)),
    "Conv2dTranspose, padded": Case(transposed(3, 2, "pad", 1)),
    "Conv2dTranspose, more pixels": Case(transposed(3, 2, "pad", 1, 1)),
    "Conv2dTranspose, grouped": Case(transposed(2, 2, "valid", group=2)),
    "Conv2dTranspose, oblong": Case(transposed((2, 3), (2, 3), "valid")),
}


class Layers(nn.Cell):
    """Layers side by side, each with an input of its own."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.CellList(layers)

    def construct(self, *inputs):
        """Outputs of all layers, and a scalar whose gradient differs from element to element."""
        outputs, total = (), 0.0
        for i in range(len(inputs)):
            output = self.layers[i](inputs[i])
            outputs += (output,)
            rows = (output[0] if isinstance(output, tuple) else output).astype(ms.float32)
            total = total + (rows * rows * rows).sum()
        return total, outputs


def made(cases, training, prepare):
    """Layers with weights that are drawn, their inputs, and the backend's computation of them."""
    layers, inputs = [], []
    for case in cases:
        draw = np.random.default_rng(0)
        cell = case.layer()
        for weight in cell.get_parameters():
            drawn = draw.normal(size=weight.shape)
            drawn = np.exp(drawn) if weight.name == "variance" else drawn
            weight.set_data(Tensor(drawn.astype(np.float32), weight.dtype))
        layers.append(cell.set_train(training))
        inputs.append(Tensor(draw.normal(size=case.shape).astype(np.float32), case.dtype))
    cell = Layers(layers).set_train(training)
    for case, layer in zip(cases, layers, strict=True):
        case.change(layer)
    return cell, inputs, prepare(cell)


def results(cases, training, prepare=lambda cell: None, gradients=True):
    """Of each case the outputs, gradients and running averages, by name: their types and values in float64."""
    cell, inputs, computation = made(cases, training, prepare)
    weights = cell.trainable_params() if gradients else []
    compute = ms.value_and_grad(cell, tuple(range(len(inputs))), weights or None, has_aux=True) if gradients else cell
    outcome = (computation.compile(compute) if computation else compute)(*inputs)
    (_, outputs), of = outcome if gradients else (outcome, (None,) * len(inputs))
    of_inputs, of_weights = of if weights else (of, ())
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    of_weights = {weight.name: gradient for weight, gradient in zip(weights, of_weights, strict=True)}
    of_cases = []
    for layer, output, of_input in zip(cell.layers, outputs, of_inputs, strict=True):
        output = output if isinstance(output, tuple) else (output,)
        values = {f"output {i}": value for i, value in enumerate(output)}
        values |= {"gradient of the input": of_input} if gradients else {}
        for weight in layer.get_parameters():
            kind = weight.name.rpartition(".")[2]
            values |= {f"gradient of {kind}": of_weights[weight.name]} if weight.name in of_weights else {kind: weight}
        of_cases.append({n: (value.dtype, value.asnumpy().astype(np.float64)) for n, value in values.items()})
    return of_cases


def refusal(case, training, prepare=lambda cell: None):
    """The type of the error by which a layer refuses a case; a gradient that is cut short would confuse the next."""
    cell, inputs, computation = made([case], training, prepare)
    try:
        _, (output,) = (computation.compile(cell) if computation else cell)(*inputs)
        output.asnumpy()
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        return type(error)
    return None


def faults(found, expected):
    """What differs from MindSpore's, in words."""
    assert found.keys() == expected.keys()
    rounded = HALF_MARGIN * HALF if any(dtype == ms.float16 for dtype, _ in expected.values()) else 0.0
    differences = []
    for name, (dtype, value) in expected.items():
        if found[name][0] != dtype:
            differences.append(f"{name}: {found[name][0]}, expected {dtype}")
        limit = max(2 * rounded, GRADIENT) if name.startswith("gradient") else max(rounded, FORWARD)
        comparison = compare(name, found[name][1], value, limit, max(float(np.abs(value).max()), SMALL))
        differences += [] if comparison.passed else [str(comparison)]
    return differences


TRAINING = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
TAKEN = {name: case for name, case in CASES.items() if not case.refused}
REFUSED = {name: case for name, case in CASES.items() if case.refused}


@TRAINING
@pytest.mark.parametrize("name", TAKEN)
def test_numba_computes_what_mindspore_computes(name, training):
    (expected,), (found,) = (results([TAKEN[name]], training, *by) for by in ((), (backend_named("numba").accelerate,)))
    assert faults(found, expected) == []


@pytest.mark.parametrize("name", REFUSED)
def test_numba_refuses_what_mindspore_refuses(name):
    expected = refusal(REFUSED[name], True)
    assert expected is not None
    assert refusal(REFUSED[name], True, backend_named("numba").accelerate) is expected


@TRAINING
def test_a_graph_computes_what_mindspore_computes(training):
    share = list(TAKEN)[2 * training :: SHARE]
    cases = [TAKEN[name] for name in share]
    expected, found = (results(cases, training, *by) for by in ((), (backend_named("graph").accelerate,)))
    differences = {name: faults(*both) for name, *both in zip(share, found, expected, strict=True)}
    assert {name: lines for name, lines in differences.items() if lines} == {}


def test_a_graph_on_a_cpu_has_mindspores_layers():
    from ms_vireid.backends.graph import TABLES

    assert not {type(case.layer()).construct for case in CASES.values()} & set(TABLES["CPU"])

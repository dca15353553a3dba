"""MindSpore's own layers, and `ops.cat`, by the backend `graph` on the stand-ins, against MindSpore's operators one by
one on a CPU."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops, value_and_grad

from ms_vireid.backends.choosing import backend_named
from ms_vireid.models import auxiliary_generator, vit
from ms_vireid.models.layers import Dropout
from parity.stand_in import functions
from tests.backends.test_mindspores_layers import REFUSED, TAKEN, faults, refusal, results

# Left to MindSpore's operators, which the stand-in has not, or which round more or are refused there.
ELSEWHERE = (
    *("GELU by tanh", "GELU by tanh since", "LayerNorm over two axes, weights of one"),
    *("BatchNorm2d, weights in float16",),
    *("MaxPool2d, last windows cut", "MaxPool2d, not padded", "MaxPool2d as MindSpore pads"),
    *("AvgPool2d as MindSpore pads", "AvgPool2d, padded", "AvgPool2d, padding not counted"),
    *("AvgPool2d, another divisor", "AvgPool2d, last windows cut", "Conv2dTranspose, more pixels"),
)
# The stand-in has no gradient of these.
BY_AVERAGES = "BatchNorm2d by what it has", "BatchNorm2d, in evaluation alone"
# `to_float`: such a layer runs as it is written.
CAST = [name for name in TAKEN if "computed in float16" in name]
BY_VALUES = [name for name in TAKEN if name not in (*ELSEWHERE, *BY_AVERAGES, *CAST)]
NORMS = [name for name in TAKEN if name.startswith("BatchNorm") and name not in (*ELSEWHERE, *CAST)]


def save_layers(file: str, names: list[str], training: bool) -> None:
    """Compute cases in one graph; outside of training without gradients."""
    cases = [TAKEN[name] for name in names]
    of_cases = results(cases, training, backend_named("graph").accelerate, gradients=training)
    np.savez(file, **{f"{i} {name}": x for i, case in enumerate(of_cases) for name, (_, x) in case.items()})


def launched_by_name(names: list[str]) -> list[str]:
    """What cases launch that CANN compiles first, but sums of gradients."""
    before = functions()
    results([TAKEN[name] for name in names], True, backend_named("graph").accelerate)
    return sorted(name for name in functions() - before if name.startswith("by name: ") and "AddN" not in name)


def layer_refusals(names: list[str]) -> list[str]:
    """The cases that nothing refuses."""
    return [name for name in names if refusal(REFUSED[name], True, backend_named("graph").accelerate) is None]


@pytest.mark.parametrize(("names", "training"), [(BY_VALUES, True), (NORMS, False)], ids=["training", "evaluation"])
def test_a_graph_of_an_ascend_computes_what_mindspore_computes(ascend_worker, tmp_path, names, training):
    file = tmp_path / "layers.npz"
    ascend_worker.do("save_layers", str(file), names, training)
    saved = np.load(file)
    expected = results([TAKEN[name] for name in names], training, gradients=training)
    differences = {}
    for i, (name, of_case) in enumerate(zip(names, expected, strict=True)):
        differences[name] = faults({key: (dtype, saved[f"{i} {key}"]) for key, (dtype, _) in of_case.items()}, of_case)
    assert {name: lines for name, lines in differences.items() if lines} == {}


def test_settings_of_this_projects_models_launch_nothing_by_name(ascend_worker):
    layers = "GELU", "LayerNorm", "Dense", "Conv2d", "BatchNorm2d", "BatchNorm1d", "MaxPool2d", "AvgPool2d"
    assert ascend_worker.do("launched_by_name", [*layers, "Conv2dTranspose"]) == []


def test_a_graph_of_an_ascend_refuses_what_mindspore_refuses(ascend_worker):
    assert ascend_worker.do("layer_refusals", list(REFUSED)) == []


class Joins(nn.Cell):
    """Tensors joined in all ways; MindSpore's compiler reads each call."""

    def construct(self, a, b, c, other, half, whole, empty):
        of_a = (
            ops.cat((a, b)),
            ops.cat((a, b, c), 1),
            ops.cat((a, b), -1),
            ops.cat((a, b), axis=-2),
            ops.cat([a, b], 1),
        )
        of_a += (ops.cat((a,), 2), ops.cat((a, b, c, b, a), 1), ops.cat((a, other), 1), ops.cat((a, a), 2))
        of_a += (ops.cat((empty, b), 1), ops.cat((a[0, 0], b[0, 0])), ops.cat((half, half), -1).astype(a.dtype))
        others = ops.cat((whole, whole), -1), ops.cat((whole > 0, whole > 1)), ops.cat((empty, empty), 1)
        total = 0.0
        for joined in of_a:
            total = total + (joined * joined * joined).sum()
        return total, of_a, others


def joined(prepare=lambda cell: None):
    """What `Joins` makes, and its gradients, as arrays."""
    draw = np.random.default_rng(0)
    floats = [Tensor(draw.normal(size=(2, columns, 4)).astype(np.float32)) for columns in (3, 3, 3, 2)]
    whole, empty = Tensor(np.arange(6, dtype=np.int32).reshape(2, 3)), Tensor(np.empty((2, 0, 4), np.float32))
    inputs = *floats, floats[0].half(), whole, empty
    cell = Joins()
    computation, compute = prepare(cell), value_and_grad(cell, (0, 1, 2, 3, 4), has_aux=True)
    (total, of_a, others), gradients = (computation.compile(compute) if computation else compute)(*inputs)
    return [x.asnumpy() for x in (total, *of_a, *others, *gradients)]


def save_joined(file: str) -> list[str]:
    """Returns MindSpore's kernels that join."""
    before = functions()
    np.savez(file, *joined(backend_named("graph").accelerate))
    return sorted(name for name in functions() - before if name.startswith("ConcatKernel"))


def test_a_graph_of_a_gpu_joins_what_mindspore_joins(worker, tmp_path):
    file = tmp_path / "joined.npz"
    # Floats in a list, of several shapes, without elements, or too many. The pair in half precision is selected.
    assert worker.do("save_joined", str(file)) == [f"ConcatKernel<{of}>" for of in ("bool", "float", "int")]
    saved = np.load(file)
    for name, expected in zip(saved.files, joined(), strict=True):
        assert saved[name].dtype == expected.dtype
        assert saved[name].shape == expected.shape
        assert saved[name] == pytest.approx(expected, rel=1e-5, abs=1e-5)


class Scaled(nn.Cell):
    """Layer scales behind convolutions of several kinds, not only of pixels."""

    KINDS = ({}, {"has_bias": True}, {"stride": 2}, {"pad_mode": "pad", "padding": 1}, {"group": 2}, {"kernel_size": 3})

    def __init__(self):
        super().__init__()
        usual = {"kernel_size": 1, "pad_mode": "valid"}
        self.layers = nn.CellList([nn.Conv2d(4, 6, **usual | kind) for kind in self.KINDS])
        self.scale = Parameter(np.arange(1, 7, dtype=np.float32).reshape(1, 6, 1, 1))
        for i, weight in enumerate(self.layers.get_parameters()):
            weight.set_data(Tensor(np.random.default_rng(i).normal(size=weight.shape).astype(np.float32)))

    def construct(self, x):
        outputs = ()
        for layer in self.layers:
            outputs += (auxiliary_generator.scaled(self.scale, layer, x),)
        return outputs


def scaled(prepare=lambda cell: None):
    cell, x = Scaled(), Tensor(np.random.default_rng(9).normal(size=(2, 4, 5, 5)).astype(np.float32))
    computation = prepare(cell)
    return [y.asnumpy() for y in (computation.compile(cell) if computation else cell)(x)]


def save_scaled(file: str) -> None:
    np.savez(file, *scaled(backend_named("graph").accelerate))


def test_a_graph_of_a_gpu_scales_any_convolution(worker, tmp_path):
    file = tmp_path / "scaled.npz"
    worker.do("save_scaled", str(file))
    saved = np.load(file)
    for name, expected in zip(saved.files, scaled(), strict=True):
        assert saved[name] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("blocks.1.mlp.drop1", lambda: Dropout(0.3, 1, parts=4)),
        ("blocks.0.attn.proj_drop.number", lambda: 5),
        ("blocks.0.extra", lambda: Dropout(0.1, 40)),
        ("blocks.0.mlp", lambda: type("Mlp", (vit.Mlp,), {})(8, 4, 0.1, 0)),
    ],
)
def test_masks_are_drawn_together_only_if_all_are_known(path, value):
    from ms_vireid.backends.graph import ascend
    from tests.backends.test_kernels import changed

    model = vit.VisionTransformer((8, 8), 4, 4, 8, 2, 2, dropout=0.1, drop_path=0.1)
    assert ascend.knows_noise(model)
    assert not ascend.knows_noise(changed(model, path, value()))

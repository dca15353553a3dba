"""The auxiliary generator: its equations against slow loops, both frameworks against each other, what it refuses."""

from functools import partial

import mindspore as ms
import numpy as np
import pytest
import torch

from ms_vireid.models import auxiliary_generator as mindspore_generator
from ms_vireid.models.auxiliary_generator import AuxiliaryGenerator, CrossModalityLearner, IntraModalityLearner
from parity.harness import all_of, compare_evaluation, compare_training, same_weights
from parity.mapping import COUNTER, twins
from torch_ref.models import auxiliary_generator as torch_generator

from . import generator_loops

CHANNELS, RATIOS, SIZE = 4, (2, 3), (12, 6)
FULL = {"channels": 256, "ratios": (2, 4, 6, 12)}


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def shaken(cell, seed=0):
    """The cell in training mode with weights of its size but none special, and these in float64 by PyTorch's names."""
    rng = np.random.default_rng(seed)
    weights = {}
    for twin in twins(cell):
        value = twin.parameter.asnumpy()
        if twin.parameter.requires_grad:
            value = (value + (0.3 * value.std() or 0.2) * rng.normal(size=value.shape)).astype(np.float32)
            twin.parameter.set_data(ms.Tensor(value))
        weights[twin.torch_name] = value.astype(np.float64)
    cell.set_train()
    return weights


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"error {error:.1e}"


@pytest.mark.parametrize("kernel_order", [(5, 7), (7, 5)])
@pytest.mark.parametrize("layer_scale", ["channel", "scalar"])
def test_the_intra_modality_learner_is_equations_1_to_5(kernel_order, layer_scale):
    cell = IntraModalityLearner(CHANNELS, 4, kernel_order, layer_scale)
    weights = shaken(cell)
    x = values(3, CHANNELS, *SIZE)
    assert_close(cell(ms.Tensor(x)).asnumpy(), generator_loops.intra(x.astype(np.float64), weights))
    assert cell.first.weight.shape[2:] == (kernel_order[0],) * 2
    assert cell.expand.weight.shape[:2] == (4 * CHANNELS, CHANNELS)
    assert cell.scale.shape == (1, CHANNELS if layer_scale == "channel" else 1, 1, 1)


def test_the_cross_modality_learner_is_equations_6_to_9():
    cell = CrossModalityLearner(CHANNELS, RATIOS)
    weights = shaken(cell)
    visible, infrared = values(2, 3, CHANNELS, *SIZE)
    result = cell(ms.Tensor(visible), ms.Tensor(infrared)).asnumpy()
    expected = generator_loops.cross(visible.astype(np.float64), infrared.astype(np.float64), RATIOS, weights)
    assert_close(result, expected)


def test_the_generators_value_and_gradients_are_those_of_the_loops():
    cell = AuxiliaryGenerator(2, 4, (5, 7), RATIOS)
    weights = shaken(cell)
    visible, infrared = values(2, 2, 2, 6, 6)
    probe = values(2, 2, 6, 6, seed=1)
    parameters = {t.torch_name: t for t in twins(cell) if t.parameter.requires_grad}
    trained = ms.ParameterTuple([t.parameter for t in parameters.values()])
    forward = lambda v, r: (cell(v, r) * ms.Tensor(probe)).sum()  # noqa: E731
    of_inputs, of_weights = ms.grad(forward, (0, 1), trained)(ms.Tensor(visible), ms.Tensor(infrared))
    gradients = {"visible": of_inputs[0], "infrared": of_inputs[1]} | dict(zip(parameters, of_weights, strict=True))

    point = weights | {"visible": visible.astype(np.float64), "infrared": infrared.astype(np.float64)}

    def loop(at):
        return (probe * generator_loops.generator(at["visible"], at["infrared"], RATIOS, at)).sum()

    assert_close(forward(ms.Tensor(visible), ms.Tensor(infrared)).asnumpy(), loop(point))
    for name, gradient in gradients.items():
        # Along the gradient and along a random direction, which sees entries that the gradient leaves out.
        gradient = gradient.asnumpy().astype(np.float64)
        norm = np.linalg.norm(gradient)
        assert norm > 0, name
        for direction in (gradient, np.random.default_rng(2).normal(size=gradient.shape)):
            step = 1e-6 * direction / np.linalg.norm(direction)
            slope = (loop(point | {name: point[name] + step}) - loop(point | {name: point[name] - step})) / 2e-6
            error = abs((gradient * step).sum() / 1e-6 - slope) / norm
            assert error < 1e-4, f"gradient of {name}: error {error:.1e}"


# Without a scalar I_scale, whose gradient is 0 but for BatchNorm's eps (see `IntraModalityLearner`).
@pytest.mark.parametrize("options", [{}, {"kernel_order": (7, 5)}, {"expansion": 2}])
def test_both_frameworks_agree(options):
    settings = {"channels": 8, "ratios": RATIOS} | options
    pair = AuxiliaryGenerator(**settings), torch_generator.AuxiliaryGenerator(**settings)
    same_weights(*pair)
    inputs = values(3, 8, *SIZE), values(3, 8, *SIZE, seed=1)
    by = all_of(compare_training(pair, inputs), compare_evaluation(pair, inputs))
    for comparison in by("operators"):
        assert comparison.passed, comparison


def test_jit_agrees_with_pynative():
    cell = AuxiliaryGenerator(4, ratios=RATIOS)
    shaken(cell)
    inputs = ms.Tensor(values(2, 4, *SIZE)), ms.Tensor(values(2, 4, *SIZE, seed=1))

    def forward(visible, infrared):
        return cell(visible, infrared)

    np.testing.assert_allclose(ms.jit(forward)(*inputs).asnumpy(), cell(*inputs).asnumpy(), rtol=0, atol=1e-5)


def test_shapes_at_full_size():
    cell = CrossModalityLearner(**FULL).set_train(False)
    maps = ms.ops.zeros((1, 256, 72, 36))
    assert cell(maps, maps).shape == (1, 256, 72, 36)


def test_both_frameworks_have_the_same_parameters_by_part_at_full_size():
    cell, module = AuxiliaryGenerator(**FULL), torch_generator.AuxiliaryGenerator(**FULL)
    pairs = twins(cell)
    theirs = {n: tuple(v.shape) for n, v in module.state_dict().items() if not n.endswith(COUNTER)}
    assert {t.torch_name: t.torch_shape for t in pairs} == theirs
    counts = {}
    for twin in pairs:
        if twin.parameter.requires_grad:
            part = twin.torch_name.partition(".")[0]
            counts[part] = counts.get(part, 0) + twin.parameter.size
    print(counts)
    # IML: 128 * (25 + 49) + 2 * 256 + 256 * 1024 + 1024 * 9 + 2 * 1024 + 1024 * 256 + 256.
    assert counts["visible_learner"] == counts["infrared_learner"] == 545_792
    # CML: 256 * 256 * (4 + 16 + 36 + 144) + 2 * 2048 + 2048 * 256 + 256.
    assert counts["cross_learner"] == 13_635_840


@pytest.mark.parametrize("package", [mindspore_generator, torch_generator], ids=["MindSpore", "PyTorch"])
@pytest.mark.parametrize(
    ("size", "fitting"), [((32, 16), "24x12 or 36x24"), ((72, 35), "72x24 or 72x36"), ((6, 12), "12x12, and")]
)
def test_sizes_that_the_ratios_do_not_divide_are_refused(package, size, fitting):
    learner = package.CrossModalityLearner(2, (2, 4, 6, 12))
    maps = ms.ops.zeros((1, 2, *size)) if package is mindspore_generator else torch.zeros(1, 2, *size)
    message = f"feature maps of {size[0]}x{size[1]} are not divided .* multiples of 12, as {fitting}.* of 48"
    with pytest.raises(ValueError, match=message):
        learner(maps, maps)


@pytest.mark.parametrize("package", [mindspore_generator, torch_generator], ids=["MindSpore", "PyTorch"])
def test_wrong_arguments_raise(package):
    for build, message in (
        (partial(package.IntraModalityLearner, 5), "channels must be even, .* not 5"),
        (partial(package.IntraModalityLearner, 4, 4, (5, 6)), r"two odd sizes, not \(5, 6\)"),
        (partial(package.AuxiliaryGenerator, 4, layer_scale="pixel"), "must be channel or scalar, not 'pixel'"),
    ):
        with pytest.raises(ValueError, match=message):
            build()

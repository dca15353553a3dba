"""A ResNet's blocks in evaluation by the CPU kernels, where no gradient is wanted, against MindSpore's operators."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from ms_vireid.backends.choosing import backend_named
from ms_vireid.backends.numba import inference
from ms_vireid.models import create_model
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.resnet import Bottleneck, ResNet

CASES = {
    "block": (lambda: Bottleneck(16, 4, 1), (16, 5, 3)),
    "block, projected": (lambda: Bottleneck(8, 4, 2), (8, 5, 3)),
    "block of 64 channels": (lambda: Bottleneck(64, 64, 1), (64, 5, 4)),  # Winograd's tiles, some half outside
    "non-local block": (lambda: NonLocal(8, 3), (8, 5, 3)),
    "non-local block, width 1": (lambda: NonLocal(8, 1), (8, 5, 3)),
    "stem": (lambda: ResNet(width=4, stages=()), (3, 30, 18)),
    "stem and a stage": (lambda: ResNet((2, 1, 1, 1), width=4, stages=(1,)), (3, 30, 18)),
    "stages": (lambda: ResNet((1, 2, 1, 1), width=4, stem=False, stages=(2, 3, 4)), (16, 9, 5)),
    "nothing": (lambda: ResNet(stem=False, stages=()), (3, 4, 2)),
}
MODELS = {"agw": {"layers": (1, 2, 2, 1), "non_local": (0, 1, 1, 0)}, "mun": {"layers": (1, 1, 2, 1), "ratios": (2, 3)}}


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def weighted(cell):
    """The cell in evaluation with weights that are none of its initial ones."""
    for i, weight in enumerate(cell.get_parameters()):
        noise = values(*weight.shape, seed=i)
        positive = weight.name.endswith("moving_variance")
        weight.set_data(Tensor(0.5 + np.abs(noise) if positive else 0.3 * noise))
    return cell.set_train(False)


def model(name):
    return create_model(f"{name}_resnet50", 5, (48, 24), width=4, **MODELS[name])


@pytest.fixture
def inferred(monkeypatch):
    """The numbers of parts that are computed without gradients."""
    calls, infer = [], inference.infer

    def counted(parts, x):
        calls.append(len(parts))
        return infer(parts, x)

    monkeypatch.setattr(inference, "infer", counted)
    return calls


def assert_alike(one, other):
    assert one.shape == other.shape
    assert one.asnumpy() == pytest.approx(other.asnumpy(), abs=2e-5 * max(np.abs(other.asnumpy()).max(), 0.01))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_the_operators(case, count, inferred):
    make, shape = CASES[case]
    x = Tensor(values(count, *shape))
    expected = weighted(make())(x)
    cell = weighted(make())
    backend_named("numba").accelerate(cell)
    given = x.asnumpy().copy()
    for _ in range(2):  # memory is used again
        assert_alike(cell(x), expected)
    assert len(inferred) == 2
    assert np.array_equal(x.asnumpy(), given)


@pytest.mark.parametrize(("name", "calls"), [("agw", [1, 8]), ("mun", [2, 4])])
def test_features_are_those_of_the_operators(name, calls, inferred):
    x = Tensor(values(3, 3, 48, 24))
    expected = weighted(model(name))(x, "infrared")
    other = weighted(model(name))
    backend_named("numba").accelerate(other)
    assert_alike(other(x, "infrared"), expected)
    assert inferred == calls


def test_weights_are_read_when_they_are_used():
    """Nothing of them is kept: a training goes on between two evaluations."""
    x, cell = Tensor(values(2, 16, 5, 3)), weighted(Bottleneck(16, 4, 1))
    backend_named("numba").accelerate(cell)
    before = cell(x).asnumpy().copy()
    held = [weight.asnumpy().copy() for weight in cell.get_parameters()]
    for weight in cell.get_parameters():
        weight.set_data(weight * 1.1)
    other = weighted(Bottleneck(16, 4, 1))
    for weight in other.get_parameters():
        weight.set_data(weight * 1.1)
    assert_alike(cell(x), other(x))
    for weight, value in zip(cell.get_parameters(), held, strict=True):
        weight.set_data(Tensor(value))
    assert np.array_equal(cell(x).asnumpy(), before)


def hooked(cell):
    cell.conv2.register_forward_hook(lambda cell, inputs, output: 2 * output)


def gradient(cell, x):
    value, _ = ms.value_and_grad(cell)(x)
    return value


def called(cell, x):
    return cell(x)


def dilated():
    layer = nn.Conv2d(4, 4, 3, pad_mode="pad", padding=2, dilation=2)
    layer.weight.set_data(Tensor(values(4, 4, 3, 3)))
    return layer


CHANGES = {
    "the batch's statistics": (lambda cell: cell.bn2.set_train(), called),
    "a BatchNorm that always takes the batch's": (lambda cell: setattr(cell.bn1, "use_batch_statistics", True), called),
    "a training": (lambda cell: cell.set_train(), called),
    "a gradient": (lambda cell: None, gradient),
    "a hook": (hooked, called),
    "a part of another type": (lambda cell: cell.conv3.to_float(ms.float16), called),
    "a dilated convolution": (lambda cell: setattr(cell, "conv2", dilated()), called),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_after_a_model_was_prepared_runs_as_it_is(change, inferred):
    apply, compute = CHANGES[change]
    results = []
    for prepare in (lambda cell: None, backend_named("numba").accelerate):
        cell = weighted(Bottleneck(16, 4, 1))
        prepare(cell)
        apply(cell)
        results.append(compute(cell, Tensor(values(4, 16, 5, 3))))
    assert_alike(results[1].astype(ms.float32), results[0].astype(ms.float32))
    assert not inferred


def test_maps_of_other_channels_are_refused():
    cell = weighted(ResNet((1, 1, 1, 1), width=4, stem=False, stages=(2,)))
    backend_named("numba").accelerate(cell)
    with pytest.raises(ValueError, match="maps must have 16 channels, not 12"):
        cell(Tensor(values(2, 12, 9, 5)))

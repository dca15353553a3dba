"""The intermediate modalities of Table 2: each against a loop over pixels, and as a graph."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.data.randomness import step_key
from ms_vireid.models.auxiliary_generator import AuxiliaryGenerator
from ms_vireid.models.intermediate import AuxiliaryModality, MixedModality, SyncreticModality, XModality
from ms_vireid.models.resnet import ResNet
from parity.compare import FORWARD, compare

STAGE = {"layers": (1, 1, 1, 1), "width": 4, "stages": (1,)}
KEY = step_key(0, 3)
FROM_PIXELS = {
    "X": (XModality, {}),
    "mixed by picture": (MixedModality, {"mixing": "picture"}),
    "mixed by pixel": (MixedModality, {"mixing": "pixel"}),
    "syncretic": (SyncreticModality, {}),
}


def pictures(count=3, size=(16, 8)):
    """float32 [2, count, 3, H, W]: noise on a colour of each picture's own."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(2, count, 3, 1, 1)) + rng.normal(size=(2, count, 3, *size))).astype(np.float32)


@pytest.mark.parametrize("cell", [XModality, SyncreticModality])
def test_the_light_networks_are_two_pointwise_convolutions(cell):
    modality = cell(ResNet(**STAGE))
    visible, infrared = pictures()
    reduce, expand = modality.reduce.weight.asnumpy()[0, :, 0, 0], modality.expand.weight.asnumpy()[:, 0, 0, 0]
    source = visible if cell is XModality else np.concatenate([visible, infrared], axis=1)
    expected = np.zeros_like(visible)
    for n, i, j in np.ndindex(len(visible), *visible.shape[2:]):
        hidden = max(0.0, reduce @ source[n, :, i, j] + modality.reduce.bias.asnumpy()[0])
        expected[n, :, i, j] = expand * hidden + modality.expand.bias.asnumpy()
    actual = modality.picture(ms.Tensor(visible), ms.Tensor(infrared), None).asnumpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)  # float32 rounding
    assert len(np.unique(actual)) > 100  # the one hidden unit is alive in this draw


@pytest.mark.parametrize(("mixing", "drawn"), [("picture", (64, 1, 1, 1)), ("pixel", (64, 1, 16, 8))])
def test_the_mixed_picture_is_a_convex_combination(mixing, drawn):
    modality = MixedModality(ResNet(**STAGE), mixing)
    visible, infrared = pictures(64)
    ones, zeros = ms.ops.ones(visible.shape), ms.ops.zeros(visible.shape)
    share = modality.picture(ones, zeros, ms.Tensor(KEY)).asnumpy()
    mixed = modality.picture(ms.Tensor(visible), ms.Tensor(infrared), ms.Tensor(KEY)).asnumpy()
    np.testing.assert_allclose(mixed, share * visible + (1 - share) * infrared, rtol=0, atol=1e-6)  # float32 rounding
    numbers = share[tuple(slice(0, size) for size in drawn)]
    np.testing.assert_array_equal(share, np.broadcast_to(numbers, share.shape))
    # Uniform in [0, 1): mean 1/2, of 64 draws with standard deviation 0.036, of 8,192 with 0.003; variance 1/12.
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.15)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.04)
    again, other = (modality.picture(ones, zeros, ms.Tensor(step_key(0, step))).asnumpy() for step in (3, 4))
    np.testing.assert_array_equal(share, again)
    assert np.abs(share - other).max() > 0.1


def test_the_auxiliary_modality_is_the_generator_on_the_features():
    modality = AuxiliaryModality(4, ratios=(2, 3)).set_train()
    maps = tuple(ms.Tensor(np.random.default_rng(i).normal(size=(2, 4, 6, 6)).astype(np.float32)) for i in range(2))
    expected = AuxiliaryGenerator.construct(modality, *maps).asnumpy()
    np.testing.assert_array_equal(modality(None, maps, None).asnumpy(), expected)
    assert [name for name, _ in modality.cells_and_names() if name and "." not in name] == [
        "visible_learner",
        "infrared_learner",
        "cross_learner",
    ]


@pytest.mark.parametrize(("cell", "options"), FROM_PIXELS.values(), ids=FROM_PIXELS)
def test_graphs_agree_with_operators_and_the_stage_is_the_modalitys_own(cell, options):
    modality = cell(ResNet(**STAGE), **options).set_train(False)

    def forward(visible, infrared, key):
        return modality((visible, infrared), None, key)

    inputs = *ms.Tensor(pictures()), ms.Tensor(KEY)
    expected = forward(*inputs).asnumpy()
    assert expected.shape == (3, 16, 4, 2)
    assert (comparison := compare("graph", ms.jit(forward)(*inputs).asnumpy(), expected, FORWARD)).passed, comparison

"""The intermediate modalities of Table 2: each against a loop over pixels, and both frameworks against each other."""

import mindspore as ms
import numpy as np
import pytest
import torch

from ms_vireid.data.randomness import step_key
from ms_vireid.models.auxiliary_generator import AuxiliaryGenerator
from ms_vireid.models.intermediate import AuxiliaryModality, MixedModality, SyncreticModality, XModality
from ms_vireid.models.resnet import ResNet
from parity.compare import FORWARD, compare
from parity.harness import compare_training, same_weights
from torch_ref.models import intermediate as torch_intermediate
from torch_ref.models.resnet import ResNet as TorchResNet

STAGE = {"layers": (1, 1, 1, 1), "width": 4, "stages": (1,)}
KEY = step_key(0, 3)
FROM_PIXELS = {
    "X": (XModality, torch_intermediate.XModality, {}),
    "mixed by picture": (MixedModality, torch_intermediate.MixedModality, {"mixing": "picture"}),
    "mixed by pixel": (MixedModality, torch_intermediate.MixedModality, {"mixing": "pixel"}),
    "syncretic": (SyncreticModality, torch_intermediate.SyncreticModality, {}),
}
EVERY = pytest.mark.parametrize(("cell", "module", "options"), FROM_PIXELS.values(), ids=FROM_PIXELS)


def pictures(count=3, size=(16, 8)):
    """float32 [2, count, 3, H, W]: noise on a colour of each picture's own."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(2, count, 3, 1, 1)) + rng.normal(size=(2, count, 3, *size))).astype(np.float32)


class OfBoth(ms.nn.Cell):
    """A modality of pictures [2, PK, 3, H, W]."""

    def __init__(self, modality):
        super().__init__()
        self.modality = modality

    def construct(self, both, key):
        return self.modality((both[0], both[1]), None, key)


class TorchOfBoth(torch.nn.Module):
    """A modality of pictures [2, PK, 3, H, W]."""

    def __init__(self, modality):
        super().__init__()
        self.modality = modality

    def forward(self, both, key):
        return self.modality((both[0], both[1]), None, key)


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


def test_x_does_not_see_the_infrared_picture():
    modality = XModality(ResNet(**STAGE))
    visible, infrared = ms.Tensor(pictures())
    same = modality.picture(visible, infrared, None) == modality.picture(visible, 0 * infrared, None)
    assert same.all()


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


@pytest.mark.parametrize("mixing", ["picture", "pixel"])
def test_the_mixture_repeats_with_the_step_and_differs_between_steps(mixing):
    modality = MixedModality(ResNet(**STAGE), mixing)
    visible, infrared = ms.Tensor(pictures())
    first, again, other = (
        modality.picture(visible, infrared, ms.Tensor(step_key(0, step))).asnumpy() for step in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_mixing_needs_a_key_and_a_known_kind():
    with pytest.raises(ValueError, match="mixing must be picture or pixel, not 'batch'"):
        MixedModality(ResNet(**STAGE), "batch")
    visible, infrared = ms.Tensor(pictures())
    with pytest.raises(ValueError, match="needs the step's key"):
        MixedModality(ResNet(**STAGE))((visible, infrared), None, None)


@EVERY
def test_both_frameworks_agree_and_the_stage_is_the_modalitys_own(cell, module, options):
    ms.set_seed(0)  # of all draws some have a pre-activation so near 0 that rounding decides whether a ReLU is open
    pair = OfBoth(cell(ResNet(**STAGE), **options)), TorchOfBoth(module(TorchResNet(**STAGE), **options))
    same_weights(*pair)
    for comparison in compare_training(pair, (pictures(), KEY))("operators"):
        assert comparison.passed, comparison
    assert pair[0](ms.Tensor(pictures()), ms.Tensor(KEY)).shape == (3, 16, 4, 2)


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


@EVERY
def test_jit_agrees_with_pynative(cell, module, options):
    modality = cell(ResNet(**STAGE), **options).set_train(False)

    def forward(visible, infrared, key):
        return modality((visible, infrared), None, key)

    inputs = *ms.Tensor(pictures()), ms.Tensor(KEY)
    comparison = compare("jit", ms.jit(forward)(*inputs).asnumpy(), forward(*inputs).asnumpy(), FORWARD)
    assert comparison.passed, comparison

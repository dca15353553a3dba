import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from ms_vireid.backends.graph import ascend
from ms_vireid.command.errors import InputError
from ms_vireid.models.layers import Dropout, DropPath, GeM
from ms_vireid.models.noise import draw_noise, mix, path_factors, position_noise, to_int32
from torch_ref.models.layers import GeM as TorchGeM


def murmur_finaliser(x):
    """MurmurHash3's 32-bit finaliser in Python integers."""
    x ^= x >> 16
    x = x * 0x85EBCA6B & 0xFFFFFFFF
    x ^= x >> 13
    x = x * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16


def test_mix_is_murmurs_finaliser_on_wrapping_int32():
    values = [0, 1, 2, 12345, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    hashed = mix(Tensor([to_int32(v) for v in values], ms.int32)).asnumpy()
    assert hashed.tolist() == [to_int32(murmur_finaliser(v)) for v in values]


def key(value):
    return Tensor(value, ms.int32)


def mask(step, layer=0, rate=0.1, parts=1, shape=(64, 128)):
    rows, columns = shape
    dropout = Dropout(rate, layer, parts).set_train()
    ones = Tensor(np.ones((rows, parts * columns), np.float32))
    return dropout(ones, (position_noise(key(step), rows, columns), None)).asnumpy()


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_one_hash_of_a_step_gives_what_three_would(shard):
    rates = (0.0, 0.1, 0.4)
    noise, factors = draw_noise(key(7), (4, 3, 6), rates, 0.03, shard)
    assert np.array_equal(noise.asnumpy().reshape(12, 6), position_noise(key(7), 12, 6, shard).asnumpy())
    assert np.array_equal(factors.asnumpy(), path_factors(key(7), rates, 4, shard, 0.03).asnumpy())


def test_dropout_zeroes_its_rate_and_scales_the_rest():
    kept = np.stack([mask(step) for step in range(20)])
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.9)}
    # 163,840 draws of probability 0.1: standard deviation 0.0007.
    assert (kept == 0).mean() == pytest.approx(0.1, abs=0.004)


@pytest.mark.parametrize("parts", [1, 4, 16])
def test_masks_that_are_drawn_at_once_are_those_of_their_layers(parts):
    noise = position_noise(Tensor(7, ms.int32), 6, 5).reshape(2, 3, 5)
    kept = ascend._kept(noise, Dropout(0.1, 0).limit, 13, parts)
    assert len(kept) == 13
    for layer, mask in enumerate(kept):
        one = Dropout(0.1, layer, parts)
        expected = (one.numbers(noise) >= one.limit).reshape(2, 3, 5 * parts)
        np.testing.assert_array_equal(mask.asnumpy(), expected.asnumpy())


def test_masks_of_layers_parts_and_steps_are_independent():
    """Two masks of rate 0.1 drop the same element with probability 0.01, whichever two and in whatever step. Training
    lags if only the mean over the steps is so: some steps then drop the same elements in several layers."""
    shares = []
    for step in range(30):
        wide = mask(step, layer=1, parts=4).reshape(64, 4, 128)
        masks = [mask(step), *wide.transpose(1, 0, 2), mask(step, layer=5), mask(step, layer=6), mask(step + 1)]
        dropped = np.stack([one.ravel() == 0 for one in masks]).astype(float)
        shares.append((dropped @ dropped.T / dropped.shape[1])[np.triu_indices(len(masks), 1)])
    # 840 shares of 8,192 draws each: standard deviation 0.0011, and the largest of them at 4 of these.
    assert np.mean(shares) == pytest.approx(0.01, abs=2e-4)
    assert np.std(shares) == pytest.approx(0.0011, rel=0.2)
    assert np.max(shares) < 0.016


def test_dropout_has_no_rows_or_columns_that_fall_together():
    dropped = np.stack([mask(step) == 0 for step in range(50)])
    for axis in ((0, 1), (0, 2)):
        # 3,200 or 6,400 draws each: standard deviation at most 0.006.
        assert np.abs(dropped.mean(axis=axis) - 0.1).max() < 0.03


def test_dropout_and_drop_path_are_the_identity_in_evaluation():
    x = Tensor(np.ones((2, 3), np.float32))
    assert np.array_equal(Dropout(0.5, 0)(x, None).asnumpy(), x.asnumpy())
    assert np.array_equal(DropPath(0.5, 0)(x, None).asnumpy(), x.asnumpy())


def test_drop_path_drops_whole_samples():
    drop_path = DropPath(0.25, 3).set_train()
    x = Tensor(np.ones((512, 4, 5), np.float32))
    kept = np.stack([drop_path(x, (None, path_factors(key(step), (0.25,) * 4, 512))).asnumpy() for step in range(8)])
    assert np.array_equal(kept.min(axis=(2, 3)), kept.max(axis=(2, 3)))
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    # 4,096 draws: standard deviation 0.007.
    assert (kept[..., 0, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_gem_is_the_generalised_mean_over_all_positions(power):
    x = np.random.default_rng(0).uniform(0, 5, (2, 3, 4, 5)).astype(np.float32)
    expected = (x.astype(np.float64) ** power).mean(axis=(2, 3)) ** (1 / power)
    for pool in (GeM(power), GeM(power, learned=True)):
        assert pool(Tensor(x)).asnumpy() == pytest.approx(expected, rel=4e-6)  # powers and roots of float32


def test_gem_of_a_channel_of_zeros_is_the_root_of_its_epsilon_and_its_gradient_is_zero():
    zeros = np.zeros((1, 1, 2, 2), np.float32)
    pooled, gradient = ms.value_and_grad(GeM())(Tensor(zeros))
    assert pooled.asnumpy()[0, 0] == pytest.approx(1e-4, rel=1e-5)  # the cube root of 1e-12
    assert (gradient.asnumpy() == 0).all()
    torch_zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    TorchGeM()(torch_zeros).sum().backward()
    assert (torch_zeros.grad == 0).all()


def test_rates_and_powers_out_of_range_are_refused():
    for message, wrong in (
        ("-0.1", lambda: Dropout(-0.1, 0)),
        ("1.0", lambda: Dropout(1.0, 0)),
        ("-0.1", lambda: DropPath(-0.1, 0)),
        ("1.0", lambda: DropPath(1.0, 0)),
        ("nan", lambda: DropPath(float("nan"), 0)),
        ("power 0.0: must be a number", lambda: GeM(0.0)),
        ("power nan: must be a number", lambda: TorchGeM(float("nan"))),
    ):
        with pytest.raises(InputError, match=message):
            wrong()

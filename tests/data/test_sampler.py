from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import TrainConfig
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler

P, K = 3, 4
BATCH = {"num_identities": P, "num_instances": K}
VISIBLE = (4, 9, 5, 2, 7, 6)  # pictures of each identity: one has fewer than K
INFRARED = (6, 4, 1, 8, 5, 4)


def images_of(visible, infrared) -> ImageSet:
    """Pictures that are never opened; identity i has visible[i] and infrared[i] of them, in mixed order."""
    identities = np.concatenate([np.repeat(np.arange(len(n)), n) for n in (visible, infrared)])
    dark = np.repeat([False, True], [sum(visible), sum(infrared)])
    order = np.random.default_rng(0).permutation(len(identities))
    identities, dark = 10 * identities[order].astype(np.int32), dark[order]
    return ImageSet((Path("x"),) * len(dark), identities, 1 + dark.astype(np.int32), dark)


def sampler(train: ImageSet, iterations: int | None = None, seed: int = 0, **options) -> IdentitySampler:
    return IdentitySampler(train, TrainConfig(**{**BATCH, "iterations": iterations, **options}), seed)


@pytest.fixture(scope="module")
def train():
    return images_of(VISIBLE, INFRARED)


@pytest.fixture(scope="module")
def plan(train):
    return sampler(train, 50, seed=1).plan(epoch=1)


def test_a_batch_is_p_identities_of_k_visible_and_then_k_infrared_pictures(train, plan):
    assert plan.shape == (50, 2 * P * K)
    infrared, labels = train.infrared[plan], train.labels[plan]
    assert not infrared[:, : P * K].any()
    assert infrared[:, P * K :].all()
    assert (labels.reshape(-1, K) == labels.reshape(-1, K)[:, :1]).all()
    assert np.array_equal(labels[:, : P * K], labels[:, P * K :])
    assert all(len(set(batch)) == P for batch in labels[:, : P * K : K])


def test_every_identity_and_picture_is_drawn_and_no_batch_twice(train, plan):
    assert set(train.labels[plan].ravel()) == set(range(len(VISIBLE)))
    assert set(plan.ravel()) == set(range(len(train)))
    assert len({tuple(batch) for batch in plan.tolist()}) == len(plan)


def test_pictures_repeat_in_turn_where_an_identity_has_too_few_and_else_not(train, plan):
    for group in plan.reshape(-1, K):
        label, dark = train.labels[group[0]], train.infrared[group[0]]
        available = (INFRARED if dark else VISIBLE)[label]
        assert len(set(group)) == min(available, K)
        if available == 2:
            assert (np.sort(group)[[0, 2]] == np.sort(group)[[1, 3]]).all()


def test_with_replacement_every_picture_is_drawn_on_its_own(train):
    plan = sampler(train, 4000, seed=1, replacement=True).plan(1)
    labels = train.labels[plan].reshape(-1, K)
    assert (labels == labels[:, :1]).all()
    groups = plan.reshape(-1, K)
    # Four draws among nine pictures all differ with probability 8 * 7 * 6 / 9^3 = 0.461, without replacement always.
    of_nine = groups[(labels[:, 0] == 1) & ~train.infrared[groups[:, 0]]]
    different = np.mean([len(set(group)) == K for group in of_nine.tolist()])
    assert abs(different - 8 * 7 * 6 / 9**3) < 5 * np.sqrt(0.25 / len(of_nine))  # five standard errors at most
    # Of a single picture there is nothing else to draw; of two, all four draws are the same with probability 1/8.
    of_one = groups[(labels[:, 0] == 2) & train.infrared[groups[:, 0]]]
    assert len(np.unique(of_one)) == 1
    of_two = groups[(labels[:, 0] == 3) & ~train.infrared[groups[:, 0]]]
    same = np.mean((of_two == of_two[:, :1]).all(axis=1))
    assert abs(same - 1 / 8) < 5 * np.sqrt(0.25 / len(of_two))


def test_identities_are_drawn_equally_often(train):
    plan = sampler(train, 2000, seed=1).plan(1)
    counts = np.bincount(train.labels[plan][:, : P * K : K].ravel(), minlength=6)
    # Binomial, 2000 draws with probability 1/2: standard deviation 22.4; five of them.
    assert np.abs(counts - 1000).max() < 112


def test_the_default_is_one_pass_over_the_visible_pictures_and_696_iterations_of_sysu_mm01(train):
    assert sampler(train).iterations == -(-sum(VISIBLE) // (P * K))
    visible = np.full(395, 56)
    visible[: 22258 - visible.sum()] += 1
    train = images_of(visible, np.full(395, 30))
    assert np.count_nonzero(~train.infrared) == 22258
    assert sampler(train, num_identities=8).iterations == 696


def test_a_plan_follows_from_seed_and_epoch_alone(train):
    first = sampler(train, 5, seed=7)
    first.plan(1)
    assert np.array_equal(first.plan(2), sampler(train, 5, seed=7).plan(2))
    for other in (first.plan(1), sampler(train, 5, seed=8).plan(2)):
        assert (first.plan(2) != other).any(axis=1).all()


def test_as_many_identities_as_a_batch_needs_are_enough_and_fewer_are_refused(train):
    with pytest.raises(InputError, match=r"train\.num_identities=7 .* has 6"):
        sampler(train, num_identities=7)
    plan = sampler(train, 3, num_identities=6).plan(1)
    assert np.array_equal(np.sort(train.labels[plan][:, : 6 * K : K]), np.tile(np.arange(6), (3, 1)))

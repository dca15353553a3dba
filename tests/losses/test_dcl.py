"""DiscriminativeCenterLoss: hand-worked batches, the definitions at its singular points, and arguments."""

from functools import partial

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import DiscriminativeCenterLoss
from parity import equations

from . import cases

NEGATIVES = pytest.mark.parametrize("negatives", ["dynamic", "hard", "all"])


@pytest.mark.parametrize(("negatives", "expected"), [("dynamic", 5.5 / 14), ("hard", 5.5 / 12), ("all", 5.5 / 18)])
def test_value_by_hand(negatives, expected):
    # Identity 0: 0, 2 | 0, 2, centre 1, mean distance 1. Identity 1: 5, 7 | 9, 19, centre 10, (5 + 3 + 1 + 9)/4 = 4.5.
    # Negatives of 1: 4, 6, 8, 18, mean 9, nearer than it (4 + 6 + 8)/3 = 6, nearest 4.
    # Negatives of 10: 10, 8, 10, 8, mean 9, nearer than it 8, nearest 8.
    features = np.float32([[0], [2], [5], [7], [0], [2], [9], [19]])
    loss = DiscriminativeCenterLoss(2, negatives)
    value, _ = cases.value_and_gradient(loss, features, np.int32([0, 0, 1, 1, 0, 0, 1, 1]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)  # float32 rounding


def test_a_negative_as_far_as_the_mean_is_not_nearer():
    # Identities 0, 0; 1, 3; 2, 2 with centres 0, 2, 2 and mean distances 0, 1, 0. Negatives of 0: 1, 3, 2, 2, mean 2,
    # nearer only 1; of identity 1's 2: 2, 2, 0, 0, mean 1, nearer 0; of identity 2's: 2, 2, 1, 1, mean 1.5, nearer 1.
    features, labels = np.float32([[0], [1], [2], [0], [3], [2]]), np.int32([0, 1, 2, 0, 1, 2])
    value, _ = cases.value_and_gradient(DiscriminativeCenterLoss(1), features, labels)
    np.testing.assert_allclose(value, 1 / 2, rtol=1e-6)  # float32 rounding


def test_without_a_nearer_negative_all_of_them_count():
    # Identity 0: (-1, 0, 0), (1, 0, 0), centre 0; identity 1: (0, 4, -3), (0, 4, 3), centre (0, 4, 0). Mean distances
    # 1 and 3; negatives of 0 all at sqrt(4^2 + 3^2) = 5, of (0, 4, 0) all at sqrt(1 + 4^2) = 4.1231056: 4 / 9.1231056.
    # The equation has a kink there, so that the gradient is compared with the variant that it falls back to.
    features, labels = np.float32([[-1, 0, 0], [0, 4, -3], [1, 0, 0], [0, 4, 3]]), np.int32([0, 1, 0, 1])
    loss = DiscriminativeCenterLoss(1)
    value, gradient = cases.value_and_gradient(loss, features, labels)
    np.testing.assert_allclose(value, 4 / 9.1231056, rtol=1e-6)  # float32 rounding
    assert gradient.any()
    cases.assert_matches(
        loss, (), equations.dcl, features, labels, gradient_loop=partial(equations.dcl, negatives="all")
    )


def test_each_centre_falls_back_by_itself():
    # Identity 0: (-1, 0), (1, 0), centre 0, mean distance 1; its negatives (0, 5) and (3, 4) are both 5 away: all, 5.
    # Identity 1: centre (1.5, 4.5), mean distance sqrt(1.5^2 + 0.5^2) = 1.5811388; negatives sqrt(2.5^2 + 4.5^2) and
    # sqrt(0.5^2 + 4.5^2) = 4.5276926, the nearer. 2.5811388 / 9.5276926 = 0.2709091.
    features, labels = np.float32([[-1, 0], [0, 5], [1, 0], [3, 4]]), np.int32([0, 1, 0, 1])
    value, _ = cases.value_and_gradient(DiscriminativeCenterLoss(1), features, labels)
    np.testing.assert_allclose(value, 2.5811388 / 9.5276926, rtol=1e-6)  # float32 rounding


def test_tied_hardest_negatives_share_the_gradient():
    # Identity 0 is (0, 0) twice, identity 1 (4, 3) and (4, -3) with the centre (4, 0): numerator 0 + 3, denominator
    # 5 + 4, each of two equal distances. Slopes of the numerator: (4, 3): (0, 1/2), (4, -3): (0, -1/2), and 0 for the
    # rows at distance 0. Of the denominator: (4, 3): half of (4/5, 3/5), and (1/2, 0) through its centre, together
    # (0.9, 0.3), (4, -3): (0.9, -0.3); (0, 0): (-0.4, 0) through its centre, half of (-1, 0) as a negative: (-0.9, 0).
    # Together n'/9 - 3 d'/81.
    features, labels = np.float32([[0, 0], [4, 3], [0, 0], [4, -3]]), np.int32([0, 1, 0, 1])
    value, gradient = cases.value_and_gradient(DiscriminativeCenterLoss(1, "hard"), features, labels)
    np.testing.assert_allclose(value, 1 / 3, rtol=1e-6)  # float32 rounding
    expected = [[1 / 30, 0], [-1 / 30, 2 / 45], [1 / 30, 0], [-1 / 30, -2 / 45]]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7)  # float32 rounding


@NEGATIVES
def test_two_identical_identities_of_two_instances_cost_nothing(negatives):
    features, labels = equations.identical_batch(identities=2, instances=2)
    value, gradient = cases.value_and_gradient(DiscriminativeCenterLoss(2, negatives), features, labels)
    assert value == 0
    assert not gradient.any()


def test_negatives_exactly_on_the_centres_give_zero():
    # Both identities are -1, 0 | 0, 1 with the centre 0, on which the nearest negative lies: 1 / 0 is defined as 0.
    features = np.float32([[-1], [0], [-1], [0], [0], [1], [0], [1]])
    labels = np.int32([0, 0, 1, 1, 0, 0, 1, 1])
    value, gradient = cases.value_and_gradient(DiscriminativeCenterLoss(2, "hard"), features, labels)
    assert value == 0
    assert not gradient.any()


@NEGATIVES
def test_a_batch_of_one_identity_gives_zero(negatives):
    features, labels = equations.random_batch(1, 2, 3, seed=13)
    value, gradient = cases.value_and_gradient(DiscriminativeCenterLoss(2, negatives), features, labels)
    assert value == 0
    assert not gradient.any()


@NEGATIVES
def test_the_ratio_does_not_change_with_the_scale(negatives):
    features, labels = equations.random_batch(3, 2, 4, seed=14)
    loss = DiscriminativeCenterLoss(2, negatives)
    small, _ = cases.value_and_gradient(loss, features / 1024, labels)
    large, _ = cases.value_and_gradient(loss, features * 1024, labels)
    np.testing.assert_allclose(large, small, rtol=1e-6)  # powers of two change no digit but at the square roots


@pytest.mark.parametrize("instances", [0, -4, 1.5])
def test_a_wrong_number_of_instances_raises(instances):
    with pytest.raises(ValueError, match=f"num_instances must be an integer >= 1, not {instances}"):
        DiscriminativeCenterLoss(instances)


def test_a_wrong_choice_of_negatives_raises():
    with pytest.raises(ValueError, match="negatives must be one of dynamic, hard, all, not 'easy'"):
        DiscriminativeCenterLoss(4, negatives="easy")


def test_rows_that_are_not_a_multiple_of_2k_raise():
    with pytest.raises(ValueError, match="positive multiple of 6, not 8"):
        DiscriminativeCenterLoss(3)(ms.ops.zeros((8, 2)), ms.ops.zeros(8, ms.int32))

"""HeteroCenterTripletLoss: a hand-worked batch and arguments."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import HeteroCenterTripletLoss
from parity import equations

from . import cases

LABELS = np.int32([0, 0, 1, 1, 0, 0, 1, 1])


def test_value_and_gradient_by_hand():
    # Centres: visible 1 and 10, infrared 4 and 13. The positive is always 3 away; nearest negatives:
    # 1: 9, 10: 6, 4: 6, 13: 9; brackets with m = 7: 1, 4, 4, 1; mean 10/4.
    features = np.float32([[0], [2], [9], [11], [3], [5], [12], [14]])
    value, gradient = cases.value_and_gradient(HeteroCenterTripletLoss(2, 7.0), features, LABELS)
    np.testing.assert_allclose(value, 2.5, rtol=1e-6)  # float32 rounding
    # Slopes of the sum of the brackets for the centres: 1: -1 - 1 + 1 = -1 (own positive, other's positive, own
    # negative 10); 10: -1 - 1 from the positives, -1 own negative 4, -1 as 4's negative, -1 as 1's: -5;
    # 4: +1 + 1, +1 own, +1 as 10's negative, +1 as 13's: 5; 13: +1 + 1, -1 own: 1. Over 4 centres and 2 rows each.
    np.testing.assert_allclose(gradient[:, 0] * 8, [-1, -1, -5, -5, 5, 5, 1, 1], rtol=1e-6)


def test_identical_features_cost_the_margin():
    features, labels = equations.identical_batch()
    value, gradient = cases.value_and_gradient(HeteroCenterTripletLoss(3, 0.3), features, labels)
    np.testing.assert_allclose(value, 0.3, rtol=1e-6)  # float32 rounding
    assert not gradient.any()


@pytest.mark.parametrize("instances", [0, -1, 2.0, "4"])
def test_a_wrong_number_of_instances_raises(instances):
    with pytest.raises(ValueError, match=f"num_instances must be an integer >= 1, not {instances!r}"):
        HeteroCenterTripletLoss(instances, 0.3)


def test_a_wrong_margin_raises():
    with pytest.raises(ValueError, match=r"margin must be a finite number >= 0, not -0\.3"):
        HeteroCenterTripletLoss(4, -0.3)


def test_rows_that_are_not_a_multiple_of_2k_raise():
    with pytest.raises(ValueError, match="positive multiple of 6, not 8"):
        HeteroCenterTripletLoss(3, 0.3)(ms.ops.zeros((8, 2)), ms.Tensor(LABELS))

"""The triplet losses: hand-worked batches, stages, reductions and arguments."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import HardTripletLoss, ProgressiveHardTripletLoss, WeightedRegularizedTripletLoss
from parity import equations

from . import cases

# One number a feature, two identities, K = 1: visible 0 and 3, infrared 1 and 5.
FEATURES = np.float32([[0], [3], [1], [5]])
LABELS = np.int32([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("loss", "extra", "expected"),
    [
        # Furthest positive, nearest negative, bracket with m = 5:
        # 0: 1, 3 -> 3; 3: 2, 2 -> 5; 1: 1, 2 -> 4; 5: 2, 4 -> 3; together 15, mean 15/4.
        (HardTripletLoss(5.0), (), 15 / 4),
        (ProgressiveHardTripletLoss(5.0), (2,), 15 / 4),
        (ProgressiveHardTripletLoss(5.0, reduction="sum"), (2,), 15),
        # Within a modality the only positive is the anchor itself, at 0. Visible: 0 - 3 + 5 = 2 twice; infrared:
        # 0 - 4 + 5 = 1 twice. Means 2 + 1, sums 4 + 2.
        (ProgressiveHardTripletLoss(5.0), (1,), 3),
        (ProgressiveHardTripletLoss(5.0, reduction="sum"), (1,), 6),
        # With m = 0 only the anchor 3 is at its bracket's edge, 2 - 2 = 0, and none is over.
        (HardTripletLoss(0.0), (), 0),
    ],
)
def test_batch_hard_by_hand(loss, extra, expected):
    value, _ = cases.value_and_gradient(loss, FEATURES, LABELS, *extra)
    np.testing.assert_allclose(value, expected, rtol=1e-6)  # float32 rounding


def test_batch_hard_gradient_by_hand():
    # Infrared alone, m = 5: both brackets are 0 - (5 - 1) + 5, whose slope is +1 for the row 1 and -1 for the row 5;
    # each row is in both brackets, whose mean is taken: +1 and -1. Visible likewise.
    _, gradient = cases.value_and_gradient(ProgressiveHardTripletLoss(5.0), FEATURES, LABELS, 1)
    np.testing.assert_allclose(gradient, [[1], [-1], [1], [-1]], rtol=1e-6)  # float32 rounding


def test_tied_negatives_share_the_gradient():
    # The anchor 0 has negatives at -2 and +2, and itself as the only positive: bracket 0 - 2 + 5. The row -2 has the
    # negative 0, positive +2 (distance 4): 4 - 2 + 5; likewise +2. Slopes, mean of three anchors:
    # row 0: its own bracket (1/2)(-1) + (1/2)(1) = 0, and (-1) + (+1) from the others: 0.
    # row -2: own bracket -1 (positive) + 1 (negative), +1/2 from the anchor 0, -1 from the anchor +2: -1/2, over 3.
    _, gradient = cases.value_and_gradient(HardTripletLoss(5.0), np.float32([[0], [-2], [2]]), np.int32([0, 1, 1]))
    np.testing.assert_allclose(gradient, [[0], [-1 / 6], [1 / 6]], rtol=0, atol=1e-7)  # float32 rounding


def test_weighted_regularized_by_hand():
    # Positives include the anchor at 0. Weighted positives of 0 and d: d e^d / (1 + e^d): d = 1: 0.7310586 for rows 0
    # and 1, d = 2: 1.7615942 for rows 3 and 5. Weighted negatives of a and a + t: a + t e^-t / (1 + e^-t):
    # 0: 3, 5 -> 3.2384058; 3: 3, 2 -> 2.2689414; 1: 2, 4 -> 2.2384058; 5: 5, 4 -> 4.2689414.
    # softplus(-2.5073473) = 0.0783343 for rows 0 and 5, (-0.5073473) = 0.4713095, (-1.5073473) = 0.2000770; mean.
    value, _ = cases.value_and_gradient(WeightedRegularizedTripletLoss(), FEATURES, LABELS)
    np.testing.assert_allclose(value, 0.2070137, rtol=1e-6)  # float32 rounding


def test_identical_features_cost_the_margin_or_log_two():
    features, labels = equations.identical_batch()
    for loss, extra, expected in (
        (HardTripletLoss(0.3), (), 0.3),
        (ProgressiveHardTripletLoss(0.3), (1,), 0.6),
        (ProgressiveHardTripletLoss(0.3), (2,), 0.3),
        (WeightedRegularizedTripletLoss(), (), 0.6931472),
    ):
        value, gradient = cases.value_and_gradient(loss, features, labels, *extra)
        np.testing.assert_allclose(value, expected, rtol=1e-6)  # float32 rounding
        assert not gradient.any()


def test_stage_one_ignores_the_other_modality():
    features, labels = equations.random_batch(3, 2, 4, seed=11)
    loss = ProgressiveHardTripletLoss(0.1)
    near, _ = cases.value_and_gradient(loss, features, labels, 1)
    features[len(labels) // 2 :] += 64  # a power of two; the features lose a few bits: hence the tolerance
    far, _ = cases.value_and_gradient(loss, features, labels, 1)
    np.testing.assert_allclose(far, near, rtol=1e-5)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_wrong_margin_raises(margin):
    for build in (HardTripletLoss, ProgressiveHardTripletLoss):
        with pytest.raises(ValueError, match=f"margin must be a finite number >= 0, not {margin}"):
            build(margin)


def test_a_wrong_reduction_raises():
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, not 'max'"):
        ProgressiveHardTripletLoss(0.1, reduction="max")


@pytest.mark.parametrize("stage", [0, 3])
def test_a_wrong_stage_raises(stage):
    with pytest.raises(ValueError, match=f"stage must be 1 or 2, not {stage}"):
        ProgressiveHardTripletLoss(0.1)(ms.Tensor(FEATURES), ms.Tensor(LABELS), stage)


def test_rows_that_cannot_be_halved_raise():
    with pytest.raises(ValueError, match="positive multiple of 2, not 3"):
        ProgressiveHardTripletLoss(0.1)(ms.Tensor(FEATURES[:3]), ms.Tensor(LABELS[:3]), 1)

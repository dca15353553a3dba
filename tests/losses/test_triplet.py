"""The triplet losses: hand-worked batches, stages, reductions and arguments."""

import mindspore as ms
import numpy as np
import pytest
import torch

from ms_vireid import losses as mindspore_losses
from ms_vireid.losses import HardTripletLoss, ProgressiveHardTripletLoss, WeightedRegularizedTripletLoss
from parity import equations
from torch_ref import losses as torch_losses

from . import cases

# One number a feature, two identities, K = 1: visible 0 and 3, infrared 1 and 5.
FEATURES = np.float32([[0], [3], [1], [5]])
LABELS = np.int32([0, 1, 0, 1])

SOFTPLUS_ROUNDING = 1.2e-7  # MindSpore's is log(1 + exp(x)), whose 1 + exp(x) is rounded at float32's 1


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
    value, _ = cases.value_and_gradient(WeightedRegularizedTripletLoss("softmax"), FEATURES, LABELS)
    np.testing.assert_allclose(value, 0.2070137, rtol=1e-6)  # float32 rounding


def test_the_releases_weights_vanish_with_the_distance():
    # Two identities at 0 and 20, K = 1: every anchor has its positives at 0 and two negatives at 20. A softmax weighs
    # these with 1/2 each: softplus(-20). The release's weights are e^-20 / (2 e^-20 + 1e-6): the weighted sum is
    # 20 * 4.1223072e-9 / (4.1223072e-9 + 1e-6) = 0.0821077, softplus(-0.0821077) = 0.6529358.
    features = np.float32([[0], [20], [0], [20]])
    value, gradient = cases.value_and_gradient(WeightedRegularizedTripletLoss(), features, LABELS)
    np.testing.assert_allclose(value, 0.6529358, rtol=1e-6)  # float32 rounding
    clean, _ = cases.value_and_gradient(WeightedRegularizedTripletLoss("softmax"), features, LABELS)
    np.testing.assert_allclose(clean, np.log1p(np.exp(-20.0)), atol=SOFTPLUS_ROUNDING)
    assert gradient[0] < 0 < gradient[1]  # descent takes the identities towards each other


@pytest.mark.parametrize("losses", [mindspore_losses, torch_losses], ids=["mindspore", "torch"])
@pytest.mark.parametrize(
    ("scale", "released", "softmax"),  # of `equations.released_weighted_triplet` and `weighted_regularized_triplet`
    [
        (0.3, 0.08037404, 0.08037321),
        (1.0, 0.0009465328, 0.0008427292),
        (1.5, 2.886611, 5.239054e-05),
        (2.0, 8.600932, 4.182754e-06),
        (3.0, 13.14466, 3.549014e-08),
    ],
)
def test_the_releases_weights_part_from_the_softmax_as_features_grow(losses, scale, released, softmax):
    features, labels = equations.wrt_batch(scale)
    tensor = ms.Tensor if losses is mindspore_losses else torch.from_numpy
    for weights, expected in (("released", released), ("softmax", softmax)):
        value = losses.WeightedRegularizedTripletLoss(weights)(tensor(features), tensor(labels))
        # Float32 rounds distances of 40 by 4e-6, which is what changes a term of softplus by that share of itself.
        what = f"{weights}, features times {scale}"
        np.testing.assert_allclose(float(value), expected, rtol=2e-5, atol=SOFTPLUS_ROUNDING, err_msg=what)


def test_other_weights_raise():
    with pytest.raises(ValueError, match="weights must be one of released, softmax, not 'paper'"):
        WeightedRegularizedTripletLoss("paper")


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

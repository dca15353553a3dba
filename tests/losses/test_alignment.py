"""MUN's losses of three modalities: the equations' values and gradients, hand-worked batches, and hard cases."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import alignment
from ms_vireid.losses.alignment import IdentityAlignmentLoss, IdentityConsistencyLoss, ModalityAlignmentLoss
from ms_vireid.losses.mmd import mean_bandwidth, squared_distances, squared_mmd
from parity import equations

from . import cases

EVERY_LOSS = pytest.mark.parametrize("case", equations.MODALITY_LOSSES.values(), ids=equations.MODALITY_LOSSES.keys())
# An MMD is a difference of kernels of up to 5, so that float32's rounding of those shows in it: 2e-7 seen.
KERNEL_ROUNDING = 2e-6


def build(case, instances):
    return case.build(alignment, instances)


def of_rows(loss):
    """The loss as a function of rows [3, PK, C]."""
    return lambda rows: loss(rows[0], rows[1], rows[2])


def value_and_gradient(loss, rows):
    value, gradient = ms.value_and_grad(of_rows(loss))(ms.Tensor(rows))
    assert value.dtype == ms.float32
    assert value.shape == ()
    return value.asnumpy(), gradient.asnumpy()


@EVERY_LOSS
@pytest.mark.parametrize("batch", equations.MODALITY_BATCHES.values(), ids=equations.MODALITY_BATCHES.keys())
def test_value_and_gradient_are_the_equations(case, batch):
    rows, instances = batch()
    exact = rows.astype(np.float64)
    value, gradient = value_and_gradient(build(case, instances), rows)
    expected = case.loop(exact, instances)
    cases.assert_close(value, expected, cases.VALUE_TOLERANCE, max(abs(expected), 1.0), "value")
    slope = equations.numeric_gradient(lambda x: case.loop(x, instances, fixed=exact), exact)
    assert np.abs(slope).max() > 0
    cases.assert_close(gradient, slope, cases.GRADIENT_TOLERANCE, np.abs(slope).max(), "gradient")


@EVERY_LOSS
def test_the_papers_batch_size_and_width(case):
    # As in test_every_loss.py: derivatives along the gradient and along a random direction.
    rows = equations.modality_batch(8, 4, 2048, seed=7, identity_spread=0.02, modality_shift=0.02) * np.float32(0.05)
    value, gradient = value_and_gradient(build(case, 4), rows)
    exact = rows.astype(np.float64)
    cases.assert_close(value, case.loop(exact, 4), cases.VALUE_TOLERANCE, max(abs(value), 1.0), "value")
    norm = np.linalg.norm(gradient.astype(np.float64))
    assert norm > 0
    for direction in (gradient.astype(np.float64), np.random.default_rng(0).normal(size=exact.shape)):
        direction /= np.linalg.norm(direction)
        step = 1e-5 * direction
        ends = [case.loop(exact + sign * step, 4, fixed=exact) for sign in (1, -1)]
        derivative = (ends[0] - ends[1]) / 2e-5
        cases.assert_close((gradient * direction).sum(), derivative, cases.GRADIENT_TOLERANCE, norm, "derivative")


@EVERY_LOSS
@pytest.mark.parametrize(("identities", "instances"), [(2, 2), (2, 3), (4, 1)])
def test_identical_rows_give_the_defined_value_and_no_gradient(case, identities, instances):
    rows = equations.identical_modalities(identities, instances)
    value, gradient = value_and_gradient(build(case, instances), rows)
    cases.assert_close(value, case.loop(rows.astype(np.float64), instances), KERNEL_ROUNDING, 1.0, "value")
    assert not gradient.any()


@EVERY_LOSS
@pytest.mark.parametrize("gap", [1e-20, 1e-10, 1e-5, 1e-3, 1e3, 1e10])
def test_rows_of_any_distance_have_a_finite_gradient(case, gap):
    rows = np.zeros((3, 4, 2), np.float32)
    rows[:, :, 0] = gap * np.random.default_rng(0).normal(size=(3, 4))
    value, gradient = value_and_gradient(build(case, 2), rows)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@EVERY_LOSS
def test_a_batch_of_one_identity_is_finite(case):
    rows = equations.modality_batch(1, 3, 4, seed=8)
    value, gradient = value_and_gradient(build(case, 3), rows)
    expected = case.loop(rows.astype(np.float64), 3)  # 0 for L_ia, which needs a negative
    cases.assert_close(value, expected, cases.VALUE_TOLERANCE, abs(expected) or 1.0, "value")
    assert np.isfinite(gradient).all()


@EVERY_LOSS
def test_jit_agrees_with_pynative(case):
    loss = build(case, 3)
    compiled = ms.jit(ms.value_and_grad(of_rows(loss)))
    for rows in (equations.modality_batch(2, 3, 3, seed=9), equations.identical_modalities()):
        value, gradient = value_and_gradient(loss, rows)
        jit_value, jit_gradient = compiled(ms.Tensor(rows))
        # The same kernels on the same numbers; sums may be taken in another order, of kernels of up to 5.
        cases.assert_close(jit_value.asnumpy(), value, 1e-6, max(abs(value), 1.0), "value")
        cases.assert_close(jit_gradient.asnumpy(), gradient, 1e-5, np.abs(gradient).max() or 1.0, "gradient")


@EVERY_LOSS
def test_half_precision_rows_are_computed_in_float32(case):
    rows = equations.modality_batch(3, 2, 4, seed=10).astype(np.float16)
    value, _ = value_and_gradient(build(case, 2), rows)
    expected = case.loop(rows.astype(np.float64), 2)
    cases.assert_close(value, expected, cases.VALUE_TOLERANCE, max(abs(expected), 1.0), "value")


@EVERY_LOSS
def test_wrong_shapes_raise(case):
    loss = build(case, 2)
    rows = ms.ops.zeros((6, 3))
    with pytest.raises(ValueError, match=r"must have one shape, not \(6, 3\), \(6, 3\), \(4, 3\)"):
        loss(rows, rows, rows[:4])
    with pytest.raises(ValueError, match="positive multiple of 2, not 5"):
        loss(rows[:5], rows[:5], rows[:5])


def test_identity_alignment_by_hand():
    # Centres, one number each: visible 0 and 4, infrared 1 and 9, auxiliary 2 and 5, K = 1.
    # Identity 0: positives 2 and 1, the further 2; negatives |2 - 4| = 2, |2 - 9| = 7: 0.55 + 2 - 2 = 0.55.
    # Identity 1: positives 1 and 4, the further 4; negatives 5 and 4, the nearest 4: 0.55. Sum 1.1.
    rows = np.float32([[[0], [4]], [[1], [9]], [[2], [5]]])
    value, gradient = value_and_gradient(IdentityAlignmentLoss(1), rows)
    np.testing.assert_allclose(value, 1.1, rtol=1e-6)  # float32 rounding
    # Identity 0: a0 +1 + 1, v0 -1, its negative v1 -1. Identity 1: r1 +1, its negative r0 +1, a1 -1 - 1.
    np.testing.assert_allclose(gradient[:, :, 0], [[-1, -1], [1, 1], [2, -2]], rtol=1e-6)
    mean, _ = value_and_gradient(IdentityAlignmentLoss(1, reduction="mean"), rows)
    np.testing.assert_allclose(mean, 0.55, rtol=1e-6)


def test_identity_alignment_clips_each_identity_by_itself():
    # Identity 0 at 0 and 0.1, far from identity 1, would be at 0.55 + 0.1 - 10 below 0. Identity 1: its own infrared
    # centre, at 0, is 10 away, the nearest negative 9.9: 0.55 + 10 - 9.9 = 0.65.
    rows = np.float32([[[0], [10]], [[0.1], [0]], [[0], [10]]])
    value, _ = value_and_gradient(IdentityAlignmentLoss(1), rows)
    # Identity 0's nearest negative is the misplaced infrared centre of identity 1, at 0: 0.55 + 0.1 - 0 = 0.65.
    np.testing.assert_allclose(value, 0.65 + 0.65, rtol=1e-6)
    rows[1, 1] = 10  # both at home: 0.55 + 0.1 - 10 and 0.55 + 0 - 9.9
    value, gradient = value_and_gradient(IdentityAlignmentLoss(1), rows)
    assert value == 0
    assert not gradient.any()


def test_equally_far_modalities_share_the_gradient():
    # a = 0, its positives at -1 and 1; the negatives of both identities far away, with the other's at 100 and 102.
    rows = np.float32([[[-1], [100]], [[1], [102]], [[0], [101]]])
    _, gradient = value_and_gradient(IdentityAlignmentLoss(1, margin=200.0), rows)
    # Positives: v0 -1/2, r0 1/2, a0 0; v1, r1 likewise. Negatives: a0 to v1 100 (a0 +1, v1 -1); a1 to r0 100 (a1 -1,
    # r0 +1).
    np.testing.assert_allclose(gradient[:, :, 0], [[-0.5, -1.5], [1.5, 0.5], [1, -1]], rtol=1e-6)


def test_squared_mmd_by_hand():
    # x = {0}, y = {2}: d^2 = 4, b = 4 / 4 = 1. Kernels of 0: 5; of 4: e^-4 + e^-2 + e^-1 + e^-1/2 + e^-1/4 = 1.9068618;
    # 5 + 5 - 2 * 1.9068618.
    x, y = ms.Tensor(np.float32([[[0.0]]])), ms.Tensor(np.float32([[[2.0]]]))
    np.testing.assert_allclose(squared_mmd(x, y).asnumpy(), [6.1862764], rtol=1e-6)
    # Equal sets, in another order, are 0 apart, and a set may have more rows than the other.
    sets = ms.Tensor(np.float32([[[0.0], [1.0]], [[5.0], [7.0]]]))
    np.testing.assert_allclose(squared_mmd(sets, sets[:, ::-1]).asnumpy(), [0, 0], rtol=0, atol=1e-6)
    doubled = ms.ops.concat((sets, sets), axis=1)
    np.testing.assert_allclose(squared_mmd(sets, doubled).asnumpy(), [0, 0], rtol=0, atol=KERNEL_ROUNDING)


def test_the_bandwidth_is_a_quarter_of_the_mean_squared_distance_of_different_rows():
    # Rows 0, 1 and 4: squared distances 1, 16, 9, each twice among six off the diagonal: mean 26 / 3.
    x, y = ms.Tensor(np.float32([[[0], [1]]])), ms.Tensor(np.float32([[[4]]]))
    pairs = squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)
    np.testing.assert_allclose(mean_bandwidth(*pairs).asnumpy(), [26 / 12], rtol=1e-6)


def test_the_mmd_does_not_change_with_the_scale():
    rows = equations.modality_batch(2, 3, 4, seed=5)
    loss = ModalityAlignmentLoss(3)
    small, _ = value_and_gradient(loss, rows / 64)
    large, _ = value_and_gradient(loss, rows * 64)
    np.testing.assert_allclose(large, small, rtol=1e-5)  # the floor of the bandwidth, 1e-9, and kernels of up to 5


def test_without_bridge_the_auxiliary_modality_does_not_matter():
    rows = equations.modality_batch(2, 3, 4, seed=5)
    loss = ModalityAlignmentLoss(3, bridge=False)
    value, gradient = value_and_gradient(loss, rows)
    rows[2] = 0
    other, _ = value_and_gradient(loss, rows)
    assert other == value
    assert not gradient[2].any()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_identity_consistency_is_the_equation(scale):
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.permutation(7)[:3], 2).astype(np.int32)
    logits = (scale * rng.normal(size=(2, 6, 7))).astype(np.float32)
    loss = IdentityConsistencyLoss()
    function = lambda both: loss(both[0], both[1], ms.Tensor(labels))  # noqa: E731
    value, gradient = ms.value_and_grad(function)(ms.Tensor(logits))
    exact = logits.astype(np.float64)
    expected = equations.identity_consistency(*exact, labels)
    cases.assert_close(value.asnumpy(), expected, cases.VALUE_TOLERANCE, expected, "value")
    slope = equations.numeric_gradient(lambda both: equations.identity_consistency(*both, labels), exact)
    cases.assert_close(gradient.asnumpy(), slope, cases.GRADIENT_TOLERANCE, np.abs(slope).max(), "gradient")
    jit_value, jit_gradient = ms.jit(ms.value_and_grad(function))(ms.Tensor(logits))
    cases.assert_close(jit_value.asnumpy(), value.asnumpy(), 1e-6, expected, "value")
    cases.assert_close(jit_gradient.asnumpy(), gradient.asnumpy(), 1e-6, 1.0, "gradient")


def test_identity_consistency_of_undecided_classifiers():
    # Both give each of four identities 1/4: 2 ln 4 = 2.772589.
    logits = ms.ops.zeros((4, 4))
    value = IdentityConsistencyLoss()(logits, logits, ms.Tensor([0, 0, 3, 3], ms.int32))
    np.testing.assert_allclose(value.asnumpy(), 2.772589, rtol=1e-6)  # float32 rounding
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
        IdentityConsistencyLoss()(logits, logits, ms.Tensor([0, 0, 3], ms.int32))


@pytest.mark.parametrize("instances", [0, 1.5])
def test_a_wrong_number_of_instances_raises(instances):
    for build_loss in (IdentityAlignmentLoss, ModalityAlignmentLoss):
        with pytest.raises(ValueError, match=f"num_instances must be an integer >= 1, not {instances}"):
            build_loss(instances)


def test_a_wrong_margin_or_reduction_raises():
    with pytest.raises(ValueError, match=r"margin must be a finite number >= 0, not -0\.3"):
        IdentityAlignmentLoss(4, -0.3)
    with pytest.raises(ValueError, match="reduction must be one of sum, mean, not 'max'"):
        IdentityAlignmentLoss(4, reduction="max")

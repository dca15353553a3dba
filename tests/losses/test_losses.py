"""What the ladder does not ask of the losses: batches worked by hand, other types and scales, ties, refusals.

The ladder compares each loss with the float64 loop of its equation and with the mirror (`parity/rungs/losses.py`).
"""

from functools import partial

import mindspore as ms
import numpy as np
import pytest

from ms_vireid import losses
from ms_vireid.command.errors import InputError
from ms_vireid.losses import (
    DiscriminativeCenterLoss,
    EnhancedSquaredDifferenceLoss,
    HardTripletLoss,
    HeteroCenterTripletLoss,
    IdentityAlignmentLoss,
    IdentityConsistencyLoss,
    IdentityLoss,
    ModalityAlignmentLoss,
    ModalitySharedEnhancementLoss,
    ProgressiveHardTripletLoss,
    WeightedRegularizedTripletLoss,
)
from ms_vireid.losses.mmd import squared_mmd
from parity import equations

TOLERANCE = 3e-6  # of the value: distances up to 20 times the result are subtracted in float32
PAIRS = np.int32([0, 1, 0, 1])  # K = 1
TWO = np.int32([0, 0, 1, 1, 0, 0, 1, 1])  # K = 2


def column(*values):
    """Features of one number each."""
    return np.float32(values)[:, None]


def of_modalities(loss):
    """A loss of visible, infrared and auxiliary rows as one of rows [3PK, C] and labels that it does not want."""

    def of_rows(rows, _labels):
        visible, infrared, auxiliary = rows.reshape(3, -1, rows.shape[1])
        return loss(visible, infrared, auxiliary)

    return of_rows


def value_and_gradient(loss, features, labels, *extra):
    """A float32 scalar and the gradient, both finite."""
    value, gradient = ms.value_and_grad(loss)(ms.Tensor(features), ms.Tensor(labels), *extra)
    assert (value.dtype, value.shape, gradient.shape) == (ms.float32, (), features.shape)
    value, gradient = value.asnumpy(), gradient.asnumpy()
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    return value, gradient


def flat(make):
    """A batch of modalities [3, PK, C] as rows [3PK, C] and labels."""

    def made(*arguments, **keywords):
        rows = make(*arguments, **keywords)
        return rows.reshape(-1, rows.shape[2]), np.zeros(2 * rows.shape[1], np.int32)

    return made


def every_loss():
    """By name: build(K), arguments, the equation(rows, labels, K), a maker of batches. Those of modalities as losses of
    their rows one after another."""
    for name, loss in equations.LOSSES.items():
        loop = lambda rows, labels, _k, loss=loss: loss.loop(rows, labels)  # noqa: E731
        yield name, (partial(loss.build, losses), loss.extra, loop, equations.random_batch)
    for name, loss in equations.MODALITY_LOSSES.items():
        build = lambda k, loss=loss: of_modalities(loss.build(losses, k))  # noqa: E731
        loop = lambda rows, _labels, k, loss=loss: loss.loop(rows.reshape(3, -1, rows.shape[1]), k)  # noqa: E731
        yield name, (build, (), loop, flat(equations.modality_batch))


EVERY = dict(every_loss())


@pytest.fixture(params=EVERY)
def every(request):
    return EVERY[request.param]


def test_half_precision_features_are_computed_in_float32(every):
    build, extra, loop, batch = every
    half, labels = batch(3, 2, 4, seed=10)
    half = half.astype(np.float16)
    value, _ = value_and_gradient(build(2), half, labels, *extra)
    assert value == pytest.approx(loop(half.astype(np.float64), labels, 2), rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("gap", [1e-20, 1e-10, 1e-5, 1e-3, 1e3, 1e10])
def test_rows_of_any_distance_have_a_finite_gradient(every, gap):
    build, extra, *_ = every
    features = np.zeros((12, 2), np.float32)
    features[:, 0] = gap * np.random.default_rng(0).normal(size=12)
    value_and_gradient(build(2), features, np.tile(np.repeat(np.int32([0, 1, 2]), 2), 2), *extra)


# Batches at the limits of an equation, worked by hand: loss, features, labels, arguments, value, and gradient or None.
SPREAD = column(0, 3, 1, 5)  # visible 0 and 3, infrared 1 and 5
BY_HAND = {
    # Only the anchor 3 is at its bracket's edge, 2 - 2 = 0, and none is over.
    "no margin": (HardTripletLoss(0.0), SPREAD, PAIRS, (), 0, None),
    # The anchor 0 has negatives at -2 and +2, itself as positive: 0 - 2 + 5. The row -2: negative 0, positive +2:
    # 4 - 2 + 5; likewise +2. Slopes of row -2: own bracket -1 + 1, +1/2 from the anchor 0, -1 from +2: -1/2, over 3.
    "tied negatives": (HardTripletLoss(5.0), column(0, -2, 2), np.int32([0, 1, 1]), (), 17 / 3, [0, -1 / 6, 1 / 6]),
    # The anchors' only positive is 10 away, their negatives about 0: the square 100 counts as 88, and has no slope.
    "esd, largest": (EnhancedSquaredDifferenceLoss(), column(0, 0, 10, 10), PAIRS, (), 88, [0, 0, 0, 0]),
    # Two visible rows coincide: their distance 0 still counts among the K - 1 = 2. Visible 0, 0, 3; infrared 1, 1, 1.
    # 0: 3/2, 1, 1/4, twice; 3: 3, 2, 1; infrared: 0, (1 + 1 + 2)/3, 16/9, thrice.
    "msel, equal rows": (
        ModalitySharedEnhancementLoss(3), column(0, 0, 3, 1, 1, 1), np.zeros(6, np.int32), (),
        (0.5 + 1 + 16 / 3) / 6, None,
    ),
    # Centres 0, 2, 2 and mean distances 0, 1, 0. Negatives of 0: 1, 3, 2, 2, mean 2, nearer only 1: one as far as the
    # mean is not; of identity 1's 2: 2, 2, 0, 0, nearer 0; of identity 2's: 2, 2, 1, 1, nearer 1.
    "dcl, as far as the mean": (
        DiscriminativeCenterLoss(1), column(0, 1, 2, 0, 3, 2), np.int32([0, 1, 2, 0, 1, 2]), (), 1 / 2, None,
    ),
    # Centres 0 and (0, 4, 0), mean distances 1 and 3; negatives of 0 all at 5, of (0, 4, 0) all at 4.1231056: none is
    # nearer than their mean, and all count.
    "dcl, none nearer": (
        DiscriminativeCenterLoss(1), np.float32([[-1, 0, 0], [0, 4, -3], [1, 0, 0], [0, 4, 3]]), PAIRS, (),
        4 / 9.1231056, None,
    ),
    # Centre 0, mean distance 1; its negatives (0, 5) and (3, 4) are both 5 away: all, 5. Centre (1.5, 4.5), mean
    # distance sqrt(2.5); negatives sqrt(26.5) and sqrt(20.5), the nearer: each centre falls back by itself.
    "dcl, one of two": (
        DiscriminativeCenterLoss(1), np.float32([[-1, 0], [0, 5], [1, 0], [3, 4]]), PAIRS, (),
        2.5811388 / 9.5276926, None,
    ),
    # (0, 0) twice, and (4, 3), (4, -3) with the centre (4, 0): numerator 0 + 3, denominator 5 + 4, each of two equal
    # distances. Slopes of the numerator: (4, 3): (0, 1/2). Of the denominator: (4, 3): half of (4/5, 3/5), and (1/2, 0)
    # through its centre; (0, 0): (-0.4, 0) through its centre, half of (-1, 0) as a negative. n'/9 - 3 d'/81.
    "dcl, tied negatives": (
        DiscriminativeCenterLoss(1, "hard"), np.float32([[0, 0], [4, 3], [0, 0], [4, -3]]), PAIRS, (),
        1 / 3, [[1 / 30, 0], [-1 / 30, 2 / 45], [1 / 30, 0], [-1 / 30, -2 / 45]],
    ),
    # Both identities are -1, 0 | 0, 1 with the centre 0, on which the nearest negative lies: 1 / 0 is defined as 0.
    "dcl, negatives on centres": (
        DiscriminativeCenterLoss(2, "hard"), column(-1, 0, -1, 0, 0, 1, 0, 1), TWO, (), 0, np.zeros(8),
    ),
    # Identity 0 at 0 and 0.1, its nearest negative the misplaced infrared centre of identity 1, at 0: 0.55 + 0.1 - 0.
    # Identity 1: its own infrared centre is 10 away, the nearest negative 9.9: 0.55 + 10 - 9.9.
    "ia, misplaced": (of_modalities(IdentityAlignmentLoss(1)), column(0, 10, 0.1, 0, 0, 10), PAIRS, (), 1.3, None),
    # Both at home: 0.55 + 0.1 - 10 and 0.55 + 0 - 9.9 are clipped, each by itself.
    "ia, clipped": (
        of_modalities(IdentityAlignmentLoss(1)), column(0, 10, 0.1, 10, 0, 10), PAIRS, (), 0, np.zeros(6),
    ),
    # a0 = 0, its positives at -1 and 1 share: v0 -1/2, r0 1/2; likewise v1, r1. Negatives: a0 to v1 100 (a0 +1, v1 -1);
    # a1 to r0 100 (a1 -1, r0 +1).
    "ia, tied positives": (
        of_modalities(IdentityAlignmentLoss(1, margin=200.0)), column(-1, 100, 1, 102, 0, 101), PAIRS, (),
        2 * (200 + 1 - 100), [-0.5, -1.5, 1.5, 0.5, 1, -1],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "features", "labels", "extra", "expected", "slope"), BY_HAND.values(), ids=BY_HAND)
def test_batches_worked_by_hand(loss, features, labels, extra, expected, slope):
    value, gradient = value_and_gradient(loss, features, labels, *extra)
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-7)  # float32 rounding
    if slope is not None:
        np.testing.assert_allclose(gradient, np.reshape(slope, features.shape), rtol=1e-6, atol=1e-7)


def test_where_no_negative_is_nearer_the_gradient_is_that_of_all_of_them():
    _, features, labels, *_ = BY_HAND["dcl, none nearer"]
    found, expected = (
        value_and_gradient(DiscriminativeCenterLoss(1, negatives), features, labels)[1]
        for negatives in ("dynamic", "all")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_descent_by_the_releases_vanishing_weights_takes_identities_towards_each_other():
    _, gradient = value_and_gradient(WeightedRegularizedTripletLoss(), column(0, 20, 0, 20), PAIRS)
    assert gradient[0] < 0 < gradient[1]


# What does not change a loss, or changes it in a known way.


@pytest.mark.parametrize("negatives", ["dynamic", "hard", "all"])
def test_dcls_ratio_does_not_change_with_the_scale(negatives):
    features, labels = equations.random_batch(3, 2, 4, seed=14)
    small, large = (
        value_and_gradient(DiscriminativeCenterLoss(2, negatives), features * scale, labels)[0]
        for scale in np.float32([1 / 1024, 1024])
    )
    assert large == pytest.approx(small, rel=1e-6)  # powers of two change no digit but at the square roots


def test_mmd_does_not_change_with_the_scale():
    features, labels = flat(equations.modality_batch)(2, 3, 4, seed=5)
    loss = of_modalities(ModalityAlignmentLoss(3))
    small, large = (value_and_gradient(loss, features * scale, labels)[0] for scale in np.float32([1 / 64, 64]))
    assert large == pytest.approx(small, rel=1e-5)  # the floor of the bandwidth, 1e-9, and kernels of up to 5


def test_msel_does_not_recognise_itself_by_a_small_distance():
    # Distances of 1e-9 count as much as others: the loss is quadratic in the features' scale, a power of two.
    features, labels = equations.random_batch(2, 3, 4, seed=15)
    value, small = (
        value_and_gradient(ModalitySharedEnhancementLoss(3), features * scale, labels)[0]
        for scale in np.float32([1, 2**-30])
    )
    assert small * 2.0**60 == pytest.approx(value, rel=1e-6)


def test_squared_mmd_by_hand():
    # x = {0}, y = {2}: d^2 = 4, b = 4 / 4 = 1. Kernels of 0: 5; of 4: e^-4 + e^-2 + e^-1 + e^-1/2 + e^-1/4 = 1.9068618;
    # 5 + 5 - 2 * 1.9068618.
    x, y = ms.Tensor(np.float32([[[0.0]]])), ms.Tensor(np.float32([[[2.0]]]))
    np.testing.assert_allclose(squared_mmd(x, y).asnumpy(), [6.1862764], rtol=1e-6)
    # Equal sets, in another order, are 0 apart, and a set may have more rows than the other.
    sets = ms.Tensor(np.float32([[[0.0], [1.0]], [[5.0], [7.0]]]))
    for other in (sets[:, ::-1], ms.ops.concat((sets, sets), axis=1)):
        np.testing.assert_allclose(squared_mmd(sets, other).asnumpy(), [0, 0], rtol=0, atol=2e-6)  # kernels of up to 5


def test_a_graph_takes_thousands_of_identities():
    # Of more than some 700, MindSpore's compiler once found no end.
    logits = np.random.default_rng(0).normal(size=(8, 2000)).astype(np.float32)
    labels = np.int32([4, 4, 1, 1, 4, 4, 1, 1])
    value, gradient = ms.jit(ms.value_and_grad(IdentityLoss()))(ms.Tensor(logits), ms.Tensor(labels))
    assert float(value) == pytest.approx(equations.identity_loss(logits.astype(np.float64), labels), rel=TOLERANCE)
    assert np.isfinite(gradient.asnumpy()).all()


# Refusals.

ROWS, LABELS = np.zeros((8, 2), np.float32), TWO
WRONG = [
    ("num_instances 0: must be a whole number >= 1", lambda: HeteroCenterTripletLoss(0, 0.3)),
    ("num_instances '4': must be a whole number >= 1", lambda: HeteroCenterTripletLoss("4", 0.3)),
    ("num_instances -4: must be a whole number >= 1", lambda: DiscriminativeCenterLoss(-4)),
    (r"num_instances 1\.5: must be a whole number >= 1", lambda: IdentityAlignmentLoss(1.5)),
    ("num_instances -1: must be a whole number >= 1", lambda: ModalityAlignmentLoss(-1)),
    ("num_instances 1: must be a whole number >= 2", lambda: ModalitySharedEnhancementLoss(1)),
    (r"margin -0\.1: must be a number >= 0", lambda: HardTripletLoss(-0.1)),
    ("margin nan: must be a number >= 0", lambda: ProgressiveHardTripletLoss(float("nan"))),
    ("margin inf: must be a number >= 0", lambda: HeteroCenterTripletLoss(4, float("inf"))),
    (r"margin -0\.3: must be a number >= 0", lambda: IdentityAlignmentLoss(4, -0.3)),
    ("reduction 'max': must be one of mean, sum", lambda: ProgressiveHardTripletLoss(0.1, reduction="max")),
    ("reduction 'max': must be one of sum, mean", lambda: IdentityAlignmentLoss(4, reduction="max")),
    ("weights 'paper': must be one of released, softmax", lambda: WeightedRegularizedTripletLoss("paper")),
    ("distance 'x': must be one of euclidean, cosine", lambda: ModalitySharedEnhancementLoss(4, distance="x")),
    ("negatives 'x': must be one of dynamic, hard, all", lambda: DiscriminativeCenterLoss(4, negatives="x")),
    ("num_instances True: must be a whole number", lambda: DiscriminativeCenterLoss(True)),
    ("num_instances .*: must be a whole number", lambda: DiscriminativeCenterLoss(np.array(4))),
    ("margin .*: must be a number", lambda: HardTripletLoss("0.3")),
    ("margin None: must be a number", lambda: HardTripletLoss(None)),
    ("bridge 'no': must be True or False", lambda: ModalityAlignmentLoss(4, bridge="no")),
]
UNFIT = [
    ("stage must be 1 or 2, not 3", lambda: called(ProgressiveHardTripletLoss(0.1), ROWS, LABELS, 3)),
    ("positive multiple of 2, not 3", lambda: called(ProgressiveHardTripletLoss(0.1), ROWS[:3], LABELS[:3], 1)),
    ("positive multiple of 2, not 5", lambda: called(IdentityLoss(), ROWS[:5], LABELS[:5])),
    ("positive multiple of 6, not 8", lambda: called(HeteroCenterTripletLoss(3, 0.3), ROWS, LABELS)),
    ("positive multiple of 6, not 8", lambda: called(ModalitySharedEnhancementLoss(3), ROWS, LABELS)),
    ("positive multiple of 6, not 8", lambda: called(DiscriminativeCenterLoss(3), ROWS, LABELS)),
    (r"labels must have shape \(8,\) .*, not \(7,\)", lambda: called(HardTripletLoss(0.1), ROWS, LABELS[:7])),
    (r"labels must have shape \(8,\)", lambda: called(IdentityConsistencyLoss(), ROWS, ROWS, LABELS[:7])),
    (r"one shape, not \(8, 2\), \(8, 2\), \(4, 2\)", lambda: called(IdentityAlignmentLoss(2), ROWS, ROWS, ROWS[:4])),
    ("positive multiple of 2, not 7", lambda: called(ModalityAlignmentLoss(2), ROWS[:7], ROWS[:7], ROWS[:7])),
]


def called(loss, *arguments):
    return loss(*(ms.Tensor(value) if isinstance(value, np.ndarray) else value for value in arguments))


@pytest.mark.parametrize(("message", "wrong"), WRONG)
def test_wrong_arguments_are_input_errors(message, wrong):
    with pytest.raises(InputError, match=message):
        wrong()


@pytest.mark.parametrize(("message", "wrong"), UNFIT)
def test_rows_that_do_not_fit_raise(message, wrong):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_numbers_of_numpy_are_numbers():
    alike = [HeteroCenterTripletLoss(*given) for given in ((2, 0.5), (np.int64(2), np.float32(0.5)))]
    assert vars(alike[0])["num_instances"] == vars(alike[1])["num_instances"] == 2
    assert [type(loss.num_instances) for loss in alike] == [int, int]
    assert called(alike[0], ROWS, LABELS) == called(alike[1], ROWS, LABELS)

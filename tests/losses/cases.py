"""The losses under test beside their float64 loops, the batches they are tested on, and how results are compared."""

from functools import partial
from typing import NamedTuple

import mindspore as ms
import numpy as np

from ms_vireid import losses

from . import reference

# Relative to the value: float32 rounds a distance by about 1e-7 of itself, and the losses subtract distances that are
# up to 20 times as large as the result. Worst seen: 7e-7.
VALUE_TOLERANCE = 3e-6
# Relative to the gradient's largest entry: rounding as above, amplified in the batch whose infrared half is far away,
# where distances of 200 make gradients that almost cancel (worst seen there 1e-5, elsewhere 7e-7). The central
# differences themselves are wrong by less than 1e-6.
GRADIENT_TOLERANCE = 3e-5


class Case(NamedTuple):
    """A loss, its arguments after features and labels, and the float64 loop (features, labels) -> value."""

    build: callable  # num_instances -> Cell
    extra: tuple
    loop: callable


CASES = {
    "hard triplet": Case(lambda k: losses.HardTripletLoss(0.3), (), partial(reference.hard_triplet, margin=0.3)),
    "intra": Case(
        lambda k: losses.ProgressiveHardTripletLoss(0.1),
        (1,),
        partial(reference.progressive_triplet, stage=1, margin=0.1),
    ),
    "global": Case(
        lambda k: losses.ProgressiveHardTripletLoss(0.1),
        (2,),
        partial(reference.progressive_triplet, stage=2, margin=0.1),
    ),
    "intra sum": Case(
        lambda k: losses.ProgressiveHardTripletLoss(0.1, "sum"),
        (1,),
        partial(reference.progressive_triplet, stage=1, margin=0.1, reduce=sum),
    ),
    "global sum": Case(
        lambda k: losses.ProgressiveHardTripletLoss(0.1, reduction="sum"),
        (2,),
        partial(reference.progressive_triplet, stage=2, margin=0.1, reduce=sum),
    ),
    "wrt": Case(lambda k: losses.WeightedRegularizedTripletLoss(), (), reference.weighted_regularized_triplet),
    "hct": Case(
        lambda k: losses.HeteroCenterTripletLoss(k, 0.3), (), partial(reference.hetero_center_triplet, margin=0.3)
    ),
    "msel": Case(lambda k: losses.ModalitySharedEnhancementLoss(k), (), reference.msel),
    "msel cosine": Case(
        lambda k: losses.ModalitySharedEnhancementLoss(k, distance="cosine"),
        (),
        partial(reference.msel, distance=reference.cosine),
    ),
    "dcl dynamic": Case(lambda k: losses.DiscriminativeCenterLoss(k), (), reference.dcl),
    "dcl hard": Case(
        lambda k: losses.DiscriminativeCenterLoss(k, "hard"), (), partial(reference.dcl, negatives="hard")
    ),
    "dcl all": Case(
        lambda k: losses.DiscriminativeCenterLoss(k, negatives="all"), (), partial(reference.dcl, negatives="all")
    ),
}


def batch_labels(identities, instances):
    """Labels [2PK] of a batch: the same identities in both halves, not sorted and not dense."""
    return np.tile(np.repeat(np.arange(identities)[::-1] * 3 + 1, instances), 2).astype(np.int32)


def random_batch(identities, instances, width, seed=0, identity_spread=1.0, modality_shift=1.0):
    """Features float32 [2PK, C] whose identities differ, overlap a little, and whose infrared half is shifted."""
    rng = np.random.default_rng(seed)
    labels = batch_labels(identities, instances)
    identities = identity_spread * rng.normal(size=(labels.max() + 1, width))
    features = identities[labels] + 0.7 * rng.normal(size=(len(labels), width))
    features[len(labels) // 2 :] += modality_shift * rng.normal(size=width)
    return features.astype(np.float32), labels


def one_identity_equal_batch():
    """One identity's rows are all the same, to the last bit, at a place where sums of them are rounded."""
    features, labels = random_batch(3, 3, 4, seed=5)
    features[labels == 1] = features[labels == 1][0]
    return features, labels


def identical_batch(identities=2, instances=3):
    """All rows the same; 0.1 and six rows: a plain mean of them would be rounded off the row itself."""
    labels = batch_labels(identities, instances)
    return np.tile(np.array([0.1, -0.7, 1.3], np.float32), (len(labels), 1)), labels


BATCHES = {
    "two identities, K = 2": lambda: random_batch(2, 2, 3, seed=1),
    "three identities, K = 2": lambda: random_batch(3, 2, 5, seed=2),
    "four identities, K = 3": lambda: random_batch(4, 3, 4, seed=3),
    "two identities, K = 4": lambda: random_batch(2, 4, 6, seed=4),
    "infrared shifted far": lambda: random_batch(3, 2, 4, seed=6, modality_shift=100.0),
    "one identity's rows equal": one_identity_equal_batch,
}


def instances_of(labels):
    """K of a batch."""
    return int((labels == labels[0]).sum()) // 2


def value_and_gradient(loss, features, labels, *extra):
    """A loss's value (a float32 scalar tensor is asserted) and its gradient as numpy arrays."""
    value, gradient = ms.value_and_grad(loss)(ms.Tensor(features), ms.Tensor(labels), *extra)
    assert value.dtype == ms.float32
    assert value.shape == ()
    assert gradient.shape == features.shape
    return value.asnumpy(), gradient.asnumpy()


def assert_close(actual, expected, tolerance, scale, what):
    """Finite first, then the largest error relative to `scale`."""
    assert np.isfinite(actual).all(), f"{what} is not finite: {actual}"
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f"{what}: error {error:.2e} over {tolerance:.0e}\n{actual}\n{expected}"


def assert_matches(loss, extra, loop, features, labels, gradient_loop=None):
    """Value and gradient of `loss` against float64 `loop`; `gradient_loop` replaces it where `loop` has a kink."""
    exact = features.astype(np.float64)
    value, gradient = value_and_gradient(loss, features, labels, *extra)
    expected = loop(exact, labels)
    assert_close(value, expected, VALUE_TOLERANCE, abs(expected) or 1.0, "value")

    smooth = gradient_loop or loop
    expected_gradient = reference.numeric_gradient(lambda x: smooth(x, labels), exact)
    scale = np.abs(expected_gradient).max() or 1.0
    assert_close(gradient, expected_gradient, GRADIENT_TOLERANCE, scale, "gradient")

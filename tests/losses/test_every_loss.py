"""What holds for every loss of features: the equations' values and gradients, degenerate batches, jit, precision."""

import mindspore as ms
import numpy as np
import pytest

from parity import equations

from . import cases

EVERY_LOSS = pytest.mark.parametrize("case", cases.CASES.values(), ids=cases.CASES.keys())


@EVERY_LOSS
@pytest.mark.parametrize("batch", equations.BATCHES.values(), ids=equations.BATCHES.keys())
def test_value_and_gradient_are_the_equations(case, batch):
    features, labels = batch()
    cases.assert_matches(case.build(equations.instances_of(labels)), case.extra, case.loop, features, labels)


@EVERY_LOSS
def test_the_papers_batch_size_and_width(case):
    # 64 x 768 is too large to difference entry by entry: the derivative along the gradient is its norm, and one along
    # a random direction sees entries that the gradient leaves out.
    features, labels = equations.random_batch(8, 4, 768, seed=7, identity_spread=0.1, modality_shift=0.2)
    value, gradient = cases.value_and_gradient(case.build(4), features, labels, *case.extra)
    exact = features.astype(np.float64)
    cases.assert_close(value, case.loop(exact, labels), cases.VALUE_TOLERANCE, abs(value) or 1.0, "value")

    norm = np.linalg.norm(gradient.astype(np.float64))
    assert norm > 0
    for direction in (gradient.astype(np.float64), np.random.default_rng(0).normal(size=exact.shape)):
        direction /= np.linalg.norm(direction)
        step = 1e-4 * direction  # a longer step than for one entry: the same change is spread over 49,152 of them
        derivative = (case.loop(exact + step, labels) - case.loop(exact - step, labels)) / 2e-4
        cases.assert_close((gradient * direction).sum(), derivative, cases.GRADIENT_TOLERANCE, norm, "derivative")


@EVERY_LOSS
def test_identical_features_give_the_defined_value_and_no_gradient(case):
    features, labels = equations.identical_batch()
    value, gradient = cases.value_and_gradient(case.build(3), features, labels, *case.extra)
    # Distances are exactly 0, cosine distances 0 up to float32's rounding of a unit row's square.
    expected = case.loop(features.astype(np.float64), labels)
    cases.assert_close(value, expected, 1e-6, 1.0, "value")
    cases.assert_close(gradient, 0.0, 1e-6, 1.0, "gradient")


@EVERY_LOSS
def test_a_batch_of_one_identity_is_finite(case):
    features, labels = equations.random_batch(1, 3, 4, seed=8)
    value, gradient = cases.value_and_gradient(case.build(3), features, labels, *case.extra)
    expected = case.loop(features.astype(np.float64), labels)  # 0 for every loss that needs a negative
    cases.assert_close(value, expected, cases.VALUE_TOLERANCE, abs(expected) or 1.0, "value")
    assert np.isfinite(gradient).all()
    if expected == 0:
        assert not gradient.any()


@EVERY_LOSS
def test_jit_agrees_with_pynative(case):
    loss = case.build(3)
    compiled = ms.jit(ms.value_and_grad(loss))
    for features, labels in (equations.random_batch(2, 3, 3, seed=9), equations.identical_batch()):
        value, gradient = cases.value_and_gradient(loss, features, labels, *case.extra)
        jit_value, jit_gradient = compiled(ms.Tensor(features), ms.Tensor(labels), *case.extra)
        # The same kernels on the same numbers; only sums of several gradients may be taken in another order.
        cases.assert_close(jit_value.asnumpy(), value, 1e-6, abs(value) or 1.0, "value")
        cases.assert_close(jit_gradient.asnumpy(), gradient, 1e-6, np.abs(gradient).max() or 1.0, "gradient")


@EVERY_LOSS
def test_half_precision_features_are_computed_in_float32(case):
    features, labels = equations.random_batch(3, 2, 4, seed=10)
    half = features.astype(np.float16)
    value, _ = cases.value_and_gradient(case.build(2), half, labels, *case.extra)
    expected = case.loop(half.astype(np.float64), labels)
    cases.assert_close(value, expected, cases.VALUE_TOLERANCE, abs(expected) or 1.0, "value")


@EVERY_LOSS
def test_labels_must_match_the_features(case):
    features, labels = equations.random_batch(2, 2, 3)
    with pytest.raises(ValueError, match=r"labels must have shape \(8,\)"):
        case.build(2)(ms.Tensor(features), ms.Tensor(labels[:-1]), *case.extra)


def test_central_differences_see_a_planted_error():
    features, labels = equations.random_batch(2, 2, 3, seed=1)
    case = cases.CASES["msel"]
    with pytest.raises(AssertionError, match="value: error"):
        cases.assert_matches(case.build(2), (), lambda x, y: 1.001 * equations.msel(x, y), features, labels)
    with pytest.raises(AssertionError, match="gradient: error"):
        cases.assert_matches(
            case.build(2), (), equations.msel, features, labels, lambda x, y: 1.001 * equations.msel(x, y)
        )

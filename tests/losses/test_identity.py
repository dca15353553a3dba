"""IdentityLoss."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import IdentityLoss
from parity import equations

from . import cases


def test_equal_logits_cost_the_logarithm_of_the_number_of_identities_in_each_modality():
    # Every identity has probability 1/4: ln 4 + ln 4 = 2.772589.
    value, gradient = cases.value_and_gradient(IdentityLoss(), np.zeros((4, 4), np.float32), np.int32([0, 3, 0, 3]))
    np.testing.assert_allclose(value, 2.772589, rtol=1e-6)  # float32 rounding
    # (probability - target) / 2 rows in the half: -0.375 on the target, 0.125 elsewhere.
    np.testing.assert_allclose(gradient[1], [0.125, 0.125, 0.125, -0.375], rtol=1e-6)


def test_each_half_has_its_own_mean():
    # Visible rows certain and right: 0. Infrared rows undecided between two: ln 2 = 0.6931472 in the mean, not half.
    logits = np.array([[50, 0], [0, 50], [0, 0], [0, 0]], np.float32)
    value, _ = cases.value_and_gradient(IdentityLoss(), logits, np.int32([0, 1, 0, 1]))
    np.testing.assert_allclose(value, 0.6931472, rtol=1e-6)  # float32 rounding


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("identities", "instances", "classes"), [(2, 2, 5), (3, 2, 9), (4, 3, 11)])
def test_value_and_gradient_are_the_equation(identities, instances, classes, scale):
    rng = np.random.default_rng(classes)
    labels = np.tile(np.repeat(rng.permutation(classes)[:identities], instances), 2).astype(np.int32)
    logits = (scale * rng.normal(size=(len(labels), classes))).astype(np.float32)
    cases.assert_matches(IdentityLoss(), (), equations.identity_loss, logits, labels)


@pytest.mark.parametrize("classes", [5, 2000])  # of more than some 700, a graph once found no end
def test_jit_agrees_with_pynative(classes):
    logits = np.random.default_rng(0).normal(size=(8, classes)).astype(np.float32)
    labels = np.int32([4, 4, 1, 1, 4, 4, 1, 1])
    value, gradient = cases.value_and_gradient(IdentityLoss(), logits, labels)
    compiled = ms.jit(ms.value_and_grad(IdentityLoss()))
    jit_value, jit_gradient = compiled(ms.Tensor(logits), ms.Tensor(labels))
    np.testing.assert_allclose(jit_value.asnumpy(), value, rtol=1e-6)  # the same kernels on the same numbers
    np.testing.assert_allclose(jit_gradient.asnumpy(), gradient, rtol=0, atol=1e-6)


def test_half_precision_logits_are_computed_in_float32():
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float16)
    value, _ = cases.value_and_gradient(IdentityLoss(), logits, np.int32([0, 1, 0, 1]))
    expected = equations.identity_loss(logits.astype(np.float64), [0, 1, 0, 1])
    np.testing.assert_allclose(value, expected, rtol=cases.VALUE_TOLERANCE)


def test_rows_that_cannot_be_halved_raise():
    with pytest.raises(ValueError, match="positive multiple of 2, not 3"):
        IdentityLoss()(ms.ops.zeros((3, 4)), ms.Tensor([0, 1, 0], ms.int32))

"""The losses under test, and how their results are compared with the float64 loops."""

from functools import partial

import mindspore as ms
import numpy as np

from ms_vireid import losses
from parity import equations

# Relative to the value: float32 rounds a distance by about 1e-7 of itself, and the losses subtract distances that are
# up to 20 times as large as the result. Worst seen: 7e-7.
VALUE_TOLERANCE = 3e-6
# Relative to the gradient's largest entry: rounding as above, amplified in the batch whose infrared half is far away,
# where distances of 200 make gradients that almost cancel (worst seen there 1e-5, elsewhere 7e-7). The central
# differences themselves are wrong by less than 1e-6.
GRADIENT_TOLERANCE = 3e-5


CASES = {
    name: loss._replace(build=partial(loss.build, losses))  # num_instances -> Cell
    for name, loss in equations.LOSSES.items()
}


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
    expected_gradient = equations.numeric_gradient(lambda x: smooth(x, labels), exact)
    scale = np.abs(expected_gradient).max() or 1.0
    assert_close(gradient, expected_gradient, GRADIENT_TOLERANCE, scale, "gradient")

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_vireid.models import create_model
from ms_vireid.models.agw import NonLocal

SMALL = {"layers": (1, 2, 2, 1), "width": 8, "non_local": (0, 1, 2, 0)}


def images(count, size=(64, 32), seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


def small(**changes):
    ms.set_seed(0)
    return create_model("agw_resnet50", 5, **SMALL | changes)


def non_local_by_loop(cell, x):
    """z_i = W(sum_j theta(x_i) . phi(x_j) g(x_j) / L) + x_i, position by position, float64."""

    def apply(convolution, vector):
        weight = convolution.weight.asnumpy()[:, :, 0, 0].astype(np.float64)
        return weight @ vector + convolution.bias.asnumpy()

    norm = cell.W[1]
    scale = norm.gamma.asnumpy() / np.sqrt(norm.moving_variance.asnumpy().astype(np.float64) + 1e-5)
    z = np.empty(x.shape)
    rows, columns = x.shape[2:]
    positions = [(r, c) for r in range(rows) for c in range(columns)]
    for n in range(len(x)):
        for i in positions:
            y = 0.0
            for j in positions:
                f = apply(cell.theta, x[(n, slice(None), *i)]) @ apply(cell.phi, x[(n, slice(None), *j)])
                y = y + f / len(positions) * apply(cell.g, x[(n, slice(None), *j)])
            out = apply(cell.W[0], y)
            out = (out - norm.moving_mean.asnumpy()) * scale + norm.beta.asnumpy()
            z[(n, slice(None), *i)] = out + x[(n, slice(None), *i)]
    return z


@pytest.mark.parametrize("width", [1, 3])
def test_attention_is_the_loop_over_positions(width):
    cell = NonLocal(6, width)
    rng = np.random.default_rng(0)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(rng.uniform(0.1, 1.0, parameter.shape).astype(np.float32)))
    x = rng.standard_normal((2, 6, 3, 2)).astype(np.float32)
    # Values of about 50 in float32.
    assert cell(Tensor(x)).asnumpy() == pytest.approx(non_local_by_loop(cell, x), rel=1e-5, abs=1e-4)


def test_what_does_not_fit_is_refused():
    for message, wrong in (
        ("visible or infrared, not None", lambda: small()(Tensor(images(2)), None)),
        ("visible or infrared, not 'thermal'", lambda: small()(Tensor(images(2)), "thermal")),
        ("3", lambda: small().set_train()(Tensor(images(3)))),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()

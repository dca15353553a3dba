"""The CUDA kernels of losses, launched as by MindSpore, against float64."""

import numpy as np
import pytest

from tests.device.cuda_kernels import aligned, assert_close, empty, random


@pytest.mark.parametrize(
    ("sets", "n", "m", "columns"),
    [((), 1, 1, 1), ((), 7, 9, 211), ((), 64, 64, 32), ((3,), 4, 5, 7), ((2, 3), 3, 17, 260)],
)
def test_squared_distances(kernels, sets, n, m, columns):
    x, y = random(*sets, n, columns), random(*sets, m, columns, seed=1)
    found = empty(*sets, n, m)
    kernels("squared_distances", x, y, found)
    difference = x[..., :, None, :].astype(np.float64) - y[..., None, :, :]
    assert_close(found, (difference**2).sum(-1))

    gradient, grad_x, grad_y = random(*sets, n, m, seed=2), empty(*x.shape), empty(*y.shape)
    kernels("squared_distances_gradient", gradient, x, y, grad_x, grad_y)
    weighted = 2 * gradient[..., None] * difference
    assert_close(grad_x, weighted.sum(-2))
    assert_close(grad_y, -weighted.sum(-3))


def test_a_row_is_0_from_itself_and_as_far_there_as_back(kernels):
    x = random(9, 40)
    found = empty(9, 9)
    kernels("squared_distances", x, x, found)
    assert not found.diagonal().any()
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 9), (64, 64), (9, 211)])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["maxima", "minima"])
def test_extremes_over_a_mask(kernels, sign, rows, columns):
    values = aligned(np.round(random(rows, columns)))  # with equal ones
    mask = aligned(random(rows, columns, seed=1) > 0)
    mask[0] = False
    found = empty(rows)
    kernels("extremes", values, mask, found, sign=sign)
    chosen = [row[kept] for row, kept in zip(values, mask, strict=True)]
    of = max if sign > 0 else min
    np.testing.assert_array_equal(found, [of(row) if len(row) else 0 for row in chosen])

    gradient, grad_values = random(rows, seed=2), empty(rows, columns)
    kernels("extremes_gradient", gradient, values, mask, found, grad_values)
    extreme = mask & (values == found[:, None])
    assert_close(grad_values, extreme * gradient[:, None].astype(np.float64) / np.maximum(extreme.sum(1), 1)[:, None])


def test_an_extreme_that_is_no_number(kernels):
    values, mask = random(2, 40), aligned(np.ones((2, 40), bool))
    values[0, 7], values[1] = np.nan, -np.inf
    found = empty(2)
    kernels("extremes", values, mask, found, sign=1.0)
    np.testing.assert_array_equal(found, [np.nan, -np.inf])

"""The CUDA kernels of losses, launched as by MindSpore, against float64."""

import numpy as np
import pytest

from tests.device.cuda_kernels import aligned, assert_close, random

SHAPES = pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 9), (64, 64), (9, 211)])


@pytest.mark.parametrize(
    ("sets", "n", "m", "columns"),
    [((), 1, 1, 1), ((), 7, 9, 211), ((), 64, 64, 32), ((3,), 4, 5, 7), ((2, 3), 3, 17, 260)],
)
@pytest.mark.parametrize("root", [0, 1], ids=["squared", "root"])
def test_distances(kernels, root, sets, n, m, columns):
    x, y = random(*sets, n, columns), random(*sets, m, columns, seed=1)
    found = kernels("distances", x, y, root=root)
    difference = x[..., :, None, :].astype(np.float64) - y[..., None, :, :]
    squared = (difference**2).sum(-1)
    assert_close(found, np.sqrt(squared) if root else squared)

    gradient = random(*sets, n, m, seed=2)
    grad_x, grad_y = kernels("distances_gradient", gradient, x, y, found, root=root)
    scale = gradient / np.sqrt(squared) if root else 2 * gradient
    assert_close(grad_x, (scale[..., None] * difference).sum(-2))
    assert_close(grad_y, -(scale[..., None] * difference).sum(-3))


@pytest.mark.parametrize("root", [0, 1], ids=["squared", "root"])
def test_a_row_is_0_from_itself_and_as_far_there_as_back(kernels, root):
    x = random(9, 40)
    x[5] = x[4]
    found = kernels("distances", x, x, root=root)
    assert not found.diagonal().any()
    assert found[4, 5] == 0
    np.testing.assert_array_equal(found, found.T)

    assert np.isfinite(kernels("distances_gradient", random(9, 9, seed=2), x, x, found, root=root)).all()


def test_a_distance_below_normal_numbers_is_0_and_what_is_no_number_stays(kernels):
    x, y = aligned(np.float32([[1e-19], [2e-19], [np.nan], [np.inf]])), aligned(np.zeros((1, 1), np.float32))
    np.testing.assert_array_equal(kernels("distances", x, y, root=1)[:, 0], np.float32([0, 2e-19, np.nan, np.inf]))


def masked(rows, columns):
    """Values, some of them equal, and a mask: the first row has no entry in it, the last has all."""
    values, mask = aligned(np.round(2 * random(rows, columns)) / 2), aligned(random(rows, columns, seed=1) > 0)
    mask[-1], mask[0] = True, False
    return values, mask


@SHAPES
@pytest.mark.parametrize("nearer", [0, 1], ids=["all", "nearer"])
def test_masked_mean(kernels, nearer, rows, columns):
    values, mask = masked(rows, columns)
    values[rows // 2] = 1.5  # none is below the mean
    found, gradient = kernels("masked_mean", values, mask, nearer=nearer), random(rows, seed=2)
    grad_values = kernels("masked_mean_gradient", gradient, values, mask, nearer=nearer)
    for row in range(rows):
        chosen = mask[row]
        if nearer and (below := chosen & (values[row] < (values[row] * chosen).sum() / max(chosen.sum(), 1))).any():
            chosen = below
        count = max(chosen.sum(), 1)
        np.testing.assert_allclose(found[row], (values[row] * chosen).sum() / count, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(grad_values[row], chosen * gradient[row] / count, rtol=1e-6)


@SHAPES
def test_hinge(kernels, rows, columns):
    values, positive = masked(rows, columns)
    found, gradient = kernels("hinge", values, positive, margin=0.25), random(rows, seed=2)
    grad_values = kernels("hinge_gradient", gradient, values, positive, margin=0.25)
    some = False
    for row, of, chosen in zip(range(rows), values, positive, strict=True):
        furthest = of[chosen].max() if chosen.any() else 0
        nearest = of[~chosen].min() if not chosen.all() else np.inf
        expected = max(furthest - nearest + 0.25, 0)
        some |= expected > 0
        assert found[row] == expected
        shares = (chosen & (of == furthest)).astype(np.float64), (~chosen & (of == nearest)).astype(np.float64)
        furthest, nearest = (each / max(each.sum(), 1) for each in shares)
        np.testing.assert_allclose(grad_values[row], gradient[row] * (expected > 0) * (furthest - nearest), rtol=1e-6)
    assert some or columns == 1


def test_a_hinge_of_what_is_no_number_is_none(kernels):
    values, positive = random(3, 40), aligned(np.zeros((3, 40), bool))
    positive[:, :20] = True
    values[0, 7] = values[1, 33] = np.nan
    np.testing.assert_array_equal(np.isnan(kernels("hinge", values, positive, margin=0.5)), [True, True, False])


def slopes(function, values, step=1e-6):
    """Derivatives of the sums of rows that `function` returns, by differences: as `values`."""
    found = np.zeros_like(values)
    for place in np.ndindex(*values.shape):
        there, back = values.copy(), values.copy()
        there[place] += step
        back[place] -= step
        found[place] = (function(there) - function(back)).sum() / (2 * step)
    return found


@SHAPES
def test_weighted_pair(kernels, rows, columns):
    values, positive = aligned(np.abs(random(rows, columns)) * 3), masked(rows, columns)[1]
    gradient = random(2, rows, seed=2)

    def means(of):
        top = (of * positive).max(1, keepdims=True)
        weights = np.exp(of * positive - top) * positive, np.exp(-of) * ~positive
        return np.array([(of * weight).sum(1) / (weight.sum(1) + 0.1) for weight in weights])

    found, precise = kernels("weighted_pair", values, positive, eps=0.1), values.astype(np.float64)
    grad_values = kernels("weighted_pair_gradient", *map(aligned, gradient), values, positive, eps=0.1)
    np.testing.assert_allclose(found, means(precise), rtol=1e-5)
    np.testing.assert_allclose(grad_values, slopes(lambda of: means(of) * gradient, precise), rtol=1e-4, atol=1e-6)


def test_equal_furthest_positives_share_the_gradient_of_the_furthest(kernels):
    values, positive = aligned(np.full((1, 4), 2, np.float32)), aligned(np.ones((1, 4), bool))
    one, zero, mean = aligned(np.ones(1, np.float32)), aligned(np.zeros(1, np.float32)), 8 / 4.5
    grad_values = kernels("weighted_pair_gradient", one, zero, values, positive, eps=0.5)
    np.testing.assert_allclose(grad_values, np.full((1, 4), (3 - mean - mean * 0.5 / 4) / 4.5), rtol=1e-6)


@pytest.mark.parametrize(("sets", "n", "first"), [((), 2, 1), ((8,), 8, 4), ((2, 3), 11, 3)])
def test_mean_discrepancies(kernels, sets, n, first):
    rows = np.random.default_rng(3).normal(size=(*sets, n, 5))
    squared = ((rows[..., :, None, :] - rows[..., None, :, :]) ** 2).sum(-1)
    sides = np.array([1 / first] * first + [-1 / (n - first)] * (n - first))
    bandwidth = (squared.sum((-2, -1)) / (n * (n - 1)) / 4 + 1e-9)[..., None, None]

    def discrepancies(of):
        return (np.outer(sides, sides) * sum(np.exp(-of / (bandwidth * 2**k)) for k in range(5))).sum((-2, -1))

    given, numbers = aligned(squared.astype(np.float32)), {"first": first, "kernels": 5, "floor": 1e-9}
    found = kernels("mean_discrepancies", given, **numbers)
    np.testing.assert_allclose(found, discrepancies(squared), rtol=1e-5, atol=1e-6)

    gradient = np.asarray(random(*sets, seed=2), np.float32)
    grad_squared = kernels("mean_discrepancies_gradient", gradient, given, **numbers)
    weighted = slopes(lambda of: discrepancies(of) * gradient, squared)
    np.testing.assert_allclose(grad_squared, weighted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 2.0, 0.0), tuple(np.linspace(-1, 1, 16))], ids=len)
def test_weighted_sum(kernels, weights):
    terms, gradient = [random(1, seed=i) for i in range(len(weights))], random(1, seed=99)
    total = kernels("weighted_sum", *terms, weights=weights)
    assert_close(total, [np.dot(np.concatenate(terms).astype(np.float64), weights)])
    gradients = kernels("weighted_sum_gradient", gradient, weights=weights)
    assert_close(np.ravel(gradients), gradient * np.array(weights))


def test_losses_of_no_number_have_none(kernels):
    terms = [aligned(np.float32([value])) for value in (1, np.nan)]
    assert np.isnan(kernels("weighted_sum", *terms, weights=(1.0, 1.0))).all()

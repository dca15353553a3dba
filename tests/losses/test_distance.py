"""Distances and masked reductions: values, exactness, and the gradients where they have to be defined."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses.batch import group_centers
from ms_vireid.losses.distance import (
    cosine_distance,
    euclidean_distance,
    masked_max,
    masked_mean,
    masked_min,
    masked_softmax,
)


def tensor(values):
    return ms.Tensor(np.array(values, np.float32))


def mask(values):
    return ms.Tensor(np.array(values, bool))


def gradient(function, *arguments):
    """Gradient of the sum of a function's results with respect to its first argument."""
    return ms.grad(lambda *inputs: function(*inputs).sum())(*arguments).asnumpy()


def test_euclidean_distance_is_exact_where_the_gram_matrix_is_not():
    rng = np.random.default_rng(0)
    rows = (1000 + rng.normal(size=(6, 32))).astype(np.float32)
    rows[3] = rows[0]
    distance = euclidean_distance(tensor(rows), tensor(rows)).asnumpy()
    assert (np.diag(distance) == 0).all()
    assert distance[0, 3] == 0
    np.testing.assert_array_equal(distance, distance.T)
    expected = np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=-1)
    # Float32 sums of 32 squares; |x|^2 + |y|^2 - 2xy would be wrong by 1e-7 * 3e7 = 3 before the root.
    np.testing.assert_allclose(distance, expected, rtol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-23, 1e-20, 1e-12, 1e-3])
def test_euclidean_gradient_is_finite_at_and_near_zero(gap):
    # Below about 1e-19 the square leaves float32's normal range, below 1e-23 it is 0, and so is the gradient.
    slope = gradient(euclidean_distance, tensor([[gap, 0.0]]), tensor([[0.0, 0.0]]))
    assert np.isfinite(slope).all()
    if gap == 0:
        np.testing.assert_array_equal(slope, [[0, 0]])
    elif gap >= 1e-12:
        np.testing.assert_allclose(slope, [[1, 0]], rtol=1e-6)  # float32 rounding


def test_cosine_distance_of_a_zero_row_is_one_without_gradient():
    rows = tensor([[0, 0], [1, 2]])
    np.testing.assert_allclose(cosine_distance(rows, rows).asnumpy(), [[1, 1], [1, 0]], rtol=0, atol=2.4e-7)
    slope = gradient(cosine_distance, rows, tensor([[3, 1]]))
    np.testing.assert_array_equal(slope[0], [0, 0])
    # d(1 - cos)/dx = (cos u - v)/|x| with u = (1, 2)/sqrt(5), v = (3, 1)/sqrt(10), cos = 1/sqrt(2): (-0.2828, 0.1414).
    np.testing.assert_allclose(slope[1], [-0.2828427, 0.1414214], rtol=0, atol=1e-6)  # float32 rounding


def test_maximum_and_minimum_split_the_gradient_evenly_between_ties():
    values = tensor([[2, 5, 5, 9], [1, 1, 1, 0]])
    chosen = mask([[1, 1, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_array_equal(masked_max(values, chosen).asnumpy(), [5, 1])
    np.testing.assert_array_equal(masked_min(values, chosen).asnumpy(), [2, 1])
    third = np.float32(1) / np.float32(3)
    np.testing.assert_array_equal(gradient(masked_max, values, chosen), [[0, 0.5, 0.5, 0], [third, third, third, 0]])
    np.testing.assert_array_equal(gradient(masked_min, values, chosen), [[1, 0, 0, 0], [third, third, third, 0]])


def test_masked_softmax_of_large_values_does_not_overflow():
    weights = masked_softmax(tensor([[500, 501, 9000]]), mask([[1, 1, 0]])).asnumpy()
    # 1/(1 + e) = 0.2689414, as for 0 and 1.
    np.testing.assert_allclose(weights, [[0.2689414, 0.7310586, 0]], rtol=0, atol=1e-6)  # float32 exp


@pytest.mark.parametrize("reduction", [masked_max, masked_min, masked_mean, masked_softmax])
def test_an_empty_mask_gives_zero_without_gradient(reduction):
    values, nothing = tensor([[1, 2, 3]]), mask([[0, 0, 0]])
    assert not reduction(values, nothing).asnumpy().any()
    np.testing.assert_array_equal(gradient(reduction, values, nothing), [[0, 0, 0]])


def test_the_centre_of_identical_rows_is_the_row_to_the_last_bit():
    rows = np.random.default_rng(1).normal(size=(5, 1, 16)).astype(np.float32)
    centers = group_centers(tensor(np.repeat(rows, 6, axis=1)))
    np.testing.assert_array_equal(centers.asnumpy(), rows[:, 0])

import numpy as np
import pytest

from parity.compare import compare, compare_all, compare_names


def test_the_error_is_relative_to_the_largest_entry_and_placed():
    result = compare("x", np.array([[1.0, 2.0], [4.0, 0.3]]), np.array([[1.0, 2.0], [4.0, 0.1]]), 0.04)
    assert result.error == pytest.approx(0.05)
    assert not result.passed
    assert "[1, 1] 0.3, expected 0.1" in result.detail


def test_a_difference_at_the_tolerance_passes():
    assert compare("x", np.array([1.0, 0.5]), np.array([1.0, 0.25]), 0.25).passed


def test_shapes_are_compared_before_values():
    result = compare("x", np.zeros((2, 1)), np.zeros((2,)), 1.0)
    assert not result.passed
    assert "shape [2, 1], expected [2]" in result.detail


@pytest.mark.parametrize(("actual", "expected"), [(np.nan, 1.0), (1.0, np.inf), (np.nan, np.nan)])
def test_what_is_not_finite_fails_on_either_side(actual, expected):
    result = compare("x", np.array([0.0, actual]), np.array([0.0, expected]), 1.0)
    assert not result.passed
    assert "[1]" in result.detail


def test_an_empty_tensor_proves_nothing():
    assert not compare("x", np.zeros((0, 3)), np.zeros((0, 3)), 1.0).passed


def test_against_zeros_the_difference_is_absolute():
    assert compare("x", np.array([2e-6]), np.array([0.0]), 1e-5).error == pytest.approx(2e-6)


def test_missing_and_extra_names_are_listed():
    result = compare_names("weights", ["a", "b"], ["b", "c"])
    assert not result.passed
    assert result.detail == "c is missing, a is extra"


def test_tensors_by_name_include_the_comparison_of_names():
    results = compare_all("output", {"a": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}, 1e-5)
    assert [result.passed for result in results] == [False, True]

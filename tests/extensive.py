"""What `pytest` leaves out for time: others of its kind run. `pytest --all` runs it too."""

from collections.abc import Iterable
from typing import Any

import pytest

extensive = pytest.mark.extensive


def some_of(values: Iterable[Any], every: int) -> list[Any]:
    """Parameters of a test: one of so many values, and the others with --all."""
    return [each if number % every == 0 else _extensive(each) for number, each in enumerate(values)]


def but(left_out: Iterable[str], values: Iterable[Any]) -> list[Any]:
    """Parameters of a test, of which those so named run with --all alone."""
    names = set(left_out)
    return [_extensive(each) if str(each) in names else each for each in values]


def _extensive(each: Any) -> Any:
    return pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=extensive)

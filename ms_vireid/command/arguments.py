"""Checks of arguments of a call from Python. A wrong one raises InputError, as a wrong option of a command does."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.numbers import NUMBERS


def require(fits: bool, name: str, value: object, wanted: str) -> None:
    """Raise InputError unless an argument `fits`. wanted: what it must be."""
    if not fits:
        raise InputError(f"{name} {shown(value)}: must be {wanted}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise InputError unless an argument is one of `choices`."""
    require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")


def require_switch(name: str, value: object) -> None:
    """Raise InputError unless an argument is True or False."""
    require(isinstance(value, bool), name, value, "True or False")


def plain(value: object) -> object:
    """Numbers of NumPy as Python's own, also those of a sequence; anything else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.tolist() if _is_of_numpy(value) else value


def _number(value: object) -> float | None:
    """A number, Python's or NumPy's, as Python's; None for anything else, such as an array of one."""
    if _is_of_numpy(value) and not hasattr(value, "__len__"):
        value = value.item()
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_of_numpy(value: object) -> bool:
    """An array or a scalar, without an import of NumPy, which --help does not wait for."""
    return type(value).__module__ == "numpy" and hasattr(value, "tolist")


def number(name: str, value: object, least: float, below: float = math.inf) -> float:
    """Return a number, Python's or NumPy's, as Python's; raise InputError unless it is one from `least` to less than
    `below`."""
    found = _number(value)
    fits = found is not None and least <= found < below
    require(fits, name, value, f"a number >= {least:g}" + (f" and < {below:g}" if math.isfinite(below) else ""))
    return found


def whole_number(name: str, value: object, least: int) -> int:
    """Return a whole number as `number` does."""
    found = _number(value)
    require(isinstance(found, int) and found >= least, name, value, f"a whole number >= {least}")
    return found


def number_of(option: str, value: object) -> float:
    """Return a number as `number` does; raise InputError unless it is within the bounds of a command's option, a key of
    `NUMBERS`."""
    least, most, _ = NUMBERS[option]
    found = _number(value)
    fits = found is not None and least <= found <= most
    require(fits, option.partition("--")[2], value, f"a number from {least:,} to {most:,}")
    return found


def as_path(name: str, value: object) -> Path:
    """Return an argument as a path; raise InputError if it cannot be one."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    require(isinstance(text, str) and text != "" and "\0" not in text, name, value, "a path")
    return Path(text)

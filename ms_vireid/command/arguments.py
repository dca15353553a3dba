"""Checks of arguments of a call from Python. A wrong one raises InputError, as a wrong option of a command does."""

import math
import os
import re
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

from ms_vireid.command.errors import InputError, shown

_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_REAL = re.compile(r"[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")


class Bounds(NamedTuple):
    """The smallest and the largest value of an option, and `why` that is the largest. They are floats if fractions are
    allowed. A command line is checked as it is read, before anything is imported, opened or allocated."""

    least: float
    most: float
    why: str

    def read(self, option: str, text: str) -> float:
        """Read a number from a text; raise InputError, which names the option, unless it is one within the bounds."""
        fractions = isinstance(self.least, float)
        if not (_REAL if fractions else _WHOLE).fullmatch(text):
            kind = "number" if fractions else "whole number"
            raise InputError(f"{option} {text[:40]!r}: must be a {kind} from {self.least:,} to {self.most:,}")
        value = float(text) if fractions else int(text)
        self.check(option, value)
        return value

    def check(self, name: str, value: float) -> None:
        """Raise InputError unless the value is within the bounds."""
        if value < self.least:
            raise InputError(f"{name} {value}: must be at least {self.least:,}")
        if not value <= self.most:
            raise InputError(f"{name} {value}: must be at most {self.most:,} ({self.why})")


SEED = Bounds(0, 2**31 - 1, "random numbers take signed 32-bit seeds")
SIMILARITY = Bounds(-1.0, 1.0, "similarities are cosines")
FALSE_MATCH_RATE = Bounds(1e-9, 0.5, "a higher rate accepts most strangers")


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
    """Numbers and arrays of NumPy as Python's own, also those of a sequence; anything else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value: object) -> float | None:
    """A number, Python's or NumPy's, as Python's; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


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


def number_within(name: str, value: object, bounds: Bounds) -> float:
    """Return a number as `number` does; raise InputError unless it is within the bounds of a command's option."""
    least, most, _ = bounds
    found = _number(value)
    fits = found is not None and least <= found <= most
    require(fits, name, value, f"a number from {least:,} to {most:,}")
    return found


def as_path(name: str, value: object) -> Path:
    """Return an argument as a path; raise InputError if it cannot be one."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    require(isinstance(text, str) and text != "" and "\0" not in text, name, value, "a path")
    return Path(text)

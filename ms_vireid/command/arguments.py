"""Checks of arguments of a call from Python. A wrong one raises InputError, as a wrong option of a command does."""

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
    require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")


def require_switch(name: str, value: object) -> None:
    require(isinstance(value, bool), name, value, "True or False")


def require_number(option: str, value: object) -> None:
    """Raise InputError unless a number is within the bounds of a command's option, a key of `NUMBERS`."""
    least, most, _ = NUMBERS[option]
    fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    require(fits, option.partition("--")[2], value, f"a number from {least:,} to {most:,}")


def as_path(name: str, value: object) -> Path:
    """Return an argument as a path; raise InputError if it cannot be one."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    require(isinstance(text, str) and text != "" and "\0" not in text, name, value, "a path")
    return Path(text)

"""Checks of arguments of a call from Python. A wrong one raises InputError, as a wrong option of a command does."""

import os
from collections.abc import Sequence
from pathlib import Path

from ms_vireid.command.errors import InputError, shown


def require(fits: bool, name: str, value: object, wanted: str) -> None:
    """Raise InputError unless an argument `fits`. wanted: what it must be."""
    if not fits:
        raise InputError(f"{name} {shown(value)}: must be {wanted}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")


def require_switch(name: str, value: object) -> None:
    require(isinstance(value, bool), name, value, "True or False")


def as_path(name: str, value: object) -> Path:
    """Return an argument as a path; raise InputError if it cannot be one."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    require(isinstance(text, str) and text != "" and "\0" not in text, name, value, "a path")
    return Path(text)

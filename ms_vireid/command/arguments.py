"""Arguments of a call from Python: a wrong one is one InputError, as a wrong option of a command is."""

import os
from collections.abc import Sequence
from pathlib import Path

from ms_vireid.command.errors import InputError, shown


def require(fits: bool, name: str, value: object, wanted: str) -> None:
    """Raise InputError for an argument that does not fit. wanted: what it must be."""
    if not fits:
        raise InputError(f"{name} {shown(value)}: must be {wanted}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")


def require_switch(name: str, value: object) -> None:
    require(isinstance(value, bool), name, value, "True or False")


def as_path(name: str, value: object) -> Path:
    """The path that an argument is; raises InputError for what can be none."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    require(isinstance(text, str) and text != "" and "\0" not in text, name, value, "a path")
    return Path(text)

"""Visible-infrared person re-identification on MindSpore. From Python: docs/python.md."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ms_vireid.api import InputError, Searcher, __version__, create_model, evaluate, list_models

__all__ = ["InputError", "Searcher", "__version__", "create_model", "evaluate", "list_models"]


def __getattr__(name: str):
    """Take the names from `api` when one is first used: a command does not wait for what they import."""
    if name not in __all__:
        raise AttributeError(f"module 'ms_vireid' has no attribute {name!r}")
    api = import_module("ms_vireid.api")
    globals().update({each: getattr(api, each) for each in __all__})
    return globals()[name]


class _Package(ModuleType):
    """This package, of which `evaluate` is the function: Python would bind the command's module when it imports it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(value, ModuleType) or name not in __all__:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

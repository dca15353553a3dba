"""Visible-infrared person re-identification on MindSpore. From Python: docs/python.md."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ms_vireid.api import InputError, Searcher, __version__, create_model, evaluate, list_models

__all__ = ["InputError", "Searcher", "__version__", "create_model", "evaluate", "list_models"]


def __getattr__(name: str):
    """Take the names from `api` when one is first used: a command does not wait for what they import."""
    if name not in __all__:
        raise AttributeError(f"module 'ms_vireid' has no attribute {name!r}")
    import_module("ms_vireid.evaluate")  # first: the import of this command binds its name, which is the function's
    api = import_module("ms_vireid.api")
    globals().update({each: getattr(api, each) for each in __all__})
    return globals()[name]

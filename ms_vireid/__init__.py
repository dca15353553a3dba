"""Visible-infrared person re-identification on MindSpore. From Python: docs/python.md."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ms_vireid.api import create_model
    from ms_vireid.command.errors import InputError
    from ms_vireid.config.models import list_models
    from ms_vireid.search.searcher import Searcher
    from ms_vireid.tasks.evaluate import evaluate

    __version__: str

__all__ = ["InputError", "Searcher", "__version__", "create_model", "evaluate", "list_models"]
_HOME = {
    "InputError": "ms_vireid.command.errors",
    "Searcher": "ms_vireid.search.searcher",
    "create_model": "ms_vireid.api",
    "list_models": "ms_vireid.config.models",
}


def __getattr__(name: str):
    """Import a name when it is first used: mindspore may be imported only after the device is set up."""
    if name == "__version__":
        return import_module("ms_vireid.command.running").project_version()
    if name == "evaluate":  # the command's module, which is callable
        return import_module("ms_vireid.evaluate")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ms_vireid' has no attribute {name!r}")

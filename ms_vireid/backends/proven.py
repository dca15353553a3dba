"""What each replacement was proven against: `proven.json`, beside the tables.

A row stands for all code that its eager computation runs (`reading.py`). The record has a digest of each function, the
classes of the parts, and is renewed by `python parity/report.py --renew`, which runs the ladder first. A row whose cell
differs from the record is not used: the cell runs as it is written.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ms_vireid.backends.reading import (
    NO_SOURCE,
    PROJECT,
    Code,
    called_only,
    code_of_function,
    code_of_method,
    qualified,
)
from ms_vireid.replaceable import DECLARED, Replacement

RECORD = Path(__file__).with_name("proven.json")
Records = dict[str, dict[str, Any]]  # by the name of what is replaced: its functions' digests, and its parts' classes


@cache
def record() -> dict[str, dict[str, Records]]:
    """The record of each backend and device."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def read(cell: Any, key: Callable, replacement: Replacement | None = None) -> Code:
    """Read what a row stands for: with a replacement, without what this only calls. cell: None for a function."""
    if cell is None:
        return code_of_function(key)
    delegated = called_only(replacement.by, key) if replacement else frozenset()
    return code_of_method(cell, DECLARED[key].name, delegated)


def difference(records: Records, key: Callable, code: Code) -> str | None:
    """What differs from the record, as the end of a sentence; None if nothing does."""
    known = records.get(qualified(key))
    if known is None:
        return "it is not on record"
    if code.hooked:
        return f"its {code.hooked[0]} has a hook" if code.hooked[0] else "it has a hook"
    for path, classes in code.parts.items():
        if unknown := classes - set(known["parts"].get(path, ())):
            return f"{f'its {path}' if path else 'it'} is a {in_words(min(unknown))}"
    for name, digest in code.functions.items():
        if known["functions"].get(name) != digest:
            if digest == NO_SOURCE:
                return f"{in_words(name)} is not what its file says"
            return f"{in_words(name)} {'has changed' if name in known['functions'] else 'is called in its place'}"
    return None


def in_words(name: str) -> str:
    """A function or class with its file: "Mlp.construct (ms_vireid/models/vit.py)", or MindSpore's "nn.ReLU"."""
    if name.startswith("mindspore.nn."):
        return f"nn.{name.split('.', 4)[-1]}"  # without the file of the layer
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if (module := ".".join([PROJECT, *parts[:length]])) in sys.modules:
            return f"{'.'.join(parts[length:])} ({module.replace('.', '/')}.py)"
    return name


def recorded(codes: list[Code]) -> dict[str, Any]:
    """A row of the record, of what was read from several cells."""
    functions, parts = {}, {}
    for code in codes:
        functions |= code.functions
        for path, classes in code.parts.items():
            parts.setdefault(path, set()).update(classes)
    return {
        "functions": dict(sorted(functions.items())),
        "parts": {path: sorted(classes) for path, classes in sorted(parts.items())},
    }


def write(records: dict[str, dict[str, Records]]) -> None:
    """Write the record of all backends and devices."""
    RECORD.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    record.cache_clear()

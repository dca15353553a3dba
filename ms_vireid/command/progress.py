"""Progress bars on a terminal. In a log there are none: the caller prints plain lines."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from ms_vireid.command.errors import printable


def progress(items: Iterable, total: int, what: str, unit: str, per_item: int = 1, initial: int = 0) -> Iterable:
    """Iterate with a bar that counts in `unit`s, `per_item` of them an item, and shows their rate and the time left."""
    if not getattr(sys.stderr, "isatty", bool)():  # a notebook's stream may have none, or be None
        return items
    return tqdm(items, total=total, initial=initial, desc=printable(what), unit=unit, unit_scale=per_item, leave=False)

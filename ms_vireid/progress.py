"""Progress bars on a terminal; nothing in a log, where the caller prints plain lines."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(items: Iterable, total: int, what: str, unit: str, initial: int = 0) -> Iterable:
    shown = sys.stderr.isatty()
    return tqdm(items, total=total, initial=initial, desc=what, unit=unit, leave=False, disable=not shown)

"""The one way to print: lines that are escaped where they would control a terminal, and progress bars."""

import sys
from collections.abc import Iterable

from ms_vireid.command.errors import printable


def say(*lines: str, error: bool = False) -> None:
    """Print each text as one line, above the progress bar if there is one. error: print to standard error."""
    from tqdm import tqdm  # not at the top: --help does without it

    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # closed by the shell's >&-
        for line in lines:
            tqdm.write(printable(line), file=stream)
        stream.flush()


def progress(items: Iterable, total: int, what: str, unit: str, per_item: int = 1, initial: int = 0) -> Iterable:
    """Iterate with a bar that counts in `unit`s, `per_item` of them an item, and shows their rate and the time left.
    In a log there is none: the caller prints plain lines."""
    if not getattr(sys.stderr, "isatty", bool)():  # a notebook's stream may have none, or be None
        return items
    from tqdm import tqdm  # not at the top: --help does without it

    return tqdm(items, total=total, initial=initial, desc=printable(what), unit=unit, unit_scale=per_item, leave=False)

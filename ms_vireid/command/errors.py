"""A user's mistake as one line: what is wrong, where, and what to do. Of many problems it names ten."""

import re
from collections.abc import Iterable
from pathlib import Path

SHOWN = 10  # problems named
LONGEST = 300  # characters of a line
_LONGEST_SHOWN = 80  # characters of a value
_JOINERS = "\u200c\u200d"  # within words of some scripts, and emoji
_END = 100  # characters kept at the end of a longer line, which say what to do
# How MindSpore and the libraries below it report that memory is used up, on CPU, GPU and Ascend.
FULL = re.compile(
    r"memory (is not|isn't|not) enough|out of memory|alloc\w*( \w+)* (memory|mem)\b.*fail|fail\w* to alloc\w*"
    r"|malloc\w*( \w+)* fail|STATUS_ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


class InputError(Exception):
    """A bad configuration, data set, checkpoint or device. Commands print it and exit with 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def printable(text: str) -> str:
    """Escape what breaks lines, controls terminals or changes the direction of writing in a text, such as a file's
    name."""
    return "".join(one if one.isprintable() or one in _JOINERS else repr(one)[1:-1] for one in text)


def one_line(text: str) -> str:
    """Make a text printable, and cut out its middle if it is too long."""
    text = printable(text if len(text) <= 2 * LONGEST else text[:LONGEST] + text[-LONGEST:])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - _END - 5]} ... {text[-_END:]}"


def shown(value: object) -> str:
    """Show a wrong value in an error, cut if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or endless depth
        return "a value too large to show"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} ..."


class DeviceError(Exception):
    """A device cannot be used. str() says why, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem)
        self.remedy = remedy


def refuse(problems: Iterable[str], what: str, remedy: str) -> None:
    """Raise one InputError for all `problems`; do nothing if there are none."""
    if problems := list(problems):
        raise InputError(f"{what}: {summary(problems)}; {remedy}")


def refuse_unfit(path: Path, kinds: dict[str, list[str]]) -> None:
    """Raise one InputError for a checkpoint's names, by what is wrong with them; do nothing if there are none."""
    problems = [f"{what} {summary(names)}" for what, names in kinds.items() if names]
    if problems:
        raise InputError(f"{path}: does not fit the model: {'; '.join(problems)}; check model.* and the file")


def summary(problems: list[str]) -> str:
    return f"{len(problems)} ({first_few(problems)})"


def first_few(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"

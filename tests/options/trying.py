"""Runs commands in this process, and says which of their options did nothing.

An option acts if the result with it differs from the result without it: what is printed, the exit code, or the files.
Where results are the same by design, such as by fewer processes, the work must at least have read the option.
"""

import argparse
import contextlib
import hashlib
import importlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from ms_vireid.command.running import run

ANYWHERE = "may be given to every command, by scripts that state it once"
TIMES = re.compile(r"\d+(\.\d+)? s\b|\d\d:\d\d|[\d.]+ images/s")
ECHOED = re.compile(r"^evaluated: .*$", re.MULTILINE)  # of the options, whatever they do


@dataclass(frozen=True)
class Tried:
    """A command, and a sample of each of its options, with its words.

    cut: replaces what takes long by something that prints what it was given. same: options, and pairs "--a --b" whose
    first does nothing beside the second, that leave the result as it is, with the reason.
    """

    module: str
    base: Sequence[str]
    samples: Mapping[str, Sequence[str]]
    same: Mapping[str, str] = field(default_factory=dict)
    cut: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    after: Sequence[str] = ()  # words that come last


@dataclass(frozen=True)
class Result:
    """What a command printed and wrote, and its exit code; and which options its work read."""

    code: int
    printed: str
    files: tuple[tuple[str, str], ...]
    read: frozenset[str] = field(compare=False)
    options: Mapping[str, str] = field(compare=False)  # the name of each option in the Namespace

    @property
    def refused(self) -> bool:
        return self.code == 2


def result_of(tried: Tried, words: Sequence[str], folder: Path) -> Result:
    """Run the command with more words in a folder, and remove what it wrote there."""
    read: set[str] = set()
    options: dict[str, str] = {}

    class Recording(argparse.Namespace):
        def __getattribute__(self, name: str):
            read.add(name)
            return super().__getattribute__(name)

    def recording(parse):
        def parsed(parser, *arguments, **given):
            namespace = parse(parser, *arguments, **given)
            options.update(_options(parser, tried.base))
            read.clear()
            return Recording(**vars(namespace))

        return parsed

    printed = io.StringIO()
    before = _files(folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.chdir(folder)
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, recording(getattr(argparse.ArgumentParser, name)))
        patch.setattr(sys, "argv", [tried.module, *tried.base, *words, *tried.after])
        main = importlib.import_module(tried.module).main
        tried.cut(patch)
        try:
            run(main)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    text = ECHOED.sub("", TIMES.sub("", printed.getvalue()))
    assert code != 1 or "bug of ms_vireid" not in text, (tried.base, words, text)
    return Result(code, text, tuple(_taken_away(folder, before)), frozenset(read), options)


def _options(parser: argparse.ArgumentParser, base: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option of a parser, or of the part of it that the first word names, and its name in the Namespace."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from _options(action.choices[base[0]], base)
        elif action.option_strings:
            yield action.option_strings[-1], action.dest
        elif action.nargs == "*":
            yield action.dest, action.dest


def _files(folder: Path) -> set[str]:
    return {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names}


def _taken_away(folder: Path, before: set[str]) -> Iterator[tuple[str, str]]:
    """Remove new files; yield their names and contents."""
    for name in sorted(_files(folder) - before):
        content = TIMES.sub("", Path(name).read_bytes().decode("latin-1"))
        yield os.path.relpath(name, folder), hashlib.sha256(content.encode()).hexdigest()
        os.remove(name)
    for one in folder.iterdir():
        if one.is_dir() and not _files(one):
            shutil.rmtree(one)


def idle(tried: Tried, folder: Path) -> list[str]:
    """The options and pairs of them of which one did nothing, and what has no sample or no more reason."""
    names = list(tried.samples)
    plain = result_of(tried, (), folder)
    assert not plain.refused or not tried.base, plain.printed
    alone = {name: result_of(tried, tried.samples[name], folder) for name in names}
    options = next(iter(alone.values())).options
    missing = set(options) - {"--help"} - {name.partition(" ")[0] for name in (*names, *tried.base)}
    found = [f"no sample of {name}" for name in sorted(missing)]
    needless = set(tried.same)

    def acts(name: str, without: Result, with_it: Result, *others: str) -> bool:
        if with_it != without:
            return True
        reasons = [one for one in (name, " ".join((name, *others))) if one in tried.same]
        needless.difference_update(reasons)
        if reasons[:1] == [name]:  # the same by design, if it was read
            return tried.same[name] == ANYWHERE or options.get(name.partition(" ")[0], "overrides") in with_it.read
        return bool(reasons)

    found += [name for name in names if not acts(name, plain, alone[name])]
    for one, other in combinations(names, 2):
        if one.partition(" ")[0] == other.partition(" ")[0]:
            continue  # the last of them counts, as everywhere
        both = result_of(tried, (*tried.samples[one], *tried.samples[other]), folder)
        if both.refused:
            continue
        if not acts(one, alone[other], both, other) and one not in found:
            found.append(f"{one} beside {other}")
        if not acts(other, alone[one], both, one) and other not in found:
            found.append(f"{other} beside {one}")
    return found + [f"no reason is needed for {name}" for name in sorted(needless)]

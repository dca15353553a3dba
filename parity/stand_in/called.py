"""What the three methods call of a GPU and of an Ascend, with types; --write writes docs/evidence/operators.md.

A compiled training step of each, in float32 and in mixed precision, its evaluation, and the ladder's losses, small, on
the stand-ins. Without --write the exit code is 1 if something is called that the page does not have.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, run
from ms_vireid.devices import runtime
from ms_vireid.files.writing import write_text
from parity.stand_in import DEVICES, build, functions

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "operators.md"
LIMIT_S = 1800.0  # of a device


def collect_here(device: str) -> dict[str, list[str]]:
    """Return the callers of each launched function, on the device's stand-in."""
    runtime.set_up(device)
    used = defaultdict(set)
    before = functions()
    with at_once():
        from parity.stand_in.computations import computations

    for owner, compute in computations():
        compute()
        now = functions()
        for name in filter(DEVICES[device].is_launch, now - before):
            used[name].add(owner)
        before = now
    return {name: sorted(owners) for name, owners in sorted(used.items())}


def page(used: Mapping[str, Mapping[str, Iterable[str]]]) -> str:
    """docs/evidence/operators.md. used: for each device, by whom each function is called."""
    parts = [INTRODUCTION]
    for device, functions_of in used.items():
        for heading, chosen in DEVICES[device].KINDS.items():
            rows = _rows({name: owners for name, owners in functions_of.items() if chosen(name)})
            if not rows:
                continue
            lines = ["| | types | used by |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
            parts.append(f"## {device}: {heading} ({len(rows)})\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _rows(functions_of: Mapping[str, Iterable[str]]) -> list[tuple[str, str, str]]:
    """Make a row for each name: all types it is called with, and its callers."""
    types, owners = defaultdict(list), defaultdict(set)
    for function, used_by in functions_of.items():
        name, given = _parts(function)
        types[name].append(f"`{given}`" if given else "")
        owners[name].update(used_by)
    return [(name, " ".join(filter(None, types[name])), ", ".join(sorted(owners[name]))) for name in sorted(types)]


def _parts(function: str) -> tuple[str, str]:
    """Split a function into its name and types."""
    return re.fullmatch(r"(?:by name: )?(\w+)(.*)", function, re.DOTALL).groups()


def unknown(used: Iterable[str], text: str) -> list[str]:
    """Return the functions, as from `collect_here`, that the page lacks with these types; of this project's own CUDA
    kernels ("own NAME") it has none."""
    rows = defaultdict(str)
    for name, types in re.findall(r"^\| (\w+) \| (.*?) \|", text, re.MULTILINE):
        rows[name] += types
    missing = []
    for function in used:
        name, types = _parts(function)
        if name != "own" and (name not in rows or types not in rows[name]):
            missing.append(function)
    return missing


INTRODUCTION = """# Operators

What the three methods call of a GPU and of an Ascend: a compiled training step of each, in float32 and in mixed
precision, its evaluation, and the losses of the ladder, with the types that each function was called with. `python -m
parity.stand_in.called --write` takes them through MindSpore 2.10's own plugins on the stand-ins of both devices
([parity.md](../parity.md)) and writes this page. All of them are computed there by their definitions, and the results
are those of PyTorch ([ladder.md](ladder.md)).

On an Ascend an operator is either a function of aclnn, which CANN has ready, or handed to CANN by its name, which
compiles it at its first use."""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[2])}")
    parser.add_argument(
        "--here", choices=tuple(DEVICES), help="print what this process calls, on the device's stand-in"
    )
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(collect_here(arguments.here)))
        return
    used = {
        device: build(device).json_of(device, "parity.stand_in.called", "--here", device, limit_s=LIMIT_S)
        for device in DEVICES
    }
    for device, functions_of in used.items():
        print(f"{device}: {len(functions_of)} functions and types")
    if arguments.write:
        write_text(PAGE, page(used))
    new = [function for functions_of in used.values() for function in unknown(functions_of, PAGE.read_text("utf-8"))]
    if new:
        raise InputError(f"{PAGE} does not have {', '.join(new)}; --write updates it")


if __name__ == "__main__":
    run(main)

"""A test of the tests: small errors drawn from a seed, each in a copy of the tree, and whether its room's tests see it.

    python -m tests.tools.mutations --output F [--count N] [--seed N] [--rooms ROOM ...]

An error is another operator, constant or comparison, or a statement less, as many of each kind; messages and
annotations are left alone. It meets tests of the three files of its room that are nearest by name: those that run its
line, the fastest first, for 30 s. First each file runs once as it is, which notes the lines that each test runs, in
processes that it starts too. Of an error at module level those tests count that run a line with the name that gets
the value; in a kernel, whose lines no trace sees, those that run anything of its file. "dead": a test failed, or they
took five times as long; "alive": none did; "unreached": there are none. What has its line in --output is not tried
again. docs/evidence/reliability.md has the table.
"""

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "ms_vireid"
COMMANDS = "commands"  # the room of the files at the package's top
OWN = {  # the tests of rooms that have no folder of the same name
    "command": "bad_input bounds help interrupt stopping texts_as_paths",
    "config": "bounds config",
    "devices": "gpu host memory runtime",
    "exports": "export",
    COMMANDS: "ablate bad_input export own_folders report retrieve train train_mun",
}
FURTHER = {COMMANDS: ("ablations/test_commands.py", "inference/test_extract.py", "visualization/test_command.py")}
KINDS = ("operator", "constant", "comparison", "removed")
PAIRS = {"Add": "Sub", "Mult": "Div", "And": "Or", "BitAnd": "BitOr", "LShift": "RShift"}
PAIRS |= {"Eq": "NotEq", "Lt": "LtE", "Gt": "GtE", "In": "NotIn", "Is": "IsNot"}
OTHER = PAIRS | {second: first for first, second in PAIRS.items()} | dict.fromkeys(("FloorDiv", "Mod", "Pow"), "Mult")
REMOVED = (ast.AugAssign, ast.Raise, ast.Return, ast.Continue, ast.Break, ast.Delete)
LINES = "MUTATIONS_LINES"  # environment variable: the file that takes the lines that a process runs
TRACED = f"""import os
if {LINES!r} in os.environ:
    from tests.tools.mutations import Lines
    Lines(os.environ[{LINES!r}])
"""
WARM = ("mindspore", "torch", "numba", "scipy.spatial", "pydantic", "PIL.Image")  # for all forks
SLOWER, SLACK_S, WAITING_S = 5, 60.0, 900.0
ENOUGH_S, ENOUGH_FILES = 30.0, 3  # of tests that have met an error
OPTIONS = ("-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=no")


@dataclass(frozen=True)
class Mutant:
    """span: of bytes, which `after` replaces. lines: of the statement, as far as it. name: what it gives a value at
    module level, "" for one in a function."""

    file: str
    kind: str
    line: int
    span: tuple[int, int]
    before: str
    after: str
    lines: tuple[int, int]
    name: str

    @property
    def compiled(self) -> bool:
        """Whether it may be in a kernel, whose lines no trace sees."""
        return "/numba/" in self.file or "njit" in (ROOT / self.file).read_text("utf-8")

    @property
    def room(self) -> str:
        return self.file.split("/")[1] if self.file.count("/") > 1 else COMMANDS


def other(operator: ast.AST) -> ast.AST:
    return getattr(ast, OTHER[type(operator).__name__])()


def swaps(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What a node could be by a mistake: kind and text."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op).__name__ in OTHER:
        right, node.op = node.op, other(node.op)
        yield "operator", ast.unparse(node) if isinstance(node, ast.AugAssign) else f"({ast.unparse(node)})"
        node.op = right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operator", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Compare):
        for place, right in enumerate(node.ops):
            node.ops[place] = other(right)
            yield "comparison", f"({ast.unparse(node)})"
            node.ops[place] = right
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", repr(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "constant", repr(node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0)
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    stored = isinstance(node, ast.Assign) and all(
        isinstance(one, ast.Attribute | ast.Subscript) for one in node.targets
    )
    if isinstance(node, REMOVED) or called or stored:
        yield "removed", "pass"


def mutants(file: str, source: str) -> Iterator[Mutant]:
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def visit(node: ast.AST, statement: ast.stmt | None, name: str) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            statement = node
        if statement is not None and hasattr(node, "lineno"):
            span = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            for kind, after in swaps(node):
                before, lines = text[slice(*span)].decode(), (statement.lineno, node.end_lineno)
                yield Mutant(file, kind, node.lineno, span, before, after, lines, name)
        if isinstance(node, ast.Raise | ast.JoinedStr):
            return
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            inner = name
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inner = "" if field == "body" else getattr(node, "name", name)
            elif isinstance(node, ast.ClassDef) and name:
                inner = node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign) and name:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                inner = target.id if isinstance(target, ast.Name) else name
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, statement, inner)

    yield from visit(ast.parse(source), None, PACKAGE)


def draw(count: int, seed: int) -> list[Mutant]:
    """Kind by kind in turn, so that fewer are the first of more."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    found = [one for path in files for one in mutants(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    kinds = [[one for one in found if one.kind == kind] for kind in KINDS]
    for kind, sites in zip(KINDS, kinds, strict=True):
        random.Random(f"{seed} {kind}").shuffle(sites)
    return [one for one in chain.from_iterable(zip_longest(*kinds)) if one][:count]


class Lines:
    """A trace function that appends each line of the package that a process runs to a file: this one's, and through
    sitecustomize.py its children's."""

    def __init__(self, path: str):
        self.seen, self.package, self.descriptor = set(), f"{ROOT / PACKAGE}{os.sep}", -1
        self.into(path)

    def into(self, path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        before, self.descriptor, self.path = self.descriptor, descriptor, path
        if before >= 0:
            os.close(before)
        os.environ[LINES] = path
        self.seen.clear()
        threading.settrace(self)
        sys.settrace(self)  # again, as an error of too deep a recursion ends it

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(self.package) or code.co_name == "<module>":
            return None
        line = (code.co_filename, frame.f_lineno)
        if line not in self.seen:
            self.seen.add(line)
            with contextlib.suppress(OSError):
                os.write(self.descriptor, f"{line[0][len(self.package) :]}:{line[1]}\n".encode())
        return self


class Reach:
    """A plugin that gives each test its own file of lines; what wider fixtures run counts for all tests of the file."""

    def __init__(self, folder: Path):
        self.folder, self.owners, self.seconds, self.failed = folder, [], defaultdict(float), set()
        self.lines = Lines(self.place(""))

    def place(self, owner: str) -> str:
        if owner not in self.owners:
            self.owners.append(owner)
        return str(self.folder / str(self.owners.index(owner)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.lines.into(self.place(item.nodeid))
        result = yield
        self.lines.into(self.place(""))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        before = self.lines.path
        if fixturedef.scope != "function":
            self.lines.into(self.place(request.node.nodeid if fixturedef.scope == "module" else ""))
        result = yield
        self.lines.into(before)
        return result

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    def result(self) -> dict:
        lines = {owner: sorted(set(Path(self.place(owner)).read_text().split())) for owner in self.owners}
        return {"seconds": self.seconds, "failed": sorted(self.failed), "lines": lines}


class Only:
    """A plugin that runs these tests in this order, and notes the first that fails."""

    def __init__(self, tests: Iterable[str], note: Path):
        self.tests, self.note = tests, note

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        place = {test: number for number, test in enumerate(self.tests)}
        items[:] = sorted((one for one in items if one.nodeid in place), key=lambda one: place[one.nodeid])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.note.write_text(report.nodeid)


def forked(work: Callable[[], int], limit_s: float | None, log: Path) -> int | None:
    """The exit code of a fork that does this, of a process group of its own; None after `limit_s` seconds of a core."""
    if not (child := os.fork()):
        os.setsid()
        sys.stdin = open(os.devnull)  # noqa: SIM115
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 3
        try:
            code = int(work())
        finally:
            sys.stdout.flush()
            os._exit(code)
    begun, code, process = time.monotonic(), None, psutil.Process(child)
    # Of a core, as others may be at work on this machine; who only waits uses none.
    while limit_s is None or (sum(process.cpu_times()[:4]) < limit_s and time.monotonic() - begun < WAITING_S):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    return code


def measure(file: str, folder: Path) -> dict:
    """Of each of a file's tests: its seconds, whether it failed, and the lines that it ran."""
    folder.mkdir()

    def work() -> int:
        reach = Reach(folder)
        pytest.main([*OPTIONS, file], plugins=[reach])
        sys.settrace(None)
        (folder / "result.json").write_text(json.dumps(reach.result()))
        return 0

    forked(work, None, folder / "log.txt")
    return {"measured": file} | json.loads((folder / "result.json").read_text())


def files_of(mutant: Mutant) -> list[str]:
    """Test files of its room: those named after its module, then those that name it, then others."""
    own = [f"test_{name}.py" for name in OWN.get(mutant.room, "").split()] + [*FURTHER.get(mutant.room, ())]
    paths = [ROOT / "tests" / name for name in own] or sorted((ROOT / "tests" / mutant.room).rglob("test_*.py"))
    names = set(Path(mutant.file).with_suffix("").parts[1:]) - {mutant.room}
    named = re.compile(rf"\b({'|'.join(names)})\b")

    def distance(path: Path) -> int:
        return 0 if any(name in path.stem for name in names) else 1 if named.search(path.read_text("utf-8")) else 2

    return [path.relative_to(ROOT).as_posix() for path in sorted(paths, key=distance)[:ENOUGH_FILES]]


def lines_of(mutant: Mutant) -> set[str]:
    """Whoever runs one of these may meet the error."""
    own, source = mutant.file.partition("/")[2], (ROOT / mutant.file).read_text("utf-8")
    everywhere = {f"{own}:{line}" for line in range(1, source.count("\n") + 2)}
    met = {f"{own}:{line}" for line in range(mutant.lines[0], mutant.lines[1] + 1)}
    if not (mutant.name or mutant.compiled):
        return met
    names = {mutant.name} if mutant.name else set()
    if mutant.compiled:
        names |= {one.name for one in ast.parse(source).body if isinstance(one, ast.FunctionDef)}
    named = re.compile(rf"\b({'|'.join(names)})\b")
    found = set()
    for path in (ROOT / PACKAGE).rglob("*.py"):
        file = path.relative_to(ROOT / PACKAGE).as_posix()
        lines = enumerate(path.read_text("utf-8").splitlines(), 1)
        found |= {f"{file}:{number}" for number, line in lines if named.search(line)}
    return found | everywhere if mutant.compiled or found <= met else found | met


def meeting(lines: set[str], measured: dict, enough_s: float) -> dict[str, float]:
    """The tests of a file that run one of these lines, with their seconds, the fastest first, until it is enough."""
    owners = {owner for owner, ran in measured["lines"].items() if not lines.isdisjoint(ran)}
    found = {}
    for test, seconds in sorted(measured["seconds"].items(), key=lambda pair: pair[1]):
        if test not in measured["failed"] and owners & {test, measured["measured"], ""} and enough_s > 0:
            found[test] = seconds
            enough_s -= seconds
    return found


def attempt(mutant: Mutant, measured: Callable[[str], dict], folder: Path, number: int) -> dict:
    lines, by, met, begun, files = lines_of(mutant), "", {}, time.monotonic(), files_of(mutant)
    for some in (files[:1], files[1:]):
        tests = {}
        for file in some:
            tests |= meeting(lines, measured(file), ENOUGH_S - sum((met | tests).values()))
        met |= tests
        if tests:
            with planted(mutant, number), compiling(mutant, folder):
                by = failure(tests, folder)
        if by:
            break
    outcome = "dead" if by else "alive" if met else "unreached"
    return {"outcome": outcome, "by": by, "tests": len(met), "seconds": round(time.monotonic() - begun, 1)}


@contextlib.contextmanager
def compiling(mutant: Mutant, folder: Path) -> Iterator[None]:
    """An error in a kernel is compiled to a place of its own, and with it the kernels that may have inlined it."""
    if not mutant.compiled:
        yield
        return
    own, before = folder / "compiled", os.environ["NUMBA_CACHE_DIR"]
    imported = f"from {mutant.file[:-3].replace('/', '.')} import"
    sources = [path.read_text("utf-8") for path in (ROOT / PACKAGE).rglob("*.py")]
    if not any(imported in source and "njit" in source for source in sources):
        shutil.copytree(before, own)
    os.environ["NUMBA_CACHE_DIR"] = str(own)
    try:
        yield
    finally:
        os.environ["NUMBA_CACHE_DIR"] = before
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def planted(mutant: Mutant, number: int) -> Iterator[None]:
    path = ROOT / mutant.file
    right, times = path.read_bytes(), path.stat()
    path.write_bytes(right[: mutant.span[0]] + mutant.after.encode() + right[mutant.span[1] :])
    os.utime(path, (number + 1e9, number + 1e9))  # a time of its own: nothing compiled of another is taken for it
    try:
        yield
    finally:
        path.write_bytes(right)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def failure(tests: dict[str, float], folder: Path) -> str:
    """The first of the tests that fails, or what else goes wrong; "" if nothing does."""
    note = folder / "failed.txt"
    note.unlink(missing_ok=True)

    def work() -> int:
        importlib.import_module("numba.core.config").reload_config()  # for where it keeps what it compiles
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        return pytest.main([*OPTIONS, "-x", *files], plugins=[Only(tests, note)])

    code = forked(work, SLOWER * sum(tests.values()) + SLACK_S, folder / "log.txt")
    if code is None:
        return "time"
    return note.read_text() if note.exists() else f"exit code {code}" if code else ""


def here(arguments: argparse.Namespace) -> None:
    """In the copy."""
    folder = Path(tempfile.mkdtemp(dir=ROOT.parent))
    (folder / "numba").mkdir()
    os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
    for name in WARM:
        importlib.import_module(name)
    rows = read(arguments.output)
    known = {row["measured"]: row for row in rows if "measured" in row}
    done = {(row["file"], row["kind"], *row["span"]) for row in rows if "outcome" in row}
    drawn = draw(arguments.count, arguments.seed)

    def measured(file: str) -> dict:
        if file not in known:
            known[file] = measure(file, folder / str(len(known)))
            write(arguments.output, known[file])
        return known[file]

    for room in arguments.rooms or sorted({one.room for one in drawn}):
        for number, one in enumerate(drawn):
            if one.room == room and (one.file, one.kind, *one.span) not in done:
                row = asdict(one) | {"room": room} | attempt(one, measured, folder, number)
                write(arguments.output, row)
                print(f"{one.file}:{one.line}", one.kind, row["outcome"], row["by"], f"{row['seconds']} s", flush=True)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, row: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def table(rows: list[dict]) -> str:
    counts = defaultdict(Counter)
    for row in rows:
        if "outcome" in row:
            counts[row["room"]][row["outcome"]] += 1
    lines = [f"{'':<14}{'drawn':>7}{'dead':>7}{'alive':>7}{'unreached':>11}"]
    for room, found in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        cells = f"{found['dead']:>7}{found['alive']:>7}{found['unreached']:>11}"
        lines.append(f"{room:<14}{found.total():>7}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines")
    parser.add_argument("--count", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--rooms", nargs="+", metavar="ROOM")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        here(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"))
        (copy / "sitecustomize.py").write_text(TRACED)
        argv = ["-m", "tests.tools.mutations", *sys.argv[1:], "--output", str(arguments.output.absolute()), "--here"]
        environment = os.environ | {"PYTHONPATH": str(copy), "GLOG_v": "3"}
        subprocess.run([sys.executable, *argv], cwd=copy, env=environment, check=True)
    print(table(read(arguments.output)))


if __name__ == "__main__":
    main()

"""What imports what, as docs/architecture.md draws it, which framework comes with it, and what lies where."""

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ms_vireid", "torch_ref", "parity")
NODE = re.compile(r'^ *(\w+)\["', re.MULTILINE)
ARROW = re.compile(r"^ *(\w+) -->(?:\|[^|]*\|)? (\w+(?: & \w+)*)$", re.MULTILINE)
FRAMEWORK_FREE = """
ablate api check_data checkpoints.weights command.running config data.batches data.readers devices.runtime
engine.checkpoint_config engine.plan engine.process_group engine.run_folder engine.test_set engine.training_data
evaluate evaluation evaluation.evaluating export extract optimizers.schedule report retrieve search.start train
visualize
"""
TOP = {
    *("LICENSE", "README.md", "README.zh-CN.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"),
    *(".ci", ".github", ".gitignore", ".pre-commit-config.yaml", "Dockerfile", ".dockerignore"),
    *("pyproject.toml", "setup.py", "constraints.txt", "configs", "docs", "tests", *PACKAGES),
}


FILES_OF_THEIR_OWN = {"replaceable"}  # at the top of ms_vireid, rooms in the drawing


def room(name):
    """The room of a module: a folder of ms_vireid or a file of its own, "commands" for what else lies at its top, or
    another package."""
    package, *below = name.split(".")
    if package != "ms_vireid":
        return package
    is_room = below and (below[0] in FILES_OF_THEIR_OWN or (ROOT / package / below[0]).is_dir())
    return below[0] if is_room else "commands"


def modules():
    """{name: path} of all modules of the three packages; a package is named as its folder."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return dict(zip((name.removesuffix(".__init__") for name in names), paths, strict=True))


def imported(code, known=()):
    """The modules that code imports, with the names that it takes from them: at the top, in functions, for a checker of
    types, and by name. Where code does that, every text counts that names a `known` module; an f-string, all that fit.
    """
    by_name = "import_module(" in code
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif by_name and isinstance(node, ast.Constant | ast.JoinedStr):
            pieces = getattr(node, "values", [node])
            texts = [str(piece.value) if isinstance(piece, ast.Constant) else None for piece in pieces]
            if texts and (texts[0] or "").partition(".")[0] in PACKAGES:
                pattern = "".join(r"\w+" if text is None else re.escape(text) for text in texts)
                yield from (name for name in known if "." in name and re.fullmatch(pattern, name))


def imports():
    """(importing file, what it imports) of the three packages; but not that `__main__` names all commands, also those
    of parity."""
    known = modules()
    for path in known.values():
        names = () if path.stem == "__main__" else known
        yield from ((path.relative_to(ROOT), name) for name in imported(path.read_text(encoding="utf-8"), names))


def between_rooms():
    """{(room, room): a file with that import}."""
    found = {}
    for path, name in imports():
        if name.split(".")[0] in PACKAGES:
            ends = room(".".join(path.with_suffix("").parts)), room(name)
            if ends[0] != ends[1]:
                found[ends] = f"{path} imports {name}"
    return found


def drawn(text):
    """Rooms from top to bottom, and arrows."""
    rooms = NODE.findall(text)
    arrows = [(start, end) for start, ends in ARROW.findall(text) for end in ends.split(" & ")]
    return rooms, arrows


def reached(arrows):
    """{room: all that its arrows lead to}; arrows that only lead down."""
    below = defaultdict(set)
    for start, end in reversed(arrows):
        below[start] |= {end} | below[end]
    return below


def between_files(codes):
    """{module: the modules that it imports}, of {module: its code}."""
    found = {}
    for module, code in codes.items():
        found[module] = set()
        for name in imported(code, codes):
            while name and name not in codes:
                name = name.rpartition(".")[0]
            found[module] |= {name} - {"", module}
    return found


def circle(graph):
    """The nodes of a circle, from one to itself; [] without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    codes = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    assert circle(between_files(codes)) == []


def test_a_planted_circle_is_found():
    code = "from parity.c import x", "def f():\n package = f'parity.{name}'\n import_module(package)"
    assert circle(between_files({"parity.b": code[0], "parity.c": "if TYPE_CHECKING:\n import parity.b"}))
    assert circle(between_files({"parity.b": code[0], "parity.c": code[1]}))


def differences(text, found):
    """One line for each difference between a drawing and the imports between rooms."""
    rooms, arrows = drawn(text)
    unknown = [f"{name} is not drawn" for name in sorted({end for ends in found for end in ends} - set(rooms))]
    unknown += [f"{start} --> {end}: not a room" for start, end in arrows if not {start, end} <= set(rooms)]
    if unknown:
        return unknown
    up = [f"{start} --> {end} leads up" for start, end in arrows if rooms.index(start) >= rooms.index(end)]
    if up:
        return up
    below = reached(arrows)
    idle = [f"{start} --> {end}: nothing imports so" for start, end in arrows if (start, end) not in found]
    return idle + [
        f"no arrow leads from {start} to {end}: {where}"
        for (start, end), where in found.items()
        if end not in below.get(start, ())
    ]


def test_every_arrow_is_an_import_every_import_follows_the_arrows_and_none_leads_up():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert differences(text, between_rooms()) == []


def test_the_files_that_the_page_names_are_there_and_every_room_is_listed():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for path in modules().values()]
    named = [name for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text) if not (ROOT / name).exists()]
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in paths)] == []
    listed = set(re.findall(r"^\| `?(\w+)`? \| [\d,]+ \|", text, re.MULTILINE))
    assert listed == {room(name) for name in modules() if name.startswith("ms_vireid.")}


DRAWING = 'a["x"]\n b["y"]\n c["z"]\n a --> b\n b --> c\n'


@pytest.mark.parametrize(
    ("text", "imports_of", "difference"),
    [
        (DRAWING, {"ab", "bc", "ac"}, []),
        (DRAWING, {"ab", "bc", "ca"}, ["no arrow leads from c to a: ca"]),
        (DRAWING, {"ab"}, ["b --> c: nothing imports so"]),
        (DRAWING, {"ab", "bc", "bd"}, ["d is not drawn"]),
        (DRAWING + "c --> a\n", {"ab", "bc", "ca"}, ["c --> a leads up"]),
        (DRAWING.replace("a --> b\n", "a --> b & d\n"), {"ab"}, ["a --> d: not a room"]),
    ],
)
def test_a_planted_difference_is_named(text, imports_of, difference):
    assert differences(text, {tuple(ends): ends for ends in imports_of}) == difference


def test_parity_alone_imports_both_frameworks():
    foreign = {
        "ms_vireid": {"torch", "torchvision", "timm", "torch_ref", "parity"},
        "torch_ref": {"mindspore", "parity"},
    }
    wrong = [
        f"{path} imports {name}" for path, name in imports() if name.split(".")[0] in foreign.get(path.parts[0], ())
    ]
    assert wrong == []


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_top_of_the_repository_holds_what_belongs_there():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout that git reads")
    assert {name.partition("/")[0] for name in listed.stdout.split("\0") if name} <= TOP


def test_what_takes_long_is_named_as_it_is(pytestconfig):
    """In tests/extensive.py."""
    assert pytestconfig.unknown == []


INSIDE = 18  # imports within functions, at most, but for commands'; each has its reason beside it
COMMAND = "from ms_vireid.command.starting import at_once"  # in its file, whose functions import what they work with


def inside_functions(code):
    """{line of an import within a function: whether a comment is beside it, or above it and the imports before it}."""
    tree, lines = ast.parse(code), code.splitlines()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    nodes = {node for function in functions for node in ast.walk(function)}
    found = {}
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            above, first = lines[node.lineno - 2], lines[node.lineno - 1]
            found[node.lineno] = "#" in first or above.lstrip().startswith("#") or found.get(node.lineno - 1, False)
    return found


def test_imports_are_at_the_top_but_for_a_few_which_have_a_reason():
    found = {
        f"{path.relative_to(ROOT)}:{line}": reason
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if COMMAND not in (code := path.read_text(encoding="utf-8"))
        for line, reason in inside_functions(code).items()
    }
    assert len(found) <= INSIDE, list(found)
    assert [place for place, reason in found.items() if not reason] == []


def test_one_function_prints():
    """But for how a command ends, which needs no more imports; what it prints is escaped as well."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("ms_vireid", "torch_ref")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"(?<![\w.])print\(|\.write\(.*std(out|err)|std(out|err)\.write\(|tqdm\.write", path.read_text())
    }
    assert found == {"ms_vireid/command/printing.py", "ms_vireid/command/running.py"}


def test_one_module_reads_and_sets_the_environment():
    """And how a command shows its errors, which lies below all others."""
    found = {
        path.relative_to(ROOT / "ms_vireid").as_posix()
        for path in (ROOT / "ms_vireid").rglob("*.py")
        if re.search(r"\bos\.(environ|getenv|putenv)\b", path.read_text(encoding="utf-8"))
    }
    assert found == {"devices/runtime.py", "command/running.py"}


def frameworks_with(*modules):
    """Which framework the first of these modules that needs one brings into a fresh process."""
    script = "import sys\nfor name in sys.argv[1:]:\n    __import__(name)\n"
    script += "    found = {'torch', 'mindspore'} & sys.modules.keys()\n    if found: sys.exit(f'{name}: {found}')"
    done = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def test_framework_free_code_imports_neither_framework():
    """The benchmark's for the sake of its processes: MindSpore sets OMP_NUM_THREADS to 1, which they inherit."""
    of_project = [f"ms_vireid.{name}" for name in FRAMEWORK_FREE.split()]
    assert frameworks_with(*of_project, "parity.measure.sections") == ""


def test_a_command_imports_no_framework_until_its_device_is_set_up():
    """But for imports that say so, beside them or above."""
    found = {}
    for path in sorted((ROOT / "ms_vireid").glob("*.py")):
        if COMMAND in (code := path.read_text(encoding="utf-8")):
            reasons = inside_functions(code)
            of_file = [one for one in ast.walk(ast.parse(code)) if isinstance(one, ast.ImportFrom)]
            found[path.stem] = [one.module for one in of_file if not reasons.get(one.lineno, True)]
    assert {"train", "evaluate", "retrieve", "visualize"} <= {name for name, modules in found.items() if modules}
    assert frameworks_with(*sorted({module for modules in found.values() for module in modules})) == ""


@pytest.mark.parametrize("module", ["ms_vireid.engine.trainer", "ms_vireid.exports.onnx_graph"])
def test_the_toolbox_never_imports_torch(module):
    assert frameworks_with(module) == f"{module}: {{'mindspore'}}"

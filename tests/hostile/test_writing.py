"""Where commands write: what the user named, and the run's folder. What lies there stays; on a full disk as well."""

import os
import re
import shutil
import socket
import stat
from pathlib import Path

import pytest

from ms_vireid.command.names import CONFIG_ROOT
from tests.ablations.in_process import OPERATORS, TINY

from .commands import assert_refused
from .good import DEVICE, TRAIN
from .test_cases import listing

CHECKPOINT = ("--checkpoint", "run/model.safetensors")
MODEL = (*CHECKPOINT, *DEVICE)
ROOT = ("--data-root", "sysu")
SHOWN = ("ms_vireid.visualize",)
CHECK = ("ms_vireid.check_data",)
IVF = ("--index", "ivf")
PNG = ("--output", "new.png")
SEARCHED = ("ms_vireid.retrieve", "--query", "a.npz", "--gallery", "a.npz")
PAIR = ("--visible", "visible/one.png", "--infrared", "pictures/infrared/0001/0.jpg")
TORCH = ("torch_ref.evaluate", "--checkpoint", "torch.safetensors", "--device", "cpu")
TORCH_TRAIN = ("torch_ref.train", "--config", "tiny.yaml", "--device", "cpu")
# What each command may write.
COMMANDS = {
    "train": ((*TRAIN, "--output", "new", "train.backend=numba"), "new/"),
    "train-events": ((*TRAIN, "--output", "new", "train.tensorboard=true"), "new/"),
    "resume": ((*TRAIN, "--output", "run", "--resume", "auto"), "run/"),
    "evaluate": (("ms_vireid.evaluate", *MODEL, "--json", "new.json"), "new.json"),
    "sheet": (("ms_vireid.evaluate", *MODEL, "--corruption-sheet", "new.png"), "new.png"),
    "extract": (("ms_vireid.extract", *MODEL, "--images", "pictures", "--output", "new.npz"), "new.npz"),
    "retrieve": ((*SEARCHED, "--json", "new.json", "--sheet", "new.png"), ("new.json", "new.png")),
    "index": (("ms_vireid.retrieve", "--gallery", "a.npz", *IVF, "--save-index", "new.index"), "new.index"),
    "onnx": (("ms_vireid.export", *CHECKPOINT, "--format", "onnx", "--output", "new.onnx"), "new.onnx"),
    "mindir": (("ms_vireid.export", *CHECKPOINT, "--format", "mindir", "--output", "new.mindir"), "new.mindir"),
    "report": (("ms_vireid.report", "run", *DEVICE, "--output", "new.html"), "new.html"),
    "convert-pth": (("parity.convert", "run/last.safetensors", "new.pth"), "new.pth"),
    "convert-ckpt": (("parity.convert", "torch.safetensors", "new.ckpt"), "new.ckpt"),
    "convert-safetensors": (("parity.convert", "model.pth", "new.safetensors"), "new.safetensors"),
    "ranking": ((*SHOWN, "ranking", *MODEL, *PNG), "new.png"),
    "similarity": ((*SHOWN, "similarity", *MODEL, "--output", "new.svg"), "new.svg"),
    "gradcam": ((*SHOWN, "gradcam", *MODEL, "--images", "visible/one.png", "--modality", "visible", *PNG), "new.png"),
    "features": ((*SHOWN, "features", *MODEL, *PAIR, *PNG), "new.png"),
    "embedding": ((*SHOWN, "embedding", *MODEL, "--dimensions", "2", *PNG), "new.png"),
    "curves": ((*SHOWN, "curves", "run", *PNG), "new.png"),
    "check-data": ((*CHECK, "--data-root", "pictures", "data.name=folder", "--json", "new.json"), "new.json"),
    "torch-train": ((*TORCH_TRAIN, "--steps", "1", "--output", "new.safetensors"), "new.safetensors"),
    "torch-evaluate": ((*TORCH, *ROOT, "--json", "new.json", "--report", "new.md"), ("new.json", "new.md")),
}
TABLE = ("ms_vireid.ablate", "pmt-table-3", "--demo", "--rows", "dcl-all", *DEVICE, "--output", "new")
TABLE = (*TABLE, *TINY["pmt"], OPERATORS)


# What a user may have beside an output: names of ours among them, a link's after its "->", a folder's before a "/".
ENDED = 2**22 + 1  # no process has this number
LEFT = f".new.0123abcd.ms_vireid-{socket.gethostname()[:40]}-{{}}.tmp"
FOREIGN = (
    *(".notes.tmp.txt", ".new.tmp.json", ".new.tmp", ".new.npz.tmp", LEFT.format("x"), f"new.{ENDED}.tmp"),
    *(".cache.tmp/thesis.tex", ".new.tmp.npz/thesis.tex", f"{LEFT.format(ENDED)}/thesis.tex", "new.partial/thesis.tex"),
    *("tensorboard/thesis.tex", "tensorboard/events.out.tfevents.1.theirs", "checkpoints/last.safetensors"),
    *("link->.notes.tmp.txt", "linked->.cache.tmp", "dangling->gone", f"{LEFT.format(ENDED)}.png->.notes.tmp.txt"),
    *("read-only", "report.html", "table.md", "table.json", "log.txt", "state.json", "features.bin"),
)
OF_A_RUN = ("run.json", "config.yaml", "metrics.jsonl", "last.safetensors", "model.safetensors", "result.json", "lock")


def plant(folder, names=FOREIGN):
    """Files of a user's in a folder; returns what they are, for `unharmed`."""
    for name in names:
        path, link, target = (folder / name.partition("->")[0], *name.partition("->")[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target) if link else path.write_text(f"mine: {name}")
    if "read-only" in names:
        (folder / "read-only").chmod(0o444)
    return {path: found(path) for path in (folder / name.partition("->")[0] for name in names)}


def found(path):
    """What is at a path: its kind and mode, and a link's target or a file's content."""
    mode = os.lstat(path).st_mode
    return mode, os.readlink(path) if stat.S_ISLNK(mode) else path.read_bytes()


def unharmed(planted):
    return {path: found(path) if os.path.lexists(path) else "gone" for path in planted} == planted


# A table writes the synthetic set as well.
@pytest.mark.parametrize(
    ("command", "written"), [*COMMANDS.values(), (TABLE, ("new/", "runs/data/"))], ids=[*COMMANDS, "table"]
)
def test_a_command_writes_what_it_was_asked_to_and_nothing_else(command, written, good, commands, tmp_path):
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    for folder in environment.values():
        Path(folder).mkdir()
    place = shutil.copytree(good, tmp_path / "work/place", symlinks=True)
    written = [written] if isinstance(written, str) else written
    planted = {}
    for folder in {place, *(place / one for one in written if one.endswith("/"))}:
        planted |= plant(folder)
    before = listing(tmp_path)
    done = commands.run(place, *command, patient=command is TABLE, environment=environment)
    assert done.code == 0, done.stderr
    after = listing(tmp_path)
    changed = {os.fsdecode(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    allowed = tuple(str(place / one) for one in written)
    assert changed
    assert unharmed(planted)
    assert [path for path in changed if not path.startswith(allowed)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_leaves_what_was_there(name, good, commands, tmp_path):
    command, written = COMMANDS[name]
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    written = [written] if isinstance(written, str) else written
    files = [place / one for one in written if not one.endswith("/")]
    for path in files:
        path.write_bytes(b"earlier")
    overwrite = ("--overwrite",) if command[0] == "parity.convert" else ()
    assert_refused(commands.run(place, *command, *overwrite, file_limit=64))
    assert [path.read_bytes() for path in files] == [b"earlier"] * len(files)
    left = [path for path in place.rglob(".*") if ".tmp" in path.name]
    assert left == []


@pytest.mark.parametrize("name", [name for name, (_, written) in COMMANDS.items() if not str(written).endswith("/")])
def test_a_link_is_not_written_through_and_not_replaced(name, good, commands, tmp_path):
    command, written = COMMANDS[name]
    written = [written] if isinstance(written, str) else written
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    planted = plant(place, ["thesis.tex", *(f"{one}->thesis.tex" for one in written)])
    before = listing(place)
    assert "is a link; choose another" in assert_refused(commands.run(place, *command))
    assert unharmed(planted)
    assert listing(place) == before


PICTURE = "sysu/cam1/0001/a b (copy).jpeg"
SEARCH = ("ms_vireid.retrieve", *MODEL, "--query")
EVALUATE = ("ms_vireid.evaluate", *MODEL)
EXTRACT = ("ms_vireid.extract", *MODEL, "--images")
READ = [
    # Of each command that reads a data set, an output in the place of a picture of it.
    (*CHECK, "--config", "tiny.yaml", "--json", PICTURE),
    (*EVALUATE, *ROOT, "--json", PICTURE),
    (*SHOWN, "ranking", *MODEL, *ROOT, "--output", f"{PICTURE}.png"),
    ("ms_vireid.report", "run", *ROOT, *DEVICE, "--output", f"{PICTURE}.html"),
    (*TORCH_TRAIN, "--output", f"{PICTURE}.safetensors"),
    (*TORCH, *ROOT, "--json", PICTURE),
    # And in other places that are read.
    (*CHECK, "--config", "tiny.yaml", "--json", "sysu/new.json"),
    (*CHECK, "--config", "tiny.yaml", "--json", "picture.jpg"),
    (*CHECK, "--config", "over.yaml", "--json", "tiny.yaml"),
    (*EVALUATE, "--json", "run/model.safetensors"),
    (*EVALUATE, "--json", "run/a.png", "--corruption-sheet", "run/a.png"),
    (*EXTRACT, "pictures", "--output", "pictures/new.npz"),
    (*EXTRACT, ".", "--list", "list.npz", "--output", "list.npz"),
    (*SEARCH, "pictures", "--gallery", "a.npz", "--json", "pictures/new.json"),
    (*SEARCH, "a.npz", "--gallery", "pictures", "--sheet", "pictures/new.png"),
    (*SEARCHED, "--json", "a.npz"),
    (*SEARCHED, "--json", "new.png", "--sheet", "new.png"),
    (*SHOWN, "gradcam", *MODEL, "--images", "visible/one.png", "--output", "visible/one.png"),
    ("ms_vireid.export", *CHECKPOINT, "--format", "onnx", "--output", "run/model.onnx"),
    ("parity.convert", "run/model.safetensors", "run/model.safetensors", "--overwrite"),
    ("parity.convert", "foreign.safetensors", "--config", "tiny.ckpt", "tiny.ckpt", "--overwrite"),
]


@pytest.mark.parametrize(
    "command", READ, ids=[f"{one[0].rpartition('.')[2]}-{number}" for number, one in enumerate(READ)]
)
def test_what_is_read_is_not_written_to(command, good, commands, tmp_path, monkeypatch):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(place)
    Path("picture.jpg").hardlink_to(PICTURE)
    Path("over.yaml").write_text("base: tiny.yaml\n")
    Path("list.npz").write_text("visible/one.png\n")
    Path("run/model.onnx").symlink_to("model.safetensors")
    shutil.copy("tiny.yaml", "tiny.ckpt")
    before = listing(place)
    said = assert_refused(commands.run(place, *command))
    assert re.search("which this command reads; choose another place|is the file to convert|is a link", said)
    assert listing(place) == before


@pytest.mark.parametrize("name", [*OF_A_RUN, "run.json->thesis.tex", "metrics.jsonl->gone", "lock->gone"])
def test_a_run_is_not_begun_among_files_of_its_names(name, good, commands, tmp_path):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    planted = plant(place / "new", ["thesis.tex", name])
    before = listing(place)
    assert "choose another --output" in assert_refused(commands.run(place, *TRAIN, "--output", "new"))
    assert unharmed(planted)
    assert listing(place) == before


@pytest.mark.parametrize("name", ["report.html", "report.html->model.safetensors", "model.onnx"])
def test_a_file_of_a_name_that_no_option_gave_is_replaced_only_if_it_is_ours(name, good, commands, tmp_path):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    command = ("ms_vireid.export", *CHECKPOINT, "--format", "onnx")
    if name.startswith("report"):
        command = ("ms_vireid.report", "run", *DEVICE, "--queries", "0")
    path = place / "run" / name.partition("->")[0]
    planted = plant(place / "run", [name])
    assert_refused(commands.run(place, *command))
    assert unharmed(planted)
    path.unlink()
    for _ in range(2):
        assert commands.run(place, *command).code == 0
    assert path.is_file()


TABLES = {
    "...yaml": "does not give a valid folder name ('..')",
    "..yaml": "does not give a valid folder name ('.')",
    "\x1b[2J.yaml": r"does not give a valid folder name ('\x1b[2J')",
    "mine/table.md": "mine/table.md: already exists but was not written by this command",
    "mine/table.json": "mine/table.json: already exists but was not written by this command",
    "mine/dcl-all/seed0/log.txt": "mine/dcl-all/seed0/log.txt: already exists but was not written by this command",
    "mine/dcl-all/seed0/log.txt->thesis.tex": "mine/dcl-all/seed0/log.txt: already exists",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_writes_into_a_folder_of_its_own(name, good, commands, tmp_path):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    table = name if name.endswith(".yaml") else "mine.yaml"
    text = (CONFIG_ROOT / "ablations/pmt-table-3/table.yaml").read_text()
    (place / table).write_text(text.replace("../../", "configs/"))
    planted = {} if table == name else plant(place / "new", [name])
    before = listing(place)
    (command, _, *others) = TABLE
    said = assert_refused(commands.run(place, command, table, *others))
    assert TABLES[name] in said
    assert unharmed(planted)
    assert {path: one for path, one in listing(place).items() if b"/runs/data/" not in path} == before


ESCAPES = "\x1b[2J\n\u202e"


@pytest.mark.parametrize("name", ["train", "extract", "index", "convert-ckpt", "curves", "torch-train"])
def test_a_name_of_escapes_is_shown_and_not_obeyed(name, good, commands, tmp_path):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    command, written = COMMANDS[name]
    done = commands.run(place, *(word.replace("new", f"new{ESCAPES}") for word in command))
    assert done.code == 0, done.stderr
    assert os.path.exists(place / written.replace("new", f"new{ESCAPES}"))
    printed = done.stdout + done.stderr
    assert all(one.isprintable() for line in printed.split("\n") for one in line.replace("\r", ""))
    assert r"new\x1b[2J\n\u202e" in printed

"""Where commands write: what the user named, and the run's folder; on a full disk nothing is lost."""

import os
import shutil
from pathlib import Path

import pytest

from tests.ablations.in_process import TINY

from .commands import assert_refused
from .good import DEVICE, TRAIN
from .test_cases import listing

CHECKPOINT = ("--checkpoint", "run/model.safetensors")
SHOWN = ("ms_vireid.visualize",)
# What each command may write.
COMMANDS = {
    "train": ((*TRAIN, "--output", "new"), "new/"),
    "resume": ((*TRAIN, "--output", "run", "--resume", "auto"), "run/"),
    "evaluate": (("ms_vireid.evaluate", *CHECKPOINT, *DEVICE, "--json", "new.json"), "new.json"),
    "sheet": (("ms_vireid.evaluate", *CHECKPOINT, *DEVICE, "--corruption-sheet", "new.png"), "new.png"),
    "extract": (("ms_vireid.extract", *CHECKPOINT, *DEVICE, "--images", "pictures", "--output", "new.npz"), "new.npz"),
    "retrieve": (
        ("ms_vireid.retrieve", "--query", "a.npz", "--gallery", "a.npz", "--json", "new.json", "--sheet", "new.png"),
        ("new.json", "new.png"),
    ),
    "index": (
        ("ms_vireid.retrieve", "--gallery", "a.npz", "--index", "hnsw", "--save-index", "new.index"),
        "new.index",
    ),
    "onnx": (("ms_vireid.export", *CHECKPOINT, "--format", "onnx", "--output", "new.onnx"), "new.onnx"),
    "mindir": (("ms_vireid.export", *CHECKPOINT, "--format", "mindir", "--output", "new.mindir"), "new.mindir"),
    "report": (("ms_vireid.report", "run", *DEVICE, "--output", "new.html"), "new.html"),
    "convert-pth": (("parity.convert", "run/last.safetensors", "new.pth"), "new.pth"),
    "convert-ckpt": (("parity.convert", "torch.safetensors", "new.ckpt"), "new.ckpt"),
    "convert-safetensors": (("parity.convert", "model.pth", "new.safetensors"), "new.safetensors"),
    "ranking": ((*SHOWN, "ranking", *CHECKPOINT, *DEVICE, "--output", "new.png"), "new.png"),
    "similarity": ((*SHOWN, "similarity", *CHECKPOINT, *DEVICE, "--output", "new.svg"), "new.svg"),
    "gradcam": (
        (*SHOWN, "gradcam", *CHECKPOINT, *DEVICE, "--images", "visible/one.png", "--output", "new.png"),
        "new.png",
    ),
    "curves": ((*SHOWN, "curves", "run", "--output", "new.png"), "new.png"),
    "ladder": (
        ("parity.report", "--rung", "3", "--match", "hct", "--program", "operators", "--html", "new.html"),
        "new.html",
    ),
}
TABLE = ("ms_vireid.ablate", "pmt-table-3", "--demo", "--rows", "dcl-all", *DEVICE, "--output", "new", *TINY["pmt"])


# A table writes the synthetic set as well.
@pytest.mark.parametrize(
    ("command", "written"), [*COMMANDS.values(), (TABLE, ("new/", "runs/data/"))], ids=[*COMMANDS, "table"]
)
def test_a_command_writes_what_it_was_asked_to_and_nothing_else(command, written, good, commands, tmp_path):
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    for folder in environment.values():
        Path(folder).mkdir()
    place = shutil.copytree(good, tmp_path / "work/place", symlinks=True)
    before = listing(tmp_path)
    done = commands.run(place, *command, patient=command is TABLE, environment=environment)
    assert done.code == 0, done.stderr
    after = listing(tmp_path)
    changed = {os.fsdecode(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    allowed = tuple(str(place / one) for one in ([written] if isinstance(written, str) else written))
    assert changed
    assert [path for path in changed if not path.startswith(allowed)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_leaves_what_was_there(name, good, commands, tmp_path):
    command, written = COMMANDS[name]
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    written = [written] if isinstance(written, str) else list(written)
    files = [place / one for one in written if not one.endswith("/")]
    for path in files:
        path.write_bytes(b"earlier")
    overwrite = ("--overwrite",) if command[0] == "parity.convert" else ()
    assert_refused(commands.run(place, *command, *overwrite, file_limit=64))
    assert [path.read_bytes() for path in files] == [b"earlier"] * len(files)
    left = [path for path in place.rglob(".*") if ".tmp" in path.name]
    assert left == []

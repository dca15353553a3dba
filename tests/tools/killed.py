"""Commands killed at moments drawn from a seed, run again, and compared bit by bit with an undisturbed run.

    python -m tests.tools.killed [--only NAME ...] [--moments N] [--seed N]

For each command: how often it was killed at work, how often its output was then lost (the same command does not bring
it to its end) or wrong (it ends, with another output), how often a temporary file stayed, and the longest that anything
of it went on after the signal. The exit code is 1 if anything was lost or wrong.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from ms_vireid import train
from ms_vireid.files.weights import read_checkpoint
from ms_vireid.files.writing import TEMPORARY
from ms_vireid.inference.feature_files import load_features
from tests.data.tree import write_sysu_mm01
from tests.hostile.good import CONFIG, DEVICE
from tests.test_distributed import BIN, free_port

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LIMIT_S = 300.0
ALONE_S = 30.0  # that anything may go on after the signal
TIMED = ("images_per_second", "content_checksum")  # of a line of metrics.jsonl
PORT = "PORT"  # stands for a free one
OWN = """
title: Killed
seeds: 2
sets: {sysu_mm01: [evaluation.trials=1]}
columns: [{name: SYSU-MM01, data: sysu_mm01, metrics: [rank1, map]}]
rows: [{name: one, config: tiny.yaml}]
"""
TRAIN = ("-m", "ms_vireid.train", "--config", "tiny.yaml", *DEVICE, "--output", "run", "--resume", "auto")
LONGER = ("stages=[{epochs: 2, losses: {id: {}, pht: {stage: 2}}}]", "train.iterations=8", "train.checkpoint_steps=2")
Content = dict[str, bytes | str]


@dataclass(frozen=True)
class Command:
    """argv: of Python; the same after a kill. content: what it leaves in its folder, without times. victims: the ranks
    of its processes that the signal goes to; none: the command itself."""

    argv: tuple[str, ...]
    content: Callable[[Path], Content]
    victims: tuple[int, ...] = ()


@dataclass
class Tally:
    killed: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    longest_s: float = 0.0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_weights(folder: Path, run: str = "run") -> Content:
    """Of a training: every weight, moment and number but those of time."""
    found = {}
    for name in ("model.safetensors", "last.safetensors"):
        held = read_checkpoint(folder / run / name)
        found |= {f"{name} {key}": digest(np.ascontiguousarray(array).tobytes()) for key, array in held.arrays.items()}
    rows = map(json.loads, (folder / run / "metrics.jsonl").read_text().splitlines())
    return found | {
        "metrics": json.dumps([{key: row[key] for key in row if key not in TIMED} for row in rows]),
        "result": (folder / run / "result.json").read_text(),
    }


def of_features(folder: Path) -> Content:
    held = load_features(folder / "day.npz")
    return {"features": held.features.tobytes(), "paths": str(held.paths.tolist()), "info": str(held.info)}


def of_table(folder: Path) -> Content:
    content = {}
    for seed in (0, 1):
        content |= {f"{seed} {key}": value for key, value in of_weights(folder, f"out/own/one/seed{seed}").items()}
    rows = json.loads((folder / "out/own/table.json").read_text())["rows"]
    return content | {"numbers": json.dumps([row["numbers"] for row in rows])}


def of_gallery(folder: Path) -> Content:
    """What a search of the Milvus gallery finds."""
    argv = ("-m", "ms_vireid.retrieve", "--gallery", "milvus:gallery.db", "--query", "a.npz", "--json", "found.json")
    problem = finish(folder, Command(argv, of_gallery))
    return {"found": problem or (folder / "found.json").read_text()}


def of_file(name: str) -> Callable[[Path], Content]:
    return lambda folder: {name: digest((folder / name).read_bytes())}


EXTRACT = ("-m", "ms_vireid.extract", "--checkpoint", "base/model.safetensors", "--images", "sysu/cam1", *DEVICE)
MSRUN = (str(BIN / "msrun"), "--worker_num=2", "--local_worker_num=2", f"--master_port={PORT}", "--join=True")
ALONE = ("train.num_identities=1", "stages=[{epochs: 2, losses: {id: {}}}]")  # three people are too few for two of two
TWO = (*MSRUN, "--log_dir=logs", train.__file__, *TRAIN[2:], *LONGER, *ALONE, "train.program=numba")
COMMANDS = {
    "train, numba": Command((*TRAIN, *LONGER, "train.program=numba"), of_weights),
    "train, eager": Command((*TRAIN, *LONGER, "train.program=eager"), of_weights),
    "train, graph": Command((*TRAIN, *LONGER, "train.program=graph"), of_weights),
    "train, one of two processes": Command(TWO, of_weights, (1,)),
    "train, both of two processes": Command(TWO, of_weights, (0, 1)),
    "extract": Command((*EXTRACT, "--output", "day.npz", "--batch-size", "1"), of_features),
    "retrieve --save-index": Command(
        ("-m", "ms_vireid.retrieve", "--gallery", "a.npz", "--index", "ivf", "--save-index", "a.index"),
        of_file("a.index"),
    ),
    "retrieve --add": Command(
        ("-m", "ms_vireid.retrieve", "--gallery", "milvus:gallery.db", "--add", "a.npz"), of_gallery
    ),
    "ablate": Command(("-m", "ms_vireid.ablate", "own.yaml", *DEVICE, "--output", "out"), of_table),
    "report": Command(("-m", "ms_vireid.report", "base", *DEVICE, "--output", "page.html"), of_file("page.html")),
    "export": Command(
        ("-m", "ms_vireid.export", "--checkpoint", "base/model.safetensors", "--format", "onnx", "--output", "m.onnx"),
        of_file("m.onnx"),
    ),
    "convert": Command(("-m", "parity.convert", "base/model.safetensors", "m.pth", "--overwrite"), of_file("m.pth")),
}


def start(folder: Path, argv: tuple[str, ...]) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    added = {"PYTHONPATH": root, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "MS_NODE_TIMEOUT": "5"}
    argv = [part.replace(PORT, str(free_port())) for part in argv]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *argv], cwd=folder, stdout=log, stderr=log, env=os.environ | added, start_new_session=True
        )


def finish(folder: Path, command: Command) -> str | None:
    """Run it to its end; why it did not come there, or None."""
    process = start(folder, command.argv)
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"still at work after {LIMIT_S:.0f} s"
    said = (folder / "log.txt").read_text().splitlines() or [""]
    return None if code == 0 else f"ended with {code}: {said[-1]}"


def victims_of(command: Command, process: subprocess.Popen) -> list[psutil.Process]:
    """Those that are there by now."""
    itself = psutil.Process(process.pid)
    if not command.victims:
        return [itself]
    found = []
    for child in itself.children(recursive=True):
        with suppress(psutil.Error):
            if child.environ().get("RANK_ID", "") in map(str, command.victims) and "python" in child.name():
                found.append(child)
    return found


def kill(folder: Path, command: Command, moment_s: float, number: int) -> float | None:
    """Begin it and signal its victims at a moment: the seconds until all of it had ended, None where it had before."""
    process = start(folder, command.argv)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment_s)
        return None
    victims = victims_of(command, process)
    for victim in victims:
        with suppress(psutil.Error):
            victim.send_signal(number)
    sent = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(LIMIT_S)
    alive = [other for other in psutil.process_iter(["cwd"]) if other.info["cwd"] == str(folder)]
    _, alive = psutil.wait_procs(alive, ALONE_S)
    for other in alive:
        other.kill()
    return time.monotonic() - sent if victims else None


def undisturbed(pristine: Path, command: Command) -> tuple[Content, float]:
    """What the command leaves, and its seconds the second time, with everything compiled."""
    seconds, content = 0.0, {}
    for turn in range(2):
        folder = pristine.with_name("work")
        shutil.copytree(pristine, folder)
        begun = time.monotonic()
        if problem := finish(folder, command):
            raise SystemExit(f"{' '.join(command.argv)}: undisturbed, it {problem}")
        seconds = time.monotonic() - begun
        before, content = content, command.content(folder)
        shutil.rmtree(folder)
        if turn and before != content:
            differing = next(key for key in content if before.get(key) != content[key])
            raise SystemExit(f"{' '.join(command.argv)}: two runs differ in {differing}, so nothing can be compared")
    return content, seconds


def tally(pristine: Path, name: str, moments: int, seed: int) -> Tally:
    command, found = COMMANDS[name], Tally()
    whole, seconds = undisturbed(pristine, command)
    draw = random.Random(f"{seed} {name}")
    for moment in range(moments):
        at, number = draw.uniform(0, seconds), SIGNALS[moment % len(SIGNALS)]
        folder = pristine.with_name("work")
        shutil.copytree(pristine, folder)
        if (ended := kill(folder, command, at, number)) is not None:
            found.killed += 1
            found.longest_s = max(found.longest_s, ended)
        what = f"{name}, {number.name} after {at:.2f} of {seconds:.2f} s"
        if problem := finish(folder, command):
            found.lost.append(f"{what}: {problem}")
        elif differing := [key for key, value in command.content(folder).items() if whole.get(key) != value]:
            found.wrong.append(f"{what}: {differing[0]}")
        if left := [path.name for path in folder.rglob(".*") if TEMPORARY.fullmatch(path.name)]:
            found.left.append(f"{what}: {left[0]}")
        shutil.rmtree(folder)
    return found


def prepare(folder: Path) -> Path:
    """What all commands begin with: pictures, recipes, a finished run and its features."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "own.yaml").write_text(OWN)
    write_sysu_mm01(folder / "sysu")
    for argv in (("-m", "ms_vireid.train", "--config", "tiny.yaml", *DEVICE, "--output", "base"),
                 (*EXTRACT, "--output", "a.npz")):  # fmt: skip
        if problem := finish(folder, Command(argv, of_features)):
            raise SystemExit(f"{' '.join(argv)}: {problem}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME")
    parser.add_argument("--moments", type=int, default=30, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    print(f"{'':<32}{'killed':>8}{'lost':>6}{'wrong':>7}{'left':>6}{'ended within':>14}", flush=True)
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        pristine = prepare(Path(folder) / "pristine")
        for name in arguments.only:
            found = tally(pristine, name, arguments.moments, arguments.seed)
            numbers = f"{found.killed:>8}{len(found.lost):>6}{len(found.wrong):>7}{len(found.left):>6}"
            print(f"{name:<32}{numbers}{found.longest_s:>12.1f} s", flush=True)
            bad += found.lost + found.wrong
            for line in (*found.lost, *found.wrong, *found.left):
                print(f"  {line}", file=sys.stderr, flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

"""The dependencies as pyproject.toml declares them, tried in environments of their own. Needs `pip install uv`.

    python -m tests.tools.dependencies [--python VERSION ...] [--resolution NAME ...] [--torch BUILD ...]
    python -m tests.tools.dependencies --extras [NAME ...]
    python -m tests.tools.dependencies --constraints

The first runs the tests of dependencies.txt beside this file, which touch every dependency, with the lowest versions
allowed and with the newest, on each Python, with PyTorch built for CUDA, as the package index has it, and built for
CPUs, as PyTorch's own index has it. The second installs a wheel that was built from an sdist, alone and with each
extra, and runs the commands that the extra is for. The third writes constraints.txt: what the newest
were. The exit code is 1 if anything failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from tests.test_train import TINY

ROOT = Path(__file__).parents[2]
PYTHONS, RESOLUTIONS = ("3.10", "3.11", "3.12"), ("lowest-direct", "highest")
BIN = "Scripts" if os.name == "nt" else "bin"
SELECTION = Path(__file__).with_suffix(".txt").read_text().split()
OPTIONS = f"--device CPU --data-root data {TINY} train.iterations=2 stages.0.epochs=1 stages.1.epochs=1"
TRAIN = f"train --output run {OPTIONS}"
MODEL = "--checkpoint run/model.safetensors"
NIGHT = f"extract {MODEL} --device CPU --images data/cam3 --output night.npz"
SEARCH = "retrieve --query night.npz --gallery"
BUILDS = {"cuda": (), "cpu": ("--torch-backend", "cpu")}  # of PyTorch
NONE = "none"
# By extra, what the wheel does with it in an empty folder; all begin with a training.
COMMANDS = {
    NONE: [f"evaluate {MODEL} --device CPU --rerank", f"export {MODEL} --format mindir", NIGHT, f"{SEARCH} night.npz"],
    "convert": ["convert run/model.safetensors model.pth", "convert model.pth again.safetensors"],
    "export": [f"export {MODEL} --format onnx"],
    "gpu": [f"evaluate {MODEL} --device CPU"],
    "parity": ["-m parity.report --rung 1 3 --small", "-m torch_ref.train --steps 1 " + OPTIONS.replace("CPU", "cpu")],
    "search": [
        NIGHT,
        f"{SEARCH} night.npz --index ivf --save-index night.index",
        f"{SEARCH} night.index",
        f"{SEARCH} milvus:night.db --add night.npz",
    ],
    "tensorboard": [f"{TRAIN} --resume auto train.tensorboard=true stages.1.epochs=2".replace("run ", "other ")],
    "viz": ["report run --device CPU", f"visualize embedding {MODEL} --device CPU --output seen.png"],
}


def sh(*words: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess:
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def uv(*words: str | Path) -> None:
    done = sh("uv", *words)
    if done.returncode:
        sys.exit(f"uv {' '.join(map(str, words))}:\n{done.stderr}")


def environment(folder: Path, python: str) -> Path:
    """A new environment's interpreter."""
    uv("venv", "-q", "--clear", "--python", python, folder)
    return folder / BIN / "python"


def resolved(path: Path, python: str, resolution: str, *further: str) -> Path:
    chosen = ("--python-version", python, "--resolution", resolution, "--extra", "test", "--extra", "convert", *further)
    uv("pip", "compile", "-q", "--no-header", "--no-annotate", *chosen, ROOT / "pyproject.toml", "-o", path)
    return path


def tested(folder: Path, python: str, resolution: str, build: str) -> str:
    """What pytest says of the selection in its last line."""
    listing = resolved(folder / "requirements.txt", python, resolution, *BUILDS[build])
    interpreter = environment(folder / "environment", python)
    uv("pip", "install", "-q", "--python", interpreter, "-r", listing, *BUILDS[build])
    uv("pip", "install", "-q", "--python", interpreter, "--no-deps", "-e", ROOT)
    done = sh(interpreter, "-m", "pytest", "-n", "0", *SELECTION)
    failed = re.findall(r"^(?:FAILED|ERROR).*", done.stdout, re.MULTILINE)
    return "\n  ".join([(done.stdout.splitlines() or [done.stderr])[-1], *failed])


def wheel(folder: Path) -> Path:
    """Built from an sdist of the checkout."""
    uv("build", "-q", "--sdist", "--out-dir", folder, ROOT)
    uv("build", "-q", "--wheel", "--out-dir", folder, next(folder.glob("*.tar.gz")))
    return next(folder.glob("*.whl"))


def works(folder: Path, built: Path, extra: str) -> str:
    """ "ok", or what failed."""
    interpreter = environment(folder / "environment", PYTHONS[-1])
    wanted = f"ms_vireid[{extra}] @ {built.as_uri()}" if extra != NONE else built
    uv("pip", "install", "-q", "--python", interpreter, wanted)
    place = folder / "place"
    place.mkdir()
    for command in (TRAIN, *COMMANDS[extra]):
        words = command.split()
        done = sh(interpreter, *words[:2], *words[2:], folder=place) if words[0] == "-m" else sh(
            interpreter, "-m", "ms_vireid", *words, folder=place
        )  # fmt: skip
        if done.returncode:
            return f"failed: {command}\n{done.stderr[-2000:]}"
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS)
    parser.add_argument("--resolution", nargs="+", choices=RESOLUTIONS, default=RESOLUTIONS)
    parser.add_argument("--torch", nargs="+", choices=BUILDS, default=list(BUILDS))
    parser.add_argument("--extras", nargs="*", choices=COMMANDS, metavar="NAME")
    parser.add_argument("--constraints", action="store_true")
    arguments = parser.parse_args()
    declared = (ROOT / "pyproject.toml").read_text()
    optional = declared[declared.index("[project.optional-dependencies]") : declared.index("[project.scripts]")]
    extras = re.findall(r"^(\w+) = \[", optional, re.MULTILINE)
    assert COMMANDS.keys() == {NONE, *extras} - {"test"}
    if arguments.constraints:
        resolved(ROOT / "constraints.txt", PYTHONS[0], RESOLUTIONS[-1], "--universal")
        return
    failed = False
    with tempfile.TemporaryDirectory() as place:
        if arguments.extras is not None:
            built = wheel(Path(place))
            for extra in arguments.extras or COMMANDS:
                with tempfile.TemporaryDirectory() as folder:
                    said = works(Path(folder), built, extra)
                print(f"wheel, {extra}: {said}", flush=True)
                failed |= said != "ok"
            sys.exit(failed)
    for row in product(arguments.python, arguments.resolution, arguments.torch):
        with tempfile.TemporaryDirectory() as folder:
            said = tested(Path(folder), *row)
        print(f"{', '.join(row)}: {said}", flush=True)
        failed |= " passed" not in said or " failed" in said or " error" in said
    sys.exit(failed)


if __name__ == "__main__":
    main()

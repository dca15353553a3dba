"""Every command from a wheel, in an empty folder that knows nothing of the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid.__main__ import COMMANDS

from .test_train import TINY

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "ms_vireid", "parity", "torch_ref")
OPTIONS = [*TINY.split(), "train.iterations=2", "stages.0.epochs=1", "stages.1.epochs=1", "train.backend=eager"]
CHECKPOINT = ("--checkpoint", "run/model.safetensors")
INFERENCE = ("--device", "CPU", "--backend", "eager")
CALLS = [
    ["train", "--device", "CPU", "--config", "configs/demo.yaml", "--output", "run", "--data-root", "data", *OPTIONS],
    ["evaluate", *INFERENCE, *CHECKPOINT],
    ["extract", *INFERENCE, *CHECKPOINT, "--images", "data/cam1", "--workers", "0", "--output", "day.npz"],
    ["retrieve", *INFERENCE, "--query", "day.npz", "--gallery", "day.npz", "--json", "found.json"],
    ["visualize", "curves", "run", "--output", "curves.png"],
    ["export", *CHECKPOINT, "--format", "mindir", "--output", "model.mindir"],
    ["report", "run", *INFERENCE, "--queries", "0"],
    ["ablate", "--list"],
    ["check-data", "--config", "run/config.yaml", "--json", "counts.json"],
    ["convert", "run/model.safetensors", "model.pth"],
]
# One process for all, as each would take seconds to import MindSpore.
DRIVER = """
import json, sys
import ms_vireid.__main__ as program
print(program.__file__)
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ms-vireid", *arguments]
    try:
        program.main()
    except SystemExit as ended:
        assert not ended.code, arguments
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's packages. The wheel is built of a copy, as a build leaves its own files there."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        source, ignored = ROOT / part, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / "source" / part, ignore=ignored)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(source, folder / "source")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder / "site"]
    subprocess.run([*install, folder / "source"], check=True, capture_output=True, text=True)
    return folder / "site"


def run_from(site, folder, *arguments):
    # Numba would compile everything again for files in another place.
    environment = os.environ | {"PYTHONPATH": str(site), "NUMBA_DISABLE_JIT": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_every_command_runs(site, tmp_path):
    done = run_from(site, tmp_path, "-c", DRIVER, json.dumps(CALLS))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == str(site / "ms_vireid/__main__.py")
    assert {name for name, *_ in CALLS} == set(COMMANDS)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"run", "data", "day.npz", "found.json", "counts.json", "curves.png", "model.mindir", "model.pth"} <= made
    assert (tmp_path / "run/report.html").exists()
    assert "pmt-table-3" in done.stdout


def test_from_python_the_version_is_the_packages_and_types_are_there(site, tmp_path):
    done = run_from(site, tmp_path, "-c", "import ms_vireid as package; print(package.__version__, package.__file__)")
    assert done.stdout.split() == ["0.1.0", str(site / "ms_vireid/__init__.py")]
    assert (site / "ms_vireid/py.typed").is_file()


def test_a_missing_extra_is_named_by_its_packages(site, tmp_path):
    script = "import sys; sys.modules['sklearn'] = None; import ms_vireid.__main__ as program; program.main()"
    refused = run_from(site, tmp_path, "-c", script, "visualize", "curves", "run", "--output", "curves.png")
    command = "pip install 'jinja2>=3.1' 'matplotlib>=3.7.3' 'scikit-learn>=1.3.1'"
    assert (refused.returncode, refused.stderr) == (2, f"error: visualize.py needs sklearn: {command}\n")


def test_the_conversion_needs_neither_torchvision_nor_timm(site, tmp_path):
    script = "import sys; sys.modules |= dict.fromkeys({absent}); import ms_vireid.__main__ as program; program.main()"
    words = "convert", "nowhere.pth", "a.safetensors"
    refused = run_from(site, tmp_path, "-c", script.format(absent=["torchvision", "timm", "jinja2"]), *words)
    assert refused.stderr == "error: nowhere.pth: no such checkpoint file\n"
    refused = run_from(site, tmp_path, "-c", script.format(absent=["torch"]), *words)
    assert refused.stderr == "error: convert.py needs torch: pip install torch==2.13.0\n"


def test_the_script_has_help_and_tells_a_mistake_in_one_line(site, tmp_path):
    script = site / "bin/ms-vireid"
    helped = run_from(site, tmp_path, script, "train", "--help")
    assert helped.returncode == 0
    assert "usage: ms-vireid train" in helped.stdout
    assert run_from(site, tmp_path, script, "--version").stdout.startswith("ms_vireid 0.1.0\nPython 3.")
    refused = run_from(site, tmp_path, script, "trian")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "invalid choice: 'trian'" in refused.stderr


def test_the_launcher_of_the_cuda_kernels_is_built_and_not_used_once_its_sources_have_changed(site, tmp_path):
    script = "from ms_vireid.backends.cuda import build; print(build._built_launcher())"
    folder = site / "ms_vireid/backends/cuda"
    (library,) = folder.glob("launcher*.so")
    assert run_from(site, tmp_path, "-c", script).stdout == f"{library}\n"
    header = folder / "launcher.h"
    text = header.read_text()
    header.write_text(text + "/* changed */\n")
    try:
        assert run_from(site, tmp_path, "-c", script).stdout == "None\n"
    finally:
        header.write_text(text)

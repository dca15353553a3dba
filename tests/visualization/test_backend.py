"""No window is drawn: Matplotlib is imported with Agg, whatever MPLBACKEND says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRAW = """
import importlib, os, sys
from pathlib import Path
importlib.import_module(sys.argv[1])
import matplotlib
from ms_vireid.visualization.figure import new_figure, save_figure
figure = new_figure(1, 1)
figure.add_subplot().plot([1, 2])
save_figure(figure, Path(sys.argv[2]))
print(matplotlib.get_backend(), os.environ.get("MPLBACKEND"))
"""
# To import Matplotlib.
FIRST = "ms_vireid.visualization.sheet", "ms_vireid.visualization.figure", "ms_vireid.visualization.page"
BACKENDS = "module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"


@pytest.mark.parametrize(("module", "backend"), list(zip(FIRST, BACKENDS, strict=True)))
def test_a_backend_that_is_not_there_is_not_asked_for(module, backend, tmp_path):
    environment = os.environ | {"MPLBACKEND": backend}
    words = [sys.executable, "-c", DRAW, module, tmp_path / "figure.png"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].lower() == f"agg {backend}".lower()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_one_package_imports_matplotlib():
    imports = re.compile(r"^\s*(import|from) matplotlib\b", re.MULTILINE)
    places = {
        path.relative_to(ROOT).parent.as_posix()
        for package in ("ms_vireid", "torch_ref", "parity")
        for path in (ROOT / package).rglob("*.py")
        if imports.search(path.read_text(encoding="utf-8"))
    }
    assert places == {"ms_vireid/visualization"}

"""Plain MindSpore runs without the folders of the kernels."""

import os
import subprocess
import sys
from pathlib import Path

from tests.test_train import QUICK

PACKAGE = Path(__file__).parents[2] / "ms_vireid"
KERNELS = {"numba", "cuda"}


def test_eager_trains_in_a_copy_of_the_package_without_them(tmp_path):
    backends = tmp_path / "ms_vireid/backends"
    backends.mkdir(parents=True)
    for source in [*PACKAGE.iterdir(), *(PACKAGE / "backends").iterdir()]:  # links: what is compiled already, stays so
        if source.name not in {"backends", "__pycache__"} | KERNELS:
            (tmp_path / "ms_vireid" / source.relative_to(PACKAGE)).symlink_to(source)
    assert not KERNELS & {path.name for path in backends.iterdir()}
    command = [sys.executable, "-m", "ms_vireid.train", "--device", "CPU", "--output", "run", "--data-root", "data"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([*command, *QUICK], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run/model.safetensors").is_file()

"""What the pages show of Python, as it stands, after the README's first line for two folders; and the notebook."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.tree import write_folder
from tests.test_own_folders import QUICK, command, people

ROOT = Path(__file__).parents[1]


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    write_folder(folder / "people", people(12))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command("ms_vireid/train.py", *QUICK)
    return folder


def in_python(folder, code):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_blocks_run_without_a_warning(trained):
    done = in_python(trained, "\n".join(blocks("docs/python.md")))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "(24, 64) 0001 0001/0.jpg"
    assert float(lines[1]) < 1e-6
    assert sum(line.startswith(("0.jpg ", "1.jpg ")) for line in lines) == 2 * 3
    assert "query 0.jpg (infrared, identity 0012)" in lines
    assert (
        "{'data': 'folder', 'direction': 'visible-to-infrared', "
        "'flip': True, 'renormalise': False, 'rerank': False, 'corrupted': False}" in lines
    )
    assert re.fullmatch(r"rank-1 \d+\.\d\d%, mAP \d+\.\d\d%, 12 queries", lines[-3])
    assert "'pmt_vit_base'" in lines[-2]
    assert lines[-1] == "--mode: folder is evaluated without it; leave it out"
    assert (trained / "day.npz").is_file()


def test_the_notebook_runs_and_finds_people_better_than_chance(tmp_path):
    cells = json.loads((ROOT / "docs/search.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    done = in_python(tmp_path, "\n".join(code))
    assert (done.returncode, done.stderr) == (0, "")
    rates = re.search(r"rank-1 (\d+\.\d)%, by chance (\d+\.\d)%", done.stdout)
    assert float(rates[1]) > 2 * float(rates[2])
    assert (tmp_path / "found.png").stat().st_size > 10_000

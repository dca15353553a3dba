"""What the pages show of Python, as it stands, after the README's first line for two folders; and the notebook."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.tree import write_folder
from tests.test_own_folders import QUICK, command, people

ROOT = Path(__file__).parents[1]


SPELLING = {
    "ms_vireid": "torch_ref",
    "mindspore": "torch",
    "nn.Cell": "nn.Module",
    "construct": "forward",
    "import ReIDModel": "import ReIDModel, TrainingOutputs",
}


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
        "{'trained_on': 'folder', 'data': 'folder', 'direction': 'visible-to-infrared', "
        "'flip': True, 'renormalise': False, 'rerank': False, 'corrupted': False}" in lines
    )
    assert re.fullmatch(r"rank-1 \d+\.\d\d%, mAP \d+\.\d\d%, 12 queries", lines[-3])
    assert "'pmt_vit_base'" in lines[-2]
    assert lines[-1] == "--mode: folder is evaluated without it; leave it out"
    assert (trained / "day.npz").is_file()


def steps(page):
    """The files that a loss and a model take, with the block of each."""
    text = (ROOT / page).read_text(encoding="utf-8").split("\n## ")
    step = re.compile(r"^\d\. `([\w/]+\.\w+)`.*?^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [found for section in text[1:3] for found in step.findall(section)]


def in_pytorch(code):
    for name, other in SPELLING.items():
        code = code.replace(name, other)
    return re.sub(r"return (self\.classifier.*)", r"return TrainingOutputs(\1)", code)


def take(path, block):
    """Make a file of the block, or add it to the file: after the line of the block that stands there already, else at
    its end."""
    path.parent.mkdir(exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    line = next((line for line in block.splitlines() if line and line[0] != " " and f"\n{line}\n" in text), None)
    path.write_text(text.replace(f"\n{line}\n", f"\n{block}", 1) if line else text + block, encoding="utf-8")


TINY = """
data.name=synthetic data.image_size=[48,24] data.workers=0 data.synthetic.train_identities=4
data.synthetic.val_identities=1 data.synthetic.test_identities=2 data.synthetic.images_per_camera=1
data.synthetic.image_size=[32,16] model.pretrained=none model.layers=[1,1,1,1] model.width=4 train.num_identities=2
train.num_instances=2 train.iterations=2 train.program=eager train.log_steps=1 stages.0.epochs=1 evaluation.trials=1
stages.0.losses.center.weight=0.5
"""


# The page's commands in one process, as each would take seconds to import MindSpore and PyTorch.
DRIVER = """
import importlib, json, sys
for name, *sys.argv[1:] in json.loads(sys.argv[1]):
    importlib.import_module(name).main()
    print("-" * 9)
"""
TRAIN = ["ms_vireid.train", "--device", "CPU", "--config", "configs/plain/sysu.yaml", "--output", "run", *TINY.split()]
REPORT = ["parity.report", "--device", "CPU", "--program", "eager", "--processes", "1", "--match"]
SUBJECTS = ("center distance", "Plain small")


def test_a_loss_and_a_model_are_added_as_the_page_says(tmp_path):
    for package in ("ms_vireid", "torch_ref", "parity"):
        half_written = shutil.ignore_patterns("*.pyc.*", "*.tmp*")  # what other tests' processes compile meanwhile
        shutil.copytree(ROOT / package, tmp_path / package, ignore=half_written)
    for path, block in steps("docs/extending.md"):
        take(tmp_path / path, block)
        if path.startswith(("ms_vireid/losses/", "ms_vireid/models/")):
            take(tmp_path / in_pytorch(path), in_pytorch(block))

    commands = [TRAIN, *([*REPORT, subject] for subject in SUBJECTS)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained, *reports = done.stdout.split("---------\n")[:-1]
    assert "center" in trained
    for subject, report in zip(SUBJECTS, reports, strict=True):
        assert f" {subject}" in report


def test_the_page_in_chinese_takes_the_same_steps():
    assert steps("docs/zh-CN/extending.md") == steps("docs/extending.md") != []


def test_the_notebook_runs_and_finds_people_better_than_chance(tmp_path):
    cells = json.loads((ROOT / "docs/search.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for shown, fewer in (
        ("train_identities=58", "train_identities=28"),
        ("0.epochs=4", "0.epochs=3"),
        ("0050", "0030"),
    ):
        assert code.count(shown) == 1
        code = code.replace(shown, fewer)
    done = in_python(tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")
    rates = re.search(r"rank-1 (\d+\.\d)%, by chance (\d+\.\d)%", done.stdout)
    assert float(rates[1]) > 2 * float(rates[2])
    assert (tmp_path / "found.png").stat().st_size > 10_000

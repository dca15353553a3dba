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
    "nn.SequentialCell": "nn.Sequential",
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
    assert lines[-1] == "--mode: has no effect on folder; leave it out"
    assert (trained / "day.npz").is_file()


SERVED = """
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError


def ask(path, content):
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/{path}", content) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


files = sorted(Path("people/infrared").glob("*/*.jpg"))
alone = [ask("infrared", file.read_bytes()) for file in files]
with ThreadPoolExecutor(8) as pool:
    at_once = list(pool.map(ask, ["infrared"] * 2 * len(files), [file.read_bytes() for file in files] * 2))
assert at_once == alone * 2
assert all(status == 200 and len(people) == 3 for status, people in alone)
print(json.dumps([ask("infrared", content) for content in (b"no picture", b"", files[0].read_bytes()[:200])]))
print(json.dumps(ask("thermal", files[0].read_bytes())))
"""


def test_the_pages_server_answers_threads_as_one_after_the_other(trained):
    code = [block for block in blocks("docs/python.md") if "evaluate(" not in block and "create_model(" not in block]
    done = in_python(trained, "\n".join([*code, SERVED]))
    assert (done.returncode, done.stderr) == (0, "")
    damaged, unknown = map(json.loads, done.stdout.splitlines()[-2:])
    assert [status for status, _ in damaged] == [400, 400, 400]
    assert unknown == [400, {"error": unknown[1]["error"]}]
    assert "thermal" in unknown[1]["error"]


def steps(page):
    """The files that a loss, a model and a layer take, with the block of each."""
    text = (ROOT / page).read_text(encoding="utf-8").split("\n## ")
    step = re.compile(r"^\d\. `([\w/]+\.\w+)`.*?^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [found for section in text[1:4] for found in step.findall(section)]


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


COPIED = ("ms_vireid", "torch_ref", "parity", "docs", "README.md", "README.zh-CN.md")
TESTS = ("__init__.py", "test_configuration_page.py", "test_fidelity.py", "tools")  # of the tables of keys


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project in which the page's steps have been taken."""
    folder = tmp_path_factory.mktemp("extended")
    half_written = shutil.ignore_patterns("*.pyc.*", "*.tmp*")  # what other tests' processes compile meanwhile
    for name in (*COPIED, *(f"tests/{name}" for name in TESTS)):
        (folder / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=half_written)
        else:
            shutil.copy(ROOT / name, folder / name)
    for path, block in steps("docs/extending.md"):
        take(folder / path, block)
        if path.startswith(("ms_vireid/losses/", "ms_vireid/models/")):
            take(folder / in_pytorch(path), in_pytorch(block))
    return folder


def run_in(folder, *command):
    """What a command prints in a copy of the project."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TINY = """
data.name=synthetic data.root=people data.image_size=[48,24] data.workers=0 data.synthetic.train_identities=4
data.synthetic.val_identities=1 data.synthetic.test_identities=2 data.synthetic.images_per_camera=1
data.synthetic.image_size=[32,16] model.widths=[8,16,32] train.num_identities=2 train.num_instances=2
train.iterations=2 train.log_steps=1 stages.0.epochs=1 evaluation.trials=1 stages.0.losses.center.weight=0.5
"""
# ImageNet weights, as torchvision would save them with a classifier.
WEIGHTS = """
import torch
from torch_ref.models import create_model
base = create_model("plain", 5, widths=(8, 16, 32)).base.state_dict()
torch.save(base | {"fc.weight": torch.ones(1000, 32)}, "imagenet.pth")
"""
# Commands in one process, as each would take seconds to import MindSpore and PyTorch.
DRIVER = """
import importlib, json, sys
for name, *sys.argv[1:] in json.loads(sys.argv[1]):
    importlib.import_module(name).main()
    print("-" * 9)
"""
RECIPE = ["--config", "configs/plain/sysu.yaml", *TINY.split()]
DAY, NIGHT = "people/cam1/0001/0001.jpg", "people/cam3/0001/0001.jpg"
COMMANDS = {
    "train --device CPU --output run model.pretrained=imagenet.pth": "center",
    "train --device CPU --output on model.pretrained=run": "results: on/result.json",
    "evaluate --device CPU --checkpoint run": "rank-1",
    "extract --device CPU --checkpoint run --images people --output features.npz": "42 features of 32 dimensions",
    "retrieve --query features.npz --gallery features.npz": "similarity",
    f"visualize gradcam --checkpoint run --images {DAY} {NIGHT} --output gradcam.png": "written: gradcam.png",
    f"visualize features --checkpoint run --visible {DAY} --infrared {NIGHT} --output maps.png": "written: maps.png",
    "export --checkpoint run --format mindir --output model.mindir": "visible and infrared pictures 48x24 to 32",
    "export --checkpoint run --format onnx --output model.onnx": "visible and infrared pictures 48x24 to 32",
}
CASES = {  # with the backends that compute them; a graph is slow to compile
    "center distance": ("eager", "graph"),
    "Plain small": ("eager", "numba"),
    "ChannelGate": ("eager", "graph"),
}


def test_a_loss_a_model_and_a_layer_are_added_as_the_page_says_and_every_command_takes_them(extended):
    commands = [[f"ms_vireid.{words[0]}", *words[1:]] for words in map(str.split, COMMANDS)]
    commands = [words + RECIPE if words[0] == "ms_vireid.train" else words for words in commands]
    commands.append(["parity.convert", "run/model.safetensors", "model.pth"])
    *printed, converted, end = run_in(extended, "-c", WEIGHTS + DRIVER, json.dumps(commands)).split("---------\n")
    for said, expected in zip(printed, COMMANDS.values(), strict=True):
        assert expected in said
    assert (converted.endswith("wrote model.pth\n"), end) == (True, "")


def test_the_ladder_takes_what_the_page_adds(extended):
    options = ["parity.report", "--device", "CPU", "--processes", "1", "--match"]
    commands = [[*options, case, "--backend", *backends] for case, backends in CASES.items()]
    *printed, end = run_in(extended, "-c", DRIVER, json.dumps(commands)).split("---------\n")
    for case, said in zip(CASES, printed, strict=True):
        assert f" {case} " in said
    assert end == ""


def test_the_tables_of_keys_take_what_the_page_adds(extended):
    run_in(extended, "-m", "tests.tools.configuration_tables")
    for page in ("docs/configuration.md", "docs/zh-CN/configuration.md"):
        text = (extended / page).read_text(encoding="utf-8")
        assert "| `center` | `CenterDistanceLoss` | `null` | distance of the modalities' centres |" in text
        assert "\n`plain`:\n\n<!-- model plain -->\n" in text
        assert "| `model.widths` | `[1..10000, ...]` | `[64, 128, 256, 512]` | channels of each stage |" in text
    run_in(extended, "-m", "pytest", "-q", "tests/test_configuration_page.py")


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

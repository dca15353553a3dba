"""What is done with a trained model, on the stand-in GPU: evaluation, extraction, Grad-CAM, export, and going on."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.tree import write_folder
from tests.device.test_stand_in_training import arguments, one_stage
from tests.device.worker import ROOT
from tests.tiny_models import RECIPES, write_checkpoint

SET_UP = "from ms_vireid.devices import runtime; runtime.set_up('GPU')"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        family: str(write_checkpoint(folder / family / "model.safetensors", family, folder / "data"))
        for family in RECIPES
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("family", RECIPES)
def test_a_checkpoint_is_evaluated(worker, checkpoints, tmp_path, family):
    result = tmp_path / "result.json"
    worker.do("run_command", "evaluate", "--checkpoint", checkpoints[family], "--json", str(result))
    assert len(json.loads(result.read_text())["trials"]) == 2


def test_a_checkpoint_is_evaluated_on_corrupted_pictures(worker, checkpoints, tmp_path):
    result = tmp_path / "result.json"
    options = ["--corrupted", "--json", str(result)]
    worker.do("run_command", "evaluate", "--checkpoint", checkpoints["pmt"], *options)
    assert len(json.loads(result.read_text())["trials"]) == 10


@pytest.mark.parametrize("family", RECIPES)
def test_features_are_extracted(worker, checkpoints, pictures, tmp_path, family):
    options = ["--images", str(pictures), "--output", str(tmp_path / "features.npz"), "--batch-size", "3"]
    worker.do("run_command", "extract", "--checkpoint", checkpoints[family], *options)
    assert len(np.load(tmp_path / "features.npz")["features"]) == 16


@pytest.mark.parametrize("family", RECIPES)
def test_gradcam_is_drawn(worker, checkpoints, pictures, tmp_path, family):
    images = [str(pictures / modality / "anna" / "0.jpg") for modality in ("visible", "infrared")]
    options = ["--images", *images, "--output", str(tmp_path / "gradcam.png")]
    worker.do("run_command", "visualize", "gradcam", "--checkpoint", checkpoints[family], *options)
    with Image.open(tmp_path / "gradcam.png") as drawn:
        assert min(drawn.size) > 100


def test_a_checkpoint_is_exported_beside_a_gpu(stand_in, checkpoints, tmp_path):
    """On the CPU."""
    options = ["--checkpoint", checkpoints["pmt"], "--format", "mindir", "--output", str(tmp_path / "model.mindir")]
    done = stand_in.run([sys.executable, "-m", "ms_vireid.export", *options], 100, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "model.mindir").stat().st_size > 0


def test_an_interrupted_training_goes_on(worker, tmp_path):
    options = ["model.depth=1", "train.iterations=4", "train.log_steps=1", one_stage("id: {}")]
    asked = arguments("pmt", tmp_path / "run", *options)
    worker.do("train_steps", 2, *asked)
    worker.do("run_command", "train", *asked, "--resume", "auto")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "result.json").exists()


def test_the_drivers_translation_is_announced_until_it_has_happened(stand_in, tmp_path):
    newer = {"STAND_IN_CAPABILITY": "9", "CUDA_CACHE_PATH": str(tmp_path)}
    compute = f"{SET_UP}; import mindspore as ms; ms.ops.relu(ms.Tensor([0.0])).asnumpy()"
    first, second = (stand_in.run([sys.executable, "-c", compute], 60, newer, cwd=ROOT) for _ in range(2))
    assert first.stdout == (
        "note: the driver first translates MindSpore's kernels for this GPU, for 3 to 4 minutes on an H100; "
        f"it keeps them in {tmp_path}, if it can\n"
    )
    assert second.stdout == ""
    assert first.returncode == second.returncode == 0

"""`parity/export_onnx.py`: PyTorch's graph of the twin model computes what MindSpore's checkpoint does."""

import mindspore as ms
import numpy as np
import onnx
import pytest
import torch

from ms_vireid.command import run
from ms_vireid.exports.onnx_file import load_onnx, read_info
from ms_vireid.exports.onnx_graph import ONNX
from ms_vireid.exports.verified import TOLERANCE, probe_images
from ms_vireid.inference.trained import load_trained
from parity import export_onnx

from ..test_export import request_of, write_trained


@pytest.fixture
def run_export(monkeypatch, tmp_path):
    def exported(family, *options):
        checkpoint = write_trained(tmp_path / "model.ckpt", family)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["export_onnx.py", "--checkpoint", "model.ckpt", *options])
        run(export_onnx.main)
        return load_trained([checkpoint])[0]

    return exported


@pytest.mark.parametrize(("family", "modality"), [("pmt", "both"), ("agw", "visible"), ("mun", "infrared")])
def test_both_ways_to_onnx_and_the_checkpoint_agree(run_export, tmp_path, family, modality):
    trained = run_export(family, *(() if family == "pmt" else ("--modality", modality)))
    path = tmp_path / "model.onnx"
    images = probe_images(trained.image_size, modality)[[2, 0, 1, 1, 0]]  # a batch of five, which was not tried
    expected = trained.model(ms.Tensor(images), modality).asnumpy()
    own = tmp_path / "own.onnx"
    ONNX.write(request_of(trained, modality), own)
    for file in (path, own):
        found = load_onnx(file)(images)
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        assert np.abs(found[0] - found[1]).max() > 1e-3 * np.abs(found).max()
    info, described = read_info(path), request_of(trained, modality).info
    assert {key: info[key] for key in described if key != "checkpoint"} == {
        key: value for key, value in described.items() if key != "checkpoint"
    }
    assert onnx.load(path).producer_name == "pytorch"


def test_a_twin_with_other_weights_is_refused_and_not_written(run_export, monkeypatch, tmp_path, capfd):
    def all_but_one(cell, module):
        to_torch(cell, module)
        with torch.no_grad():
            module.base.norm.bias[0] += 0.01

    to_torch = export_onnx.to_torch
    monkeypatch.setattr(export_onnx, "to_torch", all_but_one)
    with pytest.raises(SystemExit) as stopped:
        run_export("pmt", "--batch-size", "2")
    error = capfd.readouterr().err.splitlines()
    assert (stopped.value.code, len(error)) == (2, 1)
    assert "model.onnx: not written, as the graph does not compute what model.ckpt does" in error[0]
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]

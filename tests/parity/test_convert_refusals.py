"""Corrupted, hostile and foreign files: one line each, no code of theirs runs, nothing is written."""

import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import TORCH
from tests.parity.convert_cases import (
    SMALL,
    convert,
    random_state_dict,
    read,
    recipe,
    write,
    write_torch,
    write_weights,
)
from torch_ref.models import build_model as build_torch_model


class Runs:
    """A pickle that writes a file when it is loaded with pickle's own reader."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def weights():
    return random_state_dict(build_torch_model(recipe("pmt")))


def refused(monkeypatch, source, *options):
    """The one line that `source` is refused with; nothing is left beside it."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(InputError) as error:
        convert(monkeypatch, source, source.parent / "out.safetensors", *SMALL["pmt"], *options)
    assert sorted(source.parent.iterdir()) == before
    assert str(source) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def save_program(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/data.pkl", "a/code/__torch__.py", "a/constants.pkl"):  # as torch.jit.save names them
            archive.writestr(name, "")


# tests/checkpoints and tests/hostile have files that no command reads.
FILES = {
    "TorchScript": (".pt", lambda path, _: save_program(path), "TorchScript is a program"),
    "numbers": (".pth", lambda path, _: torch.save({"a": 1}, path), "a is a int"),
    "wrapped numbers": (".pth", lambda path, held: torch.save({"net": {"a.b": 3}}, path), "net is a dictionary"),
    "metadata": (".safetensors", lambda path, held: save_file(held, path, {"ms_vireid": "{"}), "is not JSON"),
    "parts": (
        ".safetensors",
        lambda path, held: save_file(held, path, {"ms_vireid": '{"parts": ["__class__"]}'}),
        "pmt does not have all of them",
    ),
    "folder": (".pth", lambda path, _: path.mkdir(), "is a folder without model.safetensors"),
    "nothing": (".pth", lambda path, _: None, "no such checkpoint file"),
    "another suffix": (".onnx", lambda path, _: path.write_bytes(b"x"), "not a whole weight file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_holds_no_weights_is_refused_in_one_line(monkeypatch, tmp_path, weights, kind):
    suffix, make, words = FILES[kind]
    make(tmp_path / f"a{suffix}", weights)
    assert words in refused(monkeypatch, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("inside", ["beside", "as a weight", "alone"])
def test_a_pickle_s_code_does_not_run(monkeypatch, tmp_path, weights, inside):
    marker = tmp_path / "it-ran"
    hostile = Runs(marker)
    content = {"beside": {"net": weights, "acc": hostile}, "as a weight": weights | {"a": hostile}, "alone": hostile}
    torch.save(content[inside], tmp_path / "a.pth")
    assert "refers to 'posix.mkdir'" in refused(monkeypatch, tmp_path / "a.pth")
    assert not marker.exists()


def test_arrays_of_numbers_beside_the_weights_are_read_as_numpy_2_writes_them(tmp_path, weights):
    torch.save({"net": weights, "acc": np.zeros(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    assert b"cnumpy.core.multiarray\n" in content
    (tmp_path / "a.pth").write_bytes(content.replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"))
    assert read(tmp_path / "a.pth").weights.keys() == weights.keys()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_no_floats_are_refused_by_name(monkeypatch, tmp_path, weights, suffix):
    changed = weights | {name: weights[name].int() for name in ("base.norm.bias", "base.pos_embed")}
    save = torch.save if suffix == ".pth" else save_file
    save(changed, tmp_path / f"a{suffix}")
    line = refused(monkeypatch, tmp_path / f"a{suffix}")
    assert "weights that are no floats: 2" in line
    assert "base.pos_embed is int32" in line
    assert "base.norm.bias is" in line


def test_values_that_are_not_finite_are_refused_by_name(monkeypatch, tmp_path, weights):
    changed = weights | {"base.norm.bias": weights["base.norm.bias"].clone()}
    changed["base.norm.bias"][4] = torch.inf
    torch.save(changed, tmp_path / "a.pth")
    assert "1 keys have values that are not finite (base.norm.bias)" in refused(monkeypatch, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda meta, tensors: meta.pop("data_checksum"), "a training state without its configuration"),
        (lambda meta, tensors: meta.update(step="5"), "is not JSON of this project"),
        (lambda meta, tensors: meta.update(best=0.5), "is not JSON of this project"),
        (lambda meta, tensors: meta.update(format=2), "is not version 1"),
        (lambda meta, tensors: tensors.update({"exp_avg.base.cls_token": torch.zeros(2)}), "exp_avg.base.cls_token is"),
        (lambda meta, tensors: tensors.pop("exp_avg.base.pos_embed"), "exp_avg.base.pos_embed is missing"),
        (lambda meta, tensors: meta["config"].update(model=3), "a.safetensors: model"),
    ],
)
def test_a_damaged_training_state_is_refused(monkeypatch, tmp_path, damage, words):
    held = read(write_torch(tmp_path / "a.safetensors", recipe("pmt")))
    meta, tensors = held.meta, held.weights | held.states
    damage(meta, tensors)
    write(tmp_path / "a.safetensors", tensors, meta, TORCH)
    assert words in refused(monkeypatch, tmp_path / "a.safetensors")


@pytest.mark.parametrize("change", [{"format": 2}, {"config": {"model": 3}}, {"config": torch.zeros(1)}, {"epoch": -1}])
def test_a_pth_of_this_project_with_another_record_is_refused(monkeypatch, tmp_path, change):
    write_weights(tmp_path / "a.pth", recipe("pmt"))
    torch.save(torch.load(tmp_path / "a.pth", weights_only=True) | change, tmp_path / "a.pth")
    refused(monkeypatch, tmp_path / "a.pth")

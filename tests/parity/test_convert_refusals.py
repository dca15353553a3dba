"""Corrupted, hostile and foreign files: one line each, no code of theirs runs, nothing is written."""

import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.files.weights import TORCH
from parity.files import read, write
from tests.parity.convert_cases import (
    SMALL,
    convert,
    random_state_dict,
    recipe,
    write_mindspore,
    write_torch,
    write_weights,
)
from torch_ref.models import build_model as build_torch_model
from torch_ref.models.weight_file import read_weights


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


def truncated_zip(path, weights):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-2000])


def zip_of_something_else(path, weights):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")


def html(path, weights):
    path.write_text("\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>")


def torchscript(path, weights):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


FILES = {
    "an empty file": (".pth", lambda path, weights: path.write_bytes(b""), "not a whole weight file (0 bytes"),
    "a truncated zip": (".pth", truncated_zip, "not a whole weight file"),
    "a zip of something else": (".pth", zip_of_something_else, "not a whole weight file"),
    "a page of HTML": (".pth", html, "is a page of HTML"),
    "TorchScript": (".pt", torchscript, "not a whole weight file"),
    "a list": (".pth", lambda path, weights: torch.save([1, 2], path), "holds a list, not a state dict"),
    "an empty dict": (".pth", lambda path, weights: torch.save({}, path), "holds no plain state dict"),
    "numbers": (".pth", lambda path, weights: torch.save({"a": 1}, path), "a is a int"),
    "numbers in a wrapper": (
        ".pth",
        lambda path, weights: torch.save({"net": weights | {"a.b": 3}}, path),
        "a.b is a int",
    ),
    "an empty .ckpt": (".ckpt", lambda path, weights: path.write_bytes(b""), "not a whole MindSpore checkpoint"),
    "a .ckpt cut off": (".ckpt", lambda path, weights: cut_ckpt(path), "not a whole MindSpore checkpoint"),
    "a .ckpt that is a .pth": (".ckpt", lambda path, weights: torch.save(weights, path), "not a whole MindSpore"),
    "an empty .safetensors": (".safetensors", lambda path, weights: path.write_bytes(b""), "not a whole weight file"),
    "a damaged header": (
        ".safetensors",
        lambda path, weights: damaged_header(path, weights),
        "not a whole weight file",
    ),
    "a huge header": (
        ".safetensors",
        lambda path, weights: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "not a whole weight file",
    ),
    "metadata that is no JSON": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": "{"}),
        "is not JSON",
    ),
    "parts that are none": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": '{"parts": ["__class__"]}'}),
        "pmt has not all of them",
    ),
    "a configuration that is none": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": '{"config": {"model": 3}}'}),
        "a.safetensors:",
    ),
    "metadata that is no mapping": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": "[1]"}),
        "is not JSON",
    ),
    "a folder": (".pth", lambda path, weights: path.mkdir(), "is a folder"),
    "nothing": (".pth", lambda path, weights: None, "no such checkpoint file"),
    "another suffix": (".onnx", lambda path, weights: path.write_bytes(b"x"), "its suffix is none of"),
    "sparse weights": (
        ".pth",
        lambda path, weights: torch.save(weights | {"base.norm.bias": torch.eye(4).to_sparse()}, path),
        "sparse or quantised: base.norm.bias",
    ),
}


def cut_ckpt(path):
    write_mindspore(path, recipe("pmt"))
    path.write_bytes(path.read_bytes()[:-1000])


def damaged_header(path, weights):
    save_file(weights, path)
    content = bytearray(path.read_bytes())
    content[20:24] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(monkeypatch, tmp_path, weights, kind):
    suffix, make, words = FILES[kind]
    make(tmp_path / f"a{suffix}", weights)
    assert words in refused(monkeypatch, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["beside", "as a weight", "alone"])
def test_a_pickle_s_code_does_not_run(monkeypatch, tmp_path, weights, zipped, inside):
    marker = tmp_path / "it-ran"
    hostile = Runs(marker)
    content = {"beside": {"net": weights, "acc": hostile}, "as a weight": weights | {"a": hostile}, "alone": hostile}
    torch.save(content[inside], tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    line = refused(monkeypatch, tmp_path / "a.pth")
    assert "refers to posix.mkdir" in line
    assert not marker.exists()


def test_a_plain_pickle_s_code_does_not_run(monkeypatch, tmp_path):
    marker = tmp_path / "it-ran"
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"net": Runs(marker)}))
    refused(monkeypatch, tmp_path / "a.pth")
    assert not marker.exists()
    pickle.loads((tmp_path / "a.pth").read_bytes())
    assert marker.exists()  # the file is what it is said to be


def test_numbers_and_arrays_of_numbers_beside_the_weights_are_read(monkeypatch, tmp_path, weights):
    beside = {"acc": np.linspace(0, 1, 4), "rank": np.float32(0.5), "flags": np.array([True]), "epoch": 3}
    torch.save({"net": weights, **beside}, tmp_path / "a.pth")
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.safetensors", *SMALL["pmt"])
    torch.save({"net": weights, "acc": np.zeros(2)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "b.pth").read_bytes()
    assert b"cnumpy.core.multiarray\n" in content
    # As numpy 2 writes it.
    (tmp_path / "b.pth").write_bytes(content.replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"))
    assert read_weights(tmp_path / "b.pth").keys() == weights.keys()


def test_arrays_of_objects_are_refused(monkeypatch, tmp_path, weights):
    torch.save({"net": weights, "acc": np.array([{}, None], dtype=object)}, tmp_path / "a.pth")
    assert "not a whole weight file" in refused(monkeypatch, tmp_path / "a.pth")


def test_a_legacy_file_of_tensors_is_read(monkeypatch, tmp_path, weights):
    torch.save(weights, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.safetensors", *SMALL["pmt"])
    assert (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.complex64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_float32_are_refused_by_name(monkeypatch, tmp_path, weights, dtype, suffix):
    changed = weights | {name: weights[name].to(dtype) for name in ("base.norm.bias", "base.pos_embed")}
    save = torch.save if suffix == ".pth" else save_file
    save(changed, tmp_path / f"a{suffix}")
    line = refused(monkeypatch, tmp_path / f"a{suffix}")
    assert "float32" in line
    assert "base.pos_embed is" in line
    assert "base.norm.bias is" in line


def test_values_that_are_not_finite_are_refused_by_name_and_count(monkeypatch, tmp_path, weights):
    changed = weights | {"base.norm.bias": weights["base.norm.bias"].clone()}
    changed["base.norm.bias"][:3] = torch.nan
    changed["base.norm.bias"][4] = torch.inf
    torch.save(changed, tmp_path / "a.pth")
    assert "base.norm.bias has 3 NaN and 1 infinite" in refused(monkeypatch, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda meta, tensors: meta.pop("data_checksum"), "a state of training without its configuration"),
        (lambda meta, tensors: meta.update(step="5"), "is not JSON of this project"),
        (lambda meta, tensors: meta.update(best=0.5), "is not JSON of this project"),
        (lambda meta, tensors: meta.update(format=2), "another version"),
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


@pytest.mark.parametrize("zipped", [True, False])
def test_bytes_changed_at_random_end_in_one_line_or_in_weights(tmp_path, zipped):
    torch.save(
        {"net": {"a": torch.ones(3)}, "acc": np.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped
    )
    whole = (tmp_path / "a.pth").read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 5)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / "b.pth").write_bytes(content[: draw.randint(0, 2 * len(content))])
        with suppress(InputError):  # anything else fails the test
            read_weights(tmp_path / "b.pth")


def test_the_command_prints_one_line_and_exits_with_2(tmp_path):
    torch.save({"net": Runs(tmp_path / "it-ran")}, tmp_path / "a.pth")
    script = ["parity/convert.py", str(tmp_path / "a.pth"), str(tmp_path / "a.ckpt")]
    done = subprocess.run([sys.executable, *script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*posix\.mkdir.*\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]

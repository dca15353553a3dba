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

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.config import dump_config
from tests.parity.convert_cases import (
    SMALL,
    convert,
    random_state_dict,
    recipe,
    write_training_ckpt,
    write_training_pth,
)
from torch_ref.engine.checkpoint import save_checkpoint as save_torch_checkpoint
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
        convert(monkeypatch, source, source.parent / "out.ckpt", *SMALL["pmt"], *options)
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
    "metadata that is not JSON": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": "{"}),
        "is not JSON",
    ),
    "parts that are none": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": '{"parts": ["__class__"]}'}),
        "pmt does not have all of them",
    ),
    "a configuration that is none": (
        ".safetensors",
        lambda path, weights: save_file(weights, path, {"ms_vireid": '{"config": {"model": 3}}'}),
        "a.safetensors:",
    ),
    "metadata that is not a mapping": (
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
    write_training_ckpt(path, recipe("pmt"))
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
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.ckpt", *SMALL["pmt"])
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
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.ckpt", *SMALL["pmt"])
    assert (tmp_path / "a.ckpt").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.complex64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_float32_are_refused_by_name(monkeypatch, tmp_path, weights, dtype, suffix):
    changed = weights | {name: weights[name].to(dtype) for name in ("base.norm.bias", "base.pos_embed")}
    save = torch.save if suffix == ".pth" else save_file
    save(changed, tmp_path / f"a{suffix}")
    kind = str(dtype).removeprefix("torch.")
    line = refused(monkeypatch, tmp_path / f"a{suffix}")
    assert f"2 keys are not float32 (base.pos_embed is {kind}, base.norm.bias is {kind})" in line
    assert "convert to float32 first" in line


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_parameters_that_are_not_float32_are_refused_by_name(monkeypatch, tmp_path, dtype):
    write_training_ckpt(tmp_path / "a.ckpt", recipe("pmt"))
    held = ms.load_checkpoint(str(tmp_path / "a.ckpt"))
    meta = held.pop("ms_vireid")
    held["base.norm.beta"] = ms.Parameter(held["base.norm.beta"].astype(dtype), name="base.norm.beta")
    entries = [{"name": name, "data": value} for name, value in held.items()]
    ms.save_checkpoint(entries, str(tmp_path / "b.ckpt"), append_dict={"ms_vireid": meta}, crc_check=True)
    assert "base.norm.beta is" in refused_to_pth(monkeypatch, tmp_path / "b.ckpt")


def refused_to_pth(monkeypatch, source):
    with pytest.raises(InputError) as error:
        convert(monkeypatch, source, source.parent / "out.pth")
    assert not (source.parent / "out.pth").exists()
    return str(error.value)


def test_values_that_are_not_finite_are_refused_by_name_and_count(monkeypatch, tmp_path):
    config = recipe("pmt")
    weights = random_state_dict(build_torch_model(config))
    weights["base.norm.bias"][:3] = torch.nan
    weights["base.norm.bias"][4] = torch.inf
    save_torch_checkpoint(tmp_path / "a.pth", weights, {"config": dump_config(config)})
    with pytest.raises(InputError, match=r"base.norm.bias has 3 NaN and 1 infinite"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.ckpt")
    assert not (tmp_path / "a.ckpt").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content.pop("step"), "not a checkpoint that torch_ref has written"),
        (lambda content: content["optimizer"].pop("state"), "not a checkpoint that torch_ref has written"),
        (lambda content: content["optimizer"]["param_groups"][0].pop("param_names"), "not a checkpoint that"),
        (lambda content: content["optimizer"].update(state={0: {"exp_avg": 3}}), "exp_avg of base.cls_token is a int"),
        (lambda content: content.update(step=6), "counts 5 steps, the file 6"),
        (lambda content: content.update(best=torch.zeros(1)), "not a checkpoint that torch_ref has written"),
        (lambda content: content.update(format=2), "another version"),
        (lambda content: content.update(optimizer=[1]), "not a checkpoint that torch_ref has written"),
        (lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(2)), "exp_avg.base.cls_token is"),
        (lambda content: content["optimizer"]["state"][1].pop("exp_avg"), "exp_avg.base.pos_embed is missing"),
        (lambda content: content["config"].update(model=3), "a.pth: model"),
    ],
)
def test_a_damaged_training_state_is_refused(monkeypatch, tmp_path, damage, words):
    write_training_pth(tmp_path / "whole.pth", recipe("pmt"))
    content = torch.load(tmp_path / "whole.pth", weights_only=True)
    damage(content)
    torch.save(content, tmp_path / "a.pth")
    (tmp_path / "whole.pth").unlink()
    with pytest.raises(InputError) as error:
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.ckpt")
    assert words in str(error.value)
    assert not (tmp_path / "a.ckpt").exists()


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

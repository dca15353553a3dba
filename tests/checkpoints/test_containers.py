"""What a weight file is, told by its content under any suffix; what is none, or a part of one, says what to do."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ms_vireid.checkpoints.containers import container, weight_file
from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.errors import InputError

ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 343279349\n"


def torch_file(path, **options):
    torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path, **options)


WRITERS = {
    "archive": torch_file,
    "sequence": lambda path: torch_file(path, _use_new_zipfile_serialization=False),
    "safetensors": lambda path: save_file(ARRAYS, path),
    "ckpt": lambda path: write_checkpoint(path.with_name("made.ckpt"), ARRAYS, {}, "mindspore"),
}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors", ".bin", ".pth.tar", ".PTH", ".model", ""])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_container_is_read_under_every_suffix(tmp_path, kind, suffix):
    path = tmp_path / f"epoch=3{suffix}"
    WRITERS[kind](path)
    if kind == "ckpt":
        (tmp_path / "made.ckpt").rename(path)
    read = read_checkpoint(path)
    assert np.array_equal(read.arrays["weight"], ARRAYS["weight"])
    assert container(path) == kind


@pytest.mark.parametrize("size", [0x280, 0x3C00, 0x3C08, 0x5A42 + 6, 0x8B1F + 1, 0x0A0A + 6, 0x7B00, 0x5B20])
def test_a_safetensors_whose_header_is_as_long_as_other_files_begin(tmp_path, size):
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    content = ARRAYS["weight"].tobytes()
    path = tmp_path / "a.bin"
    path.write_bytes(size.to_bytes(8, "little") + header + b" " * (size - len(header)) + content)
    assert np.array_equal(read_checkpoint(path).arrays["weight"], ARRAYS["weight"])


def whole(**options) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, file, **options)
    return file.getvalue()


def zipped(*names) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, whole())
    return file.getvalue()


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


NONE = (
    "not a whole weight file: neither .safetensors nor MindSpore's .ckpt nor a file of torch.save, as it begins with "
    "b'.*'; unpack it if it is packed, or use another copy"
)
OTHERS = {
    "pointer": (POINTER.encode(), r"is a Git LFS pointer, not the file itself; run git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s3--ab.pth\n", "is a git-annex pointer, .* git annex get"),
    "DVC": (b"outs:\n- md5: ab\n", "is a DVC pointer, .* dvc pull"),
    "HTML": (b"\xef\xbb\xbf\n\n\n<!DOCTYPE html><html></html>", NONE),
    "gzip": (gzip.compress(whole()), NONE),
    "zip": (zipped("run/model.pth"), "is a zip archive, but no file of torch.save .*; save a plain state dict"),
    "npz": (zipped("Transformer/kernel.npy"), "is a zip archive, but no file of torch.save"),
    "npy": (saved(np.zeros(3)), NONE),
    "ONNX": (b"\x08\x07\x12\x07pytorch", NONE),
    "MindIR": (b"\x0a\x050.1.0\x12\x09MindSpore", NONE),
    "empty": (b"", NONE),
}


@pytest.mark.parametrize("suffix", [".pth", ".onnx"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_none_is_named_with_what_to_do_under_every_suffix(tmp_path, kind, suffix):
    content, line = OTHERS[kind]
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"a{suffix}: {line}") as error:
        read_checkpoint(tmp_path / f"a{suffix}")
    assert len(str(error.value)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize(
    "name", ["model-00002-of-00003.safetensors", "pytorch_model-00001-of-00002.bin", "model.safetensors.index.json"]
)
def test_a_part_of_a_sharded_model_says_how_to_save_it_as_one_file(tmp_path, name):
    save_file(ARRAYS, tmp_path / name)
    line = "is one part of a sharded model; save a sharded model as one file: save_pretrained.FOLDER, max_shard_size="
    with pytest.raises(InputError, match=rf"{name}: {line}"):
        read_checkpoint(tmp_path / name)
    with pytest.raises(InputError, match=r"is a folder without model.safetensors; give one file of .*max_shard_size"):
        weight_file(tmp_path)
    for whole in ("model-00001-of-00001.safetensors", "model.safetensors"):
        save_file(ARRAYS, tmp_path / whole)
        assert read_checkpoint(tmp_path / whole).arrays.keys() == ARRAYS.keys()
    assert weight_file(tmp_path) == tmp_path / "model.safetensors"

"""What a weight file is, told by its content under any suffix, and what is none, named with what to do."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.files.containers import container
from ms_vireid.files.weights import has_checksum, read_checkpoint, write_checkpoint

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
    assert has_checksum(path) is (kind in ("archive", "ckpt"))


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


def tarred(name) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


OTHERS = {
    "pointer": (POINTER.encode(), r"is a Git LFS pointer, not the file itself; run git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s3--ab.pth\n", "is a git-annex pointer, .* git annex get"),
    "DVC": (b"outs:\n- md5: ab\n", "is a DVC pointer, .* dvc pull"),
    "HTML": (b"\xef\xbb\xbf\n\n\n<!DOCTYPE html><html></html>", "is a page of HTML or XML.*download the file itself"),
    "JSON": (b'{"error": "not found"}', "is JSON, not a weight file"),
    "gzip": (gzip.compress(whole()), "is packed by gzip: unpack it, and give the file inside"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "is packed by zstd: unpack it"),
    "xz": (b"\xfd7zXZ\x00" + bytes(20), "is packed by xz: unpack it"),
    "bzip2": (b"BZh91AY&SY", "is packed by bzip2: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "is a 7z archive: unpack it"),
    "tar": (tarred("run/model.pth"), "is a tar archive: unpack it"),
    "early PyTorch": (tarred("sys_info"), "is of PyTorch 0.1; load it with an early PyTorch and save it again"),
    "zip": (zipped("run/model.pth"), "is a zip archive around run/model.pth: unpack it"),
    "zip of others": (zipped("readme"), "not a whole weight file: a zip archive without PyTorch's data.pkl"),
    "npz": (zipped("Transformer/kernel.npy"), "is NumPy's .npz, not PyTorch's"),
    "npy": (saved(np.zeros(3)), "is one array of NumPy"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "is HDF5, Keras' or TensorFlow's"),
    "GGUF": (b"GGUF" + bytes(20), "is GGUF, of quantised weights"),
    "empty": (b"", r"not a whole weight file \(0 bytes: it is empty\)"),
}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_none_is_named_with_what_to_do_under_every_suffix(tmp_path, kind, suffix):
    content, line = OTHERS[kind]
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"a{suffix}: {line}") as error:
        read_checkpoint(tmp_path / f"a{suffix}")
    assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_an_unknown_file_of_an_unknown_suffix_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(InputError, match=r"is no weight file that is known; weights are read from .safetensors, .ckpt"):
        read_checkpoint(tmp_path / "a.onnx")
    (tmp_path / "a.mindir").write_bytes(b"\x0a\x050.1.0\x12\x09MindSpore")
    with pytest.raises(InputError, match="no weight file that is known"):
        read_checkpoint(tmp_path / "a.mindir")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_file_of_a_distributed_checkpoint_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(whole())
    with pytest.raises(InputError, match=rf"{name}: is of a distributed checkpoint .*dcp_to_torch {tmp_path} OUT.pth"):
        read_checkpoint(tmp_path / name)

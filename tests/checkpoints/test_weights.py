"""Files of weights: every bit back, read by MindSpore's and PyTorch's own tools, and no damaged one believed."""

import json

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore.train.checkpoint_pb2 import Checkpoint as Message
from safetensors.torch import save_file

from ms_vireid.checkpoints.mindspore_checkpoint import write_ckpt
from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint, write_finite
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MINDSPORE, TORCH

ARRAYS = {
    "scalar": np.array(2.5, np.float32),
    "one": np.array([0.25], np.float32),
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "count": np.array([-3, 2**40]),
    "half": np.array([0.5, -2], np.float16),
    "flags": np.array([True, False]),
}
RECORD = {"config": {"é": 1e-30}, "epoch": 3}
SUFFIXES = (".safetensors", ".ckpt")


def assert_same(held, arrays=ARRAYS):
    assert held.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (held[name].dtype, held[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(held[name], array)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".SAFETENSORS"])
def test_what_is_written_is_read_bit_for_bit_and_written_alike(tmp_path, suffix):
    for name in ("a", "b"):
        write_checkpoint(tmp_path / f"{name}{suffix}", ARRAYS, RECORD, MINDSPORE)
    held = read_checkpoint(tmp_path / f"a{suffix}", MINDSPORE)
    assert_same(held.arrays)
    assert (held.meta, held.framework) == (RECORD, MINDSPORE)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_file_that_cannot_be_mapped_is_not_called_damaged(tmp_path, monkeypatch):
    def refusing(*_arguments, **_options):
        raise OSError("No such device (os error 19)")

    path = tmp_path / "a.safetensors"
    write_checkpoint(path, ARRAYS, RECORD, MINDSPORE)
    monkeypatch.setattr("ms_vireid.checkpoints.weights.safe_open", refusing)
    with pytest.raises(InputError, match=rf"{path}: cannot be read \(No such device .*\); copy it to a disk of this"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mindspore_reads_what_is_written(tmp_path, suffix):
    write_checkpoint(tmp_path / f"a{suffix}", ARRAYS, RECORD, MINDSPORE)
    held = ms.load_checkpoint(str(tmp_path / f"a{suffix}"), format=suffix[1:], crc_check=suffix == ".ckpt")
    assert_same({name: value.asnumpy() for name, value in held.items() if name in ARRAYS})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_mindspore_writes_is_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # KiB: a .ckpt holds an array in pieces
    arrays = ARRAYS | {"long": np.random.default_rng(0).normal(size=(70, 30)).astype(np.float32)}
    entries = [{"name": name, "data": ms.Tensor(np.ascontiguousarray(value))} for name, value in arrays.items()]
    entries[0]["data"] = ms.Tensor(2.5, ms.float32)
    ms.save_checkpoint(entries, str(tmp_path / f"a{suffix}"), format=suffix[1:])
    held = read_checkpoint(tmp_path / f"a{suffix}")
    assert_same(held.arrays, arrays)
    assert held.meta == {}


def test_a_number_with_the_size_0_is_one_as_mindspore_says(tmp_path):
    message = Message()
    tensor = message.value.add(tag="scalar").tensor
    tensor.dims.append(0)
    tensor.tensor_type, tensor.tensor_content = "Float32", ARRAYS["scalar"].tobytes()
    (tmp_path / "a.ckpt").write_bytes(message.SerializeToString())
    assert_same(read_checkpoint(tmp_path / "a.ckpt").arrays, {"scalar": ARRAYS["scalar"]})


def test_a_ckpt_of_an_earlier_version_is_read_with_its_record(tmp_path):
    text = json.dumps({"format": 1, **RECORD, "torch": {"learning_rates": [0.1]}})
    entries = [{"name": "weight", "data": ms.Tensor(ARRAYS["weight"])}]
    ms.save_checkpoint(entries, str(tmp_path / "a.ckpt"), append_dict={"ms_vireid": text}, crc_check=True)
    held = read_checkpoint(tmp_path / "a.ckpt", MINDSPORE)
    assert (held.meta, held.framework) == (RECORD, MINDSPORE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_checkpoint(path, ARRAYS, RECORD, MINDSPORE)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=rf"a{suffix}: not a whole "):
            read_checkpoint(path)


def lie(name="w", dims=(2,), kind="Float32", content=bytes(8)):
    """One parameter as it lies in a .ckpt."""
    message = Message()
    message.value.add(tag=name).tensor.MergeFrom(
        type(message.value.add().tensor)(dims=dims, tensor_type=kind, tensor_content=content)
    )
    del message.value[1]
    return message.SerializeToString()


LIES = {
    "negative-twice": lie(dims=(-1, -2)),
    "zero": lie(dims=(0,)),
    "too-large": lie(dims=(2**62,)),
    "overflowing": lie(dims=(2**32, 2**32, 2)),
    "another-type": lie(kind="Bool"),
    "no-content": lie(content=b""),
    "objects": lie(kind="Object"),
    "a-text": lie(kind="str"),
    "empty-name": lie(name=""),
    "name-of-escapes": lie(name="\x1b[2J"),
    "name-twice": lie() + lie("v") + lie(),
    "another-checksum": lie() + b"crc_num" + bytes(10),
    "zeros": bytes(100),
    "no-fields": b"\x0b\x0c",
}


@pytest.mark.parametrize("kind", LIES)
def test_a_ckpt_that_lies_is_refused(tmp_path, kind):
    (tmp_path / "a.ckpt").write_bytes(lie())
    assert_same(read_checkpoint(tmp_path / "a.ckpt").arrays, {"w": np.zeros(2, np.float32)})
    (tmp_path / "a.ckpt").write_bytes(LIES[kind])
    with pytest.raises(InputError, match=r"a.ckpt: ") as error:
        read_checkpoint(tmp_path / "a.ckpt")
    assert str(error.value).isprintable()


def test_a_record_without_its_file_s_checksum_is_refused(tmp_path):
    write_ckpt(tmp_path / "a.ckpt", {"w": np.zeros(1, np.float32)}, "{}")
    (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:-17])
    with pytest.raises(InputError, match="its checksum is missing"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_the_other_framework_s_names_and_types_that_numpy_lacks_are_refused(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", ARRAYS, RECORD, TORCH)
    with pytest.raises(InputError, match=r"has PyTorch's names, not MindSpore's; convert it: python parity/conv"):
        read_checkpoint(tmp_path / "a.safetensors", MINDSPORE)
    save_file({"w": torch.zeros(1).to(torch.float8_e4m3fn)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b.safetensors: types that NumPy lacks: 1 \(w is F8_E4M3\)"):
        read_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bfloat16_becomes_float32_bit_for_bit(tmp_path, suffix):
    values = torch.tensor([[0.1, -3e38], [float("inf"), -0.0]]).bfloat16()
    if suffix == ".ckpt":
        bits = values.view(torch.int16).numpy().tobytes()
        (tmp_path / "a.ckpt").write_bytes(lie(dims=(2, 2), kind="BFloat16", content=bits) + lie("v"))
    else:
        save_file({"w": values, "v": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert_same(
        read_checkpoint(tmp_path / f"a{suffix}").arrays, {"w": values.float().numpy(), "v": np.zeros(2, np.float32)}
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_that_are_not_finite_replace_no_file(tmp_path, suffix, value):
    path = tmp_path / f"a{suffix}"
    write_finite(path, ARRAYS, RECORD, MINDSPORE)
    with pytest.raises(InputError, match=r"not written, as values are not finite: 1 \(one\); lower optimizer\.lr"):
        write_finite(path, ARRAYS | {"one": np.array([0.25, value], np.float32)}, RECORD, MINDSPORE)
    assert_same(read_checkpoint(path).arrays)


def test_all_that_does_not_fit_a_model_is_one_line(tmp_path):
    held = {"lost": 1.0, "bias": np.nan, "bn.moving_variance": -1.0, "bn.gamma": -1.0, "long": [1.0, 2.0]}
    arrays = {name: np.array(value, np.float32, ndmin=1) for name, value in held.items()}
    write_checkpoint(tmp_path / "a.safetensors", arrays, RECORD, MINDSPORE)
    wanted = dict.fromkeys(("weight", "bias", "bn.moving_variance", "bn.gamma", "long"), ((1,), np.dtype(np.float32)))
    said = (
        r"missing 1 \(weight\); differing 1 \(long is .*\); not finite 1 \(bias\); negative 1 \(bn.moving_variance\); "
    )
    with pytest.raises(InputError, match=f"{said}not in the model 1 .lost.; check model"):
        read_checkpoint(tmp_path / "a.safetensors").require(wanted, ["lost"])

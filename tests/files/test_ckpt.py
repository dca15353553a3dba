"""MindSpore's checkpoint format as this project reads and writes it: what MindSpore writes, and nothing that lies."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.files.ckpt import TYPES, read_ckpt, write_ckpt

ARRAYS = {
    "scalar": np.float32(2.5),
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array([-3, 2**40]),
    "half": np.array([0.5, -2], np.float16),
    "flags": np.array([True, False]),
}


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_what_mindspore_writes_is_read_bit_for_bit(tmp_path):
    entries = [{"name": name, "data": ms.Tensor(value)} for name, value in ARRAYS.items()]
    path = tmp_path / "a.ckpt"
    ms.save_checkpoint(entries, str(path), append_dict={"ms_vireid": '{"é": 1}'}, crc_check=True)
    arrays, text = read_ckpt(path)
    assert arrays.keys() == ARRAYS.keys()
    assert all(same(arrays[name], np.asarray(value)) for name, value in ARRAYS.items())
    assert text == '{"é": 1}'


def test_mindspore_reads_what_is_written_bit_for_bit(tmp_path):
    path = tmp_path / "a.ckpt"
    write_ckpt(path, {name: np.asarray(value) for name, value in ARRAYS.items()}, '{"é": 1}')
    held = ms.load_checkpoint(str(path), crc_check=True)
    assert held.pop("ms_vireid") == '{"é": 1}'
    assert all(same(held[name].asnumpy(), np.asarray(value)) for name, value in ARRAYS.items())


def test_a_content_in_slices_is_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # KiB
    value = np.random.default_rng(0).normal(size=(70, 30)).astype(np.float32)
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(value)}], str(tmp_path / "a.ckpt"))
    assert same(read_ckpt(tmp_path / "a.ckpt")[0]["weight"], value)


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(name=b"w", dims=(2,), kind=b"Float32", content=bytes(8)):
    """One parameter as it lies in a file."""
    tensor = b"".join(b"\x08" + varint(n % 2**64) for n in dims) + field(2, kind) + field(3, content)
    return field(1, field(1, name) + field(2, tensor))


LIES = {
    "negative": value(dims=(-2,)),
    "negative-twice": value(dims=(-1, -2)),
    "zero": value(dims=(0,)),
    "too-large": value(dims=(2**62,)),
    "overflowing": value(dims=(2**32, 2**32, 2)),
    "too-small": value(dims=(1,)),
    "many-dims": value(dims=(1,) * 40 + (2,)),
    "bool-for-float32": value(kind=b"Bool"),
    "int8-for-float32": value(kind=b"Int8"),
    "content-too-long": value(content=bytes(12)),
    "content-too-short": value(content=bytes(7)),
    "no-content": value(content=b""),
    "unknown-type": value(kind=b"Float128"),
    "type-not-ascii": value(kind=b"\xff\xfe"),
    "text": value(kind=b"str"),
    "map-tensor": field(1, field(1, b"w") + field(3, b"")),
    "no-tensor": field(1, field(1, b"w")),
    "no-name": field(1, field(2, field(2, b"Float32") + field(3, bytes(4)))),
    "empty-name": value(name=b""),
    "name-not-utf8": value(name=b"\xff"),
    "name-of-escapes": value(name=b"\x1b[2J"),
    "name-of-a-megabyte": value(name=b"x" * 2**20),
    "name-twice": value() + value(b"v") + value(),
    "name-twice-with-another-shape": value() + value(dims=(1, 2)),
    "past-the-end": value()[:-1],
    "endless-number": b"\x0a" + b"\xff" * 20,
    "group": b"\x0b\x0c",
    "another-checksum": value() + b"crc_num" + bytes(10),
    "zeros": bytes(100),
    "nothing": b"",
}


def test_the_value_that_the_lies_are_made_from_is_read(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(value())
    assert same(read_ckpt(tmp_path / "a.ckpt")[0]["w"], np.zeros(2, np.float32))


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_in_one_line(tmp_path, lie):
    (tmp_path / "a.ckpt").write_bytes(LIES[lie])
    with pytest.raises(InputError, match=r"a.ckpt: ") as error:
        read_ckpt(tmp_path / "a.ckpt")
    assert str(error.value).isprintable()


def test_every_flipped_byte_of_a_file_of_ours_is_seen(tmp_path):
    path = tmp_path / "a.ckpt"
    write_ckpt(path, {"w": np.arange(3, dtype=np.float32)}, '{"a": 1}')
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(InputError):
            read_ckpt(path)


def test_a_file_of_ours_without_its_checksum_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    write_ckpt(path, {"w": np.zeros(1, np.float32)}, "{}")
    path.write_bytes(path.read_bytes()[:-17])
    with pytest.raises(InputError, match="its checksum is missing"):
        read_ckpt(path)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_survives(tmp_path, kind):
    array = np.ones((2, 2), TYPES[kind])
    write_ckpt(tmp_path / "a.ckpt", {"w": array}, "{}")
    assert same(read_ckpt(tmp_path / "a.ckpt")[0]["w"], array)

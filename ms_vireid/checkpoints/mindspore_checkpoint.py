"""MindSpore's `.ckpt`, parsed with MindSpore's own protobuf message.

`mindspore.load_checkpoint` passes a file's sizes to C++ unchecked and crashes where they disagree with the content.
Here NumPy makes the arrays and refuses such sizes. `mindspore.load_checkpoint` reads the files written here.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ms_vireid.checkpoints.pytorch_checkpoint import widened
from ms_vireid.files.checks import check_count

RECORD = "ms_vireid"  # name of this project's record, a string among the arrays
_TYPES = {
    "Bool": np.dtype(bool),
    **{f"{kind}{bits}": np.dtype(f"{kind}{bits}".lower()) for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)},
    **{f"Float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
_BFLOAT16 = "BFloat16"
_MOST_DIMS = 33  # read of an array: one more than NumPy takes
_HEAD, _HEAD_BYTES = re.compile(rb"\x0a([\x80-\xff]{0,4}[\x00-\x7f])"), 6  # how a value begins: its field and size
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
MARK, _CRC_BYTES = b"crc_num", 10  # a file ends with this mark and the CRC-32 of what precedes it
CHECKSUM_BYTES = len(MARK) + _CRC_BYTES


def read_ckpt(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the arrays by name, and this project's record if there is one. Raises ValueError if the file is damaged,
    has another format, contains a type that NumPy lacks, or has a record without a checksum. bfloat16 becomes float32.
    """
    content = memoryview(path.read_bytes())
    end = len(content) - CHECKSUM_BYTES
    if checked := end >= 0 and content[end:-_CRC_BYTES] == MARK:
        if int.from_bytes(content[-_CRC_BYTES:], "big") != zlib.crc32(content[:end]):
            raise ValueError("its checksum differs")
        content = content[:end]
    pieces: dict[str, list[bytes]] = {}
    kinds = {}
    for number, value in enumerate(_values(content)):  # a large array is split into several consecutive values
        check_count(number)
        kind, dims = kinds[value.tag] = value.tensor.tensor_type, tuple(value.tensor.dims[:_MOST_DIMS])
        if kind not in (*_TYPES, _BFLOAT16, "str") or min(dims, default=0) < 0:
            raise ValueError(f"{value.tag[:40]} is {kind[:40]} {list(dims)}")
        pieces.setdefault(value.tag, []).append(value.tensor.tensor_content)
    texts = {name for name, (kind, _) in kinds.items() if kind == "str"}
    record = b"".join(pieces[RECORD]).decode("utf-32-le").rstrip("\0") if RECORD in texts else None
    if record is not None and not checked:
        raise ValueError("its checksum is missing")
    arrays = {name: _array(name, *kinds[name], b"".join(pieces[name])) for name in kinds if name not in texts}
    if not arrays:
        raise ValueError("no arrays")
    return arrays, record


def _values(content: memoryview) -> Iterator[Any]:
    """Parse the message's values one by one: a short file may hold a million, and protobuf needs a minute for them."""
    at, message_of = 0, _message().Value
    while at < len(content):
        head = _HEAD.match(content[at : at + _HEAD_BYTES])
        size = sum((byte & 127) << 7 * place for place, byte in enumerate(head[1])) if head else len(content)
        begin = at + (head.end() if head else 0)
        at = begin + size
        try:
            if at > len(content):
                raise DecodeError
            yield message_of.FromString(content[begin:at])
        except DecodeError:
            raise ValueError("cut off or damaged") from None


def _message() -> type:
    """The class of MindSpore's protobuf message."""
    from mindspore.train.checkpoint_pb2 import Checkpoint  # not at the top: PyTorch's side reads other formats here

    return Checkpoint


def _array(name: str, kind: str, dims: tuple[int, ...], content: bytes) -> np.ndarray:
    flat = widened(np.frombuffer(content, "<u2")) if kind == _BFLOAT16 else np.frombuffer(content, _TYPES[kind])
    scalar = dims == (0,) and flat.size == 1  # MindSpore writes a scalar this way
    return flat.reshape(() if scalar else dims).copy()


def write_ckpt(path: Path, arrays: Mapping[str, np.ndarray], record: str) -> None:
    """Write the arrays, the record and a checksum, in the format of `mindspore.save_checkpoint`."""
    message_of, crc = _message(), 0
    with path.open("wb") as file:
        # The record comes first: it requires the checksum, so that a truncated file is detected.
        for name, value in [(RECORD, record.encode("utf-32-le")), *arrays.items()]:
            message = message_of()  # concatenated messages are parsed as one
            tensor = message.value.add(tag=name).tensor
            is_text = isinstance(value, bytes)
            tensor.dims.extend([0] if is_text else value.shape)
            tensor.tensor_type = "str" if is_text else _NAMES[value.dtype]
            tensor.tensor_content = value if is_text else value.tobytes()
            piece = message.SerializeToString()
            file.write(piece)
            crc = zlib.crc32(piece, crc)
        file.write(MARK + crc.to_bytes(_CRC_BYTES, "big"))

"""MindSpore's `.ckpt`, taken apart and written here: its own reader crashes on a file whose sizes do not agree.

A file is one protobuf message, `Checkpoint {repeated Value value = 1}`, `Value {string tag = 1; TensorProto tensor =
2}`, `TensorProto {repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3}`. A long content is cut
into consecutive values of one tag. `crc_num` and the CRC-32 of all before it, in ten bytes, may follow.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import META_KEY, check_names, require_file

TYPES = {
    **{f"Int{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"Float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "Bool": np.dtype(bool),
}
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_TEXT = "str"  # of UTF-32 characters
_MARK, _CRC_BYTES = b"crc_num", 10
_VARINT, _BYTES = 0, 2  # protobuf's wire types
_VALUE, _TAG, _TENSOR = 0x0A, 0x0A, 0x12  # keys of fields: 8 times the number, and the wire type
_DIM, _TYPE, _CONTENT = 0x08, 0x12, 0x1A
_MOST_DIMS = 16
_MOST_VALUES = 100_000


def read_ckpt(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Arrays by name, and the JSON text saved with them ("{}" if the file is not of this project).

    Raises:
        InputError: the file is empty, cut off or damaged, not MindSpore's format, or holds something else than plain
            arrays: a type that NumPy does not have, texts, names that are given twice or cannot be printed.
    """
    require_file(path, "checkpoint file")
    require_memory(2 * path.stat().st_size, f"{path}: reading it", "use another copy, or a machine with more memory")
    content = memoryview(path.read_bytes())
    try:
        body, has_checksum = _verified(content)
        parts = _values(body)
        texts = {name: held for name, held in parts.items() if held[1] == _TEXT}
        arrays = {name: _array(name, *held) for name, held in parts.items() if name not in texts}
        text = "{}"
        if META_KEY in texts:
            _, _, pieces = texts.pop(META_KEY)
            text = str(b"".join(pieces), "utf-32-le").rstrip("\0")
            if not has_checksum:
                raise ValueError("its checksum is missing")
        if texts:
            raise ValueError(f"{next(iter(texts))} is a text, not a parameter")
    except ValueError as error:
        raise InputError(
            f"{path}: not a whole MindSpore checkpoint of plain parameters ({len(content)} bytes; {error}); use "
            "another copy"
        ) from None
    check_names(path, arrays)
    return arrays, text


def write_ckpt(path: Path, arrays: Mapping[str, np.ndarray], text: str) -> None:
    """Write what `read_ckpt` and MindSpore read, with its checksum; `text` is JSON."""
    crc = 0
    characters = np.array(list(map(ord, text)), "<u4")
    with path.open("wb") as file:
        for name, array in [*arrays.items(), (META_KEY, characters)]:
            is_text = array is characters
            dims = [0] if is_text else array.shape
            kind = _TEXT if is_text else _NAMES[array.dtype]
            array = np.ascontiguousarray(array)
            head = b"".join(bytes([_DIM]) + _as_varint(n) for n in dims) + _field(_TYPE, kind.encode())
            head += bytes([_CONTENT]) + _as_varint(array.nbytes)
            size = len(head) + array.nbytes
            value = _field(_TAG, name.encode()) + bytes([_TENSOR]) + _as_varint(size) + head
            value = bytes([_VALUE]) + _as_varint(len(value) + array.nbytes) + value
            for piece in (value, array.reshape(-1).view(np.uint8).data):
                file.write(piece)
                crc = zlib.crc32(piece, crc)
        file.write(_MARK + crc.to_bytes(_CRC_BYTES, "big"))


def _verified(content: memoryview) -> tuple[memoryview, bool]:
    """The message, and whether a checksum follows it; raises ValueError if that is another one."""
    end = len(content) - _CRC_BYTES - len(_MARK)
    if end < 0 or content[end : end + len(_MARK)] != _MARK:
        return content, False
    if int.from_bytes(content[-_CRC_BYTES:], "big") != zlib.crc32(content[:end]):
        raise ValueError("its checksum is another one")
    return content[:end], True


def _values(body: memoryview) -> dict[str, tuple[list[int], str, list[memoryview]]]:
    """Dims, type and content in its pieces, by name."""
    if not body:
        raise ValueError("empty")
    parts = {}
    before = None
    for key, value in _fields(body):
        held = dict(_fields(value)) if key == _VALUE else {}
        if set(held) != {_TAG, _TENSOR} or len(parts) == _MOST_VALUES:
            raise ValueError("a value is not a plain tensor")
        name = str(held[_TAG], "utf-8")
        dims, kind, content = _tensor(held[_TENSOR])
        if name not in parts:
            parts[name] = dims, kind, [content]
        elif name == before and parts[name][:2] == (dims, kind):
            parts[name][2].append(content)
        else:
            raise ValueError(f"{name} is given twice")
        before = name
    return parts


def _tensor(message: memoryview) -> tuple[list[int], str, memoryview]:
    dims, kind, content = [], None, None
    for key, value in _fields(message):
        if key == _DIM and len(dims) < _MOST_DIMS:
            dims.append(value)
        elif key == _TYPE and kind is None:
            kind = str(value, "ascii")
        elif key == _CONTENT and content is None:
            content = value
        else:
            raise ValueError("a tensor is not as it should be")
    if kind is None or content is None:
        raise ValueError("a tensor is not as it should be")
    return dims, kind, content


def _array(name: str, dims: list[int], kind: str, pieces: list[memoryview]) -> np.ndarray:
    if kind not in TYPES:
        raise ValueError(f"{name} is {kind}, which is none of {', '.join(TYPES)}")
    dtype, size = TYPES[kind], sum(map(len, pieces))
    shape = () if dims == [0] and size == dtype.itemsize else tuple(dims)
    if any(side >= 2**63 for side in shape) or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} is {kind} {list(shape)} in {size} bytes")
    return np.frombuffer(b"".join(pieces), dtype).reshape(shape).copy()


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Key and value of each field; raises ValueError for wire types that no checkpoint has, and past the end."""
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        value, place = _read_varint(message, place)
        if key & 7 == _BYTES:
            start, place = place, place + value
            if place > len(message):
                raise ValueError("cut off or damaged")
            value = message[start:place]
        elif key & 7 != _VARINT:
            raise ValueError("damaged or foreign")
        yield key, value


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("cut off or damaged")


def _as_varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _field(key: int, content: bytes) -> bytes:
    return bytes([key]) + _as_varint(len(content)) + content

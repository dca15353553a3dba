"""What a weight file is, told by its first bytes, whatever its name says."""

import re
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import require_file
from ms_vireid.files.pointers import pointer

SAFETENSORS, CKPT, ARCHIVE, SEQUENCE = "safetensors", "ckpt", "archive", "sequence"  # the last two are PyTorch's
SUFFIXES = {".safetensors": SAFETENSORS, ".ckpt": CKPT, ".pth": SEQUENCE, ".pt": SEQUENCE, ".t": SEQUENCE}
_START = 512  # bytes; a tar's mark stands at 257
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_UNPACK = "unpack it, and give the file inside"
_LOAD = "load it in the library that it is for, and save a PyTorch state dict or a .safetensors there"
_STARTS = {
    b"\x1f\x8b": f"is packed by gzip: {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"is packed by zstd: {_UNPACK}",
    b"\xfd7zXZ\x00": f"is packed by xz: {_UNPACK}",
    b"\x04\x22\x4d\x18": f"is packed by lz4: {_UNPACK}",
    b"BZh": f"is packed by bzip2: {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"is a 7z archive: {_UNPACK}",
    b"Rar!\x1a\x07": f"is a RAR archive: {_UNPACK}",
    b"\x89HDF\r\n\x1a\n": f"is HDF5, Keras' or TensorFlow's: {_LOAD}",
    b"\x93NUMPY": f"is one array of NumPy: {_LOAD}",
    b"GGUF": f"is GGUF, of quantised weights: {_LOAD}",
}
DISTRIBUTED = (
    "is of a distributed checkpoint (FSDP): run python -m torch.distributed.checkpoint.format_utils "
    "dcp_to_torch {} OUT.pth, and give OUT.pth"
)
# What DeepSpeed's checkpoints need before others can read them.
GATHER_ZERO = "in its folder run python zero_to_fp32.py . OUT, and give the file in OUT"
_OLD_TAR = (b"pickle", b"storages", b"sys_info", b"tensors")  # members of PyTorch 0.1's container


def container(path: Path, is_shard: bool = False) -> str:
    """Return which container of weights a file is: one of the constants above, by its content, else by its suffix.

    is_shard: it may be one of several. Raises InputError for what is something else, in one line that says what it is
    and what to do: a pointer to a file, a page, packed weights, another library's, or one of several shards.
    """
    require_file(path, "checkpoint file")
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); use another copy") from None
    if not start:
        raise InputError(f"{path}: not a whole weight file (0 bytes: it is empty); use another copy")
    if path.suffix == ".distcp" or path.name == ".metadata":
        raise InputError(f"{path}: {DISTRIBUTED.format(path.parent)}")
    if not is_shard and (shard := _SHARD.search(path.name)) and int(shard[2]) > 1:
        number, count = int(shard[1]), int(shard[2])
        raise InputError(f"{path}: is shard {number} of {count}; give its folder or the .index.json in there")
    kind = _by_content(start)
    if kind is None and (other := _other(start)):
        raise InputError(f"{path}: {other}")
    kind = kind or SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: is no weight file that is known; weights are read from {', '.join(SUFFIXES)}")
    return kind


def _other(start: bytes) -> str | None:
    if found := pointer(start):
        return "; ".join(found)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return "is a page of HTML or XML, not a weight file; download the file itself"
    if text.startswith((b"{", b"[")):
        return "is JSON, not a weight file; give the file of weights, or an .index.json of shards"
    if start[257:262] == b"ustar" or start.split(b"\0")[0].split(b"/")[0] in _OLD_TAR:
        is_old = start.split(b"\0")[0].split(b"/")[0] in _OLD_TAR
        old = "is of PyTorch 0.1; load it with an early PyTorch and save it again"
        return old if is_old else f"is a tar archive: {_UNPACK}"
    return next((words for mark, words in _STARTS.items() if start.startswith(mark)), None)


def _by_content(start: bytes) -> str | None:
    """The container by its first bytes; the length of a header may be any bytes, so that it comes first."""
    if start[4:9] == b"\0\0\0\0{":  # after a header's length of less than 4 GiB
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        return ARCHIVE
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle and its protocol
        return SEQUENCE
    # A message of protobuf: a field of messages, whose first field is a name, both with their lengths before them.
    field = re.match(rb"\x0a([\x80-\xff]{0,9}[\x00-\x7f])\x0a([\x80-\xff]{0,9}[\x00-\x7f])", start)
    return CKPT if field and _number(field[2]) < _number(field[1]) else None


def _number(digits: bytes) -> int:
    """A number of protobuf: seven bits a byte, the lowest first."""
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))

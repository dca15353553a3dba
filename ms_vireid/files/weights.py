"""Arrays by name from MindSpore's .ckpt and from .safetensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import META_KEY, check_names, require_file
from ms_vireid.files.ckpt import read_ckpt
from ms_vireid.files.writing import whole

_CHECKSUM = "sha256"  # in the metadata of a .safetensors of this project


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a .safetensors or .ckpt file.

    Raises:
        InputError: another format, or a file that is not whole.
    """
    if path.suffix == ".ckpt":
        return read_ckpt(path)[0]
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are read from .safetensors or .ckpt; convert others with parity/convert.py")
    return read_safetensors(path)[0]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and the file's string metadata.

    Raises:
        InputError: the file is not whole, or of types that NumPy does not have.
    """
    with checked_safetensors(path), safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, file.metadata() or {}


@contextmanager
def checked_safetensors(path: Path) -> Iterator[None]:
    """A block that reads a .safetensors file by its library, which checks the header.

    Raises:
        InputError: there is no such file, it does not fit into the memory, is not whole, or has names that cannot be
            printed or another checksum than it says.
    """
    require_file(path, "checkpoint file")
    require_memory(path.stat().st_size, f"{path}: reading it", "use another copy, or a machine with more memory")
    try:
        yield
        header, said, found = _checksums(path)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{path}: not a whole weight file of plain types ({size} bytes, cut off, damaged or foreign: {error}); use "
            "another copy"
        ) from None
    check_names(path, header)
    if said not in (None, found):
        raise InputError(f"{path}: not a whole weight file: its checksum is another one; use another copy")


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], text: str) -> None:
    """Write arrays with the JSON `text` and a checksum, for PyTorch; raises InputError as `whole` does."""
    open_place = "0" * hashlib.sha256().digest_size * 2
    with whole(path) as temporary:
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        try:
            save_file(contiguous, temporary, {"format": "pt", META_KEY: text, _CHECKSUM: open_place})
        except SafetensorError as error:  # how it passes on what writing raises
            raise OSError(str(error)) from None
        _, _, checksum = _checksums(temporary)
        with temporary.open("r+b") as file:
            place = 8 + _raw_header(file).index(open_place.encode())
            file.seek(place)
            file.write(checksum.encode())


def _checksums(path: Path) -> tuple[dict, str | None, str]:
    """The header of a file that the library has read, without its metadata; the checksum that it says, if any; and the
    one that it has: over names, types, shapes, bytes and the other metadata."""
    with path.open("rb") as file:
        header = json.loads(_raw_header(file))
        metadata = header.pop("__metadata__", {})
        said = metadata.pop(_CHECKSUM, None)
        digest = hashlib.sha256(json.dumps([header, metadata], sort_keys=True).encode())
        while block := file.read(1 << 20):
            digest.update(block)
    return header, said, digest.hexdigest()


def _raw_header(file: BinaryIO) -> bytes:
    return file.read(int.from_bytes(file.read(8), "little"))

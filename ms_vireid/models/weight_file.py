"""Reading weight files: MindSpore's .ckpt and .safetensors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ms_vireid.errors import InputError

META_KEY = "ms_vireid"  # the one string among a checkpoint's parameters: JSON


@contextmanager
def quiet() -> Iterator[None]:
    """MindSpore logs several lines besides raising; the one line of our own error is enough."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def read_ckpt(path: Path) -> tuple[dict[str, Parameter], str]:
    """Parameters by name, and the JSON text saved with them ("{}" if the file is not of this project).

    Raises:
        InputError: there is no such file, or it is empty, cut off, damaged or not MindSpore's format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    if path.suffix != ".ckpt":
        raise InputError(f"{path}: a checkpoint ends in .ckpt; convert other formats with parity/convert.py")
    try:
        with quiet():
            parameters = ms.load_checkpoint(str(path), crc_check=True)
    except ValueError:
        size = path.stat().st_size
        raise InputError(
            f"{path}: not a whole MindSpore checkpoint ({size} bytes, cut off, damaged or foreign); use another copy"
        ) from None
    return parameters, parameters.pop(META_KEY, "{}")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a .safetensors or .ckpt file.

    Raises:
        InputError: another format, or a file that is not whole.
    """
    if path.suffix == ".ckpt":
        return {name: parameter.asnumpy() for name, parameter in read_ckpt(path)[0].items()}
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are read from .safetensors or .ckpt; convert others with parity/convert.py")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); use another copy") from None

"""Reading weight files: PyTorch's .pth, .pt and .t, and .safetensors."""

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import DAMAGED, check_names, open_archive, require_file
from ms_vireid.files.pytorch_checkpoint import PICKLED, WRAPPERS, ZIP, check_stored
from ms_vireid.files.weights import read_checkpoint

# Released files also hold numbers and arrays of numbers (an accuracy, a curve), under both names of numpy's module.
# None of these runs anything that the file says.
_NUMPY_CORES = ("numpy.core", "numpy._core")
_MULTIARRAY = {"_reconstruct": lambda *arguments: _empty_array(*arguments), "scalar": np.core.multiarray.scalar}
_NUMPY = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    *((function, f"{core}.multiarray.{name}") for core in _NUMPY_CORES for name, function in _MULTIARRAY.items()),
]
# torch.load raises any of these for bytes that are not a pickle, or a damaged one.
_DAMAGED = (*DAMAGED, AssertionError, pickle.UnpicklingError, struct.error)


def read_pickled(path: Path) -> Any:
    """Read the tensors, numbers, arrays and plain containers of a pickled file; no code in it runs. Raises InputError
    if the file is not whole or refers to anything else."""
    require_file(path, "checkpoint file")
    require_memory(2 * path.stat().st_size, f"{path}: reading it", "use another copy, or a machine with more memory")
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns before it refuses TorchScript; our error line is enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: {_reason(path, str(error))}") from None


def _check_archive(path: Path) -> None:
    """Raise one of DAMAGED unless an archive's members are stored as PyTorch stores them, and each has its CRC."""
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:  # as PyTorch wrote before 1.6
            return
    with open_archive(path) as archive:
        check_stored(archive, path.stat().st_size)
        if archive.testzip() is not None:
            raise ValueError("damaged")


def _empty_array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """Replace numpy's `_reconstruct`, which makes arrays of any size; a pickle of weights needs empty ones only."""
    if shape != (0,):
        raise ValueError(f"an array that is made of shape {shape}")
    return np.core.multiarray._reconstruct(kind, shape, code)


def _reason(path: Path, error: str) -> str:
    if foreign := re.search(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)", error):
        return f"refers to {foreign[1]}, which no weights need; it was not run: save a plain state dict and try again"
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "is a page of HTML or XML, not a weight file; download the file itself"
    return f"not a whole weight file ({path.stat().st_size} bytes, cut off, damaged or foreign); use another copy"


def state_dict_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict of a pickled file, plain or under one of `WRAPPERS`; raises InputError if there is none or
    some of its values are not tensors."""
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not a state dict (tensors by name)")
    inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    wrong = [f"{name} is a {type(value).__name__}" for name, value in inner.items() if not isinstance(value, Tensor)]
    wrong += [f"{name!r} is not a name" for name in inner if not isinstance(name, str)]
    if wrong or not inner:
        problem = ", ".join(wrong) or "nothing"
        raise InputError(f"{path}: holds no plain state dict (tensors by name): {problem}; save model.state_dict()")
    if odd := [name for name, value in inner.items() if not _is_plain(value)]:
        raise InputError(f"{path}: weights that are sparse or quantised: {', '.join(odd)}; save them as plain tensors")
    check_names(path, inner)
    size = sum(value.numel() * value.element_size() for value in inner.values())  # several may share memory in the file
    require_memory(2 * size, f"{path}: making its tensors", "use another copy, or a machine with more memory")
    return dict(inner)


def _is_plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors, .pth, .pt or .t file; raises InputError for another format, a damaged
    file, or one without a state dict."""
    if path.suffix == ".safetensors":
        return {name: torch.from_numpy(array) for name, array in read_checkpoint(path).arrays.items()}
    if path.suffix not in PICKLED:
        raise InputError(f"{path}: weights are read from .safetensors, {', '.join(PICKLED)}")
    return state_dict_of(read_pickled(path), path)

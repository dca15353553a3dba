"""Reading weight files: PyTorch's .pth, .pt and .t, and .safetensors."""

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ms_vireid.errors import InputError

PICKLED = (".pth", ".pt", ".t")  # .t is what the AGW baseline saves under
WRAPPERS = ("state_dict", "model", "net", "model_state")  # keys under which files keep their state dict

# What files of releases hold beside tensors (an accuracy, a curve): numbers and arrays of numbers, under both names of
# numpy's module. None of these runs anything that the file says.
_NUMPY = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    *(
        (function, f"{module}.multiarray.{function.__name__}")
        for module in ("numpy.core", "numpy._core")
        for function in (np.core.multiarray._reconstruct, np.core.multiarray.scalar)
    ),
]
# torch.load raises any of these for bytes that are no pickle, or a damaged one.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def read_pickled(path: Path) -> Any:
    """What a .pth, .pt or .t file holds of tensors, numbers, arrays and plain containers; no code in it runs.

    Raises:
        InputError: the file is not whole, or refers to anything else.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is refused after one; the line of our own error is enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: {_reason(path, str(error))}") from None


def _reason(path: Path, error: str) -> str:
    if foreign := re.search(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)", error):
        return f"refers to {foreign[1]}, which no weights need; it was not run: save a plain state dict and try again"
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "is a page of HTML or XML, not a weight file; download the file itself"
    return not_whole(path)


def not_whole(path: Path) -> str:
    return f"not a whole weight file ({path.stat().st_size} bytes, cut off, damaged or foreign); use another copy"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's string metadata.

    Raises:
        InputError: the file is not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError):
        raise InputError(f"{path}: {not_whole(path)}") from None


def state_dict_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict that a pickled file holds, plainly or under one of `WRAPPERS`.

    Raises:
        InputError: there is none, or some of its values are no tensors, all named.
    """
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not a state dict (tensors by name)")
    inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    wrong = [f"{name} is a {type(value).__name__}" for name, value in inner.items() if not isinstance(value, Tensor)]
    wrong += [f"{name!r} is no name" for name in inner if not isinstance(name, str)]
    if wrong or not inner:
        found = ", ".join(wrong) or "nothing"
        raise InputError(f"{path}: holds no plain state dict (tensors by name): {found}; save model.state_dict()")
    return dict(inner)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pth, .pt or .t file.

    Raises:
        InputError: another format, a file that is not whole, or one that holds no state dict.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    if path.suffix not in PICKLED:
        raise InputError(f"{path}: weights are read from .safetensors, {', '.join(PICKLED)}")
    return state_dict_of(read_pickled(path), path)

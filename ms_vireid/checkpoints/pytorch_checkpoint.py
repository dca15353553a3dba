"""PyTorch's `.pth`, read without PyTorch: the zip archive of PyTorch 1.6 and later, and the earlier sequence of pickles
and storages.

Pickles are read by `pickle.Unpickler` as it is written in Python. The C version sizes its memo and hashes keys before
it asks `find_class` anything, so that a hostile pickle can take all memory, or hours.
"""

import io
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import open_archive

PICKLED = (".pth", ".pt", ".t")  # the AGW baseline saves .t
SAVE = "save a plain state dict: torch.save(model.state_dict(), path)"
_PLAINLY = "save plain tensors: .cpu(), .float(), .to_dense(), .dequantize(), .full_tensor()"
_NEVER = pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.DICT + pickle.INST + pickle.OBJ  # instructions of torch.save
_MAX_INSTRUCTIONS = 1 << 20  # a ViT-B's pickle has 7 thousand, with its optimizer's state 30 thousand
_BFLOAT16 = "u2"  # NumPy lacks it: widened to float32, which is exact
_TYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": _BFLOAT16, "Bool": "?"}
_TYPES |= {"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1"}
# Also as torch.cuda.FloatStorage, or of another device's library.
_STORAGE = re.compile(rf"torch\w*\.(?:\w+\.)*({'|'.join(_TYPES)})Storage")
# What is refused wherever it is: tensors that are no plain ones, and what has a program run.
_ODD_TENSOR = re.compile(r"torch\w*\..*\._rebuild_\w+|torch\.distributed\..*Tensor")  # unless `_CALLS` has it
_PROGRAM = re.compile(
    r"(os|nt|posix|sys|subprocess|commands|importlib|runpy|socket|shutil|ctypes|pty|webbrowser|torch\.hub)\..*"
    r"|(builtins|__builtin__)\.(__import__|breakpoint|compile|eval|exec|execfile|open)"
    r"|(\w*[pP]ickle|marshal|numpy|joblib|torch|torch\.serialization)\.loads?"
)


class Foreign:
    """A class or function that a pickle names, or what it would have made. Nothing is imported, called or kept.
    numbers: of a storage, flat; they are filled in once the pickle has been read."""

    def __init__(self, name: str, numbers: np.ndarray | None = None):
        self.name, self.numbers = name[:100], numbers

    def __str__(self) -> str:
        return self.name

    def append(self, *values: Any) -> None:
        """Drop what a pickle adds to a list or sets in a dictionary."""

    extend = __setitem__ = append


class Dictionary(dict):
    """A pickle's dictionary. A `Foreign` stands for each key that is no text, which could take long to hash."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key if type(key) is str else Foreign(kind_of(key)), value)


def kind_of(value: Any) -> str:
    """Say what a value of a pickle is."""
    kind = "tensor" if isinstance(value, np.ndarray) else type(value).__name__.lower()
    return value.name if isinstance(value, Foreign) else kind


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *flags: Any) -> np.ndarray:
    """Make a tensor of a storage's numbers, none of which lies outside it."""
    numbers = storage.numbers
    if not type(shape) is type(strides) is tuple or not len(shape) == len(strides) <= 32:
        raise ValueError("a tensor whose shape and strides do not fit")
    if any(type(number) is not int or not 0 <= number < 2**60 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor of invalid sizes")
    if any(isinstance(flag, dict) and any(flag.values()) for flag in flags[2:]):
        raise ValueError("a tensor that is conjugated or negated when it is read: save its resolve_neg()")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset > len(numbers) or (0 not in shape and last >= len(numbers)):
        raise ValueError(f"a tensor that ends at {last} of a storage of {len(numbers)}")
    return as_strided(numbers[offset:], shape, [stride * numbers.itemsize for stride in strides], writeable=False)


_UTILS, _PARAMETER = "torch._utils._rebuild", "torch.nn.parameter"
_WRAPPED = (f"{_UTILS}_parameter", f"{_UTILS}_parameter_with_state", f"{_UTILS}_device_tensor_from_cpu_tensor")
_CALLS = {  # all that is made; what has any other name is a `Foreign`
    "collections.OrderedDict": lambda: Dictionary(),
    **dict.fromkeys((f"{_UTILS}_tensor", f"{_UTILS}_tensor_v2"), _tensor),
    "torch_npu.utils.storage._rebuild_npu_tensor": _tensor,  # of an Ascend's memory, laid out as PyTorch's
    "torch._tensor._rebuild_from_type_v2": lambda function, _, inner, __: _call(function, inner),  # with attributes
    **dict.fromkeys((*_WRAPPED, f"{_PARAMETER}.Parameter", f"{_PARAMETER}.Buffer"), lambda value, *_: value),
}


def _call(called: Any, arguments: Any) -> Any:
    if type(called) is not Foreign or type(arguments) is not tuple:
        raise ValueError(f"a call of a {kind_of(called)} with a {kind_of(arguments)}")
    return _CALLS[called.name](*arguments[:9]) if called.name in _CALLS else Foreign(called.name)


class _Instructions(dict):
    left = _MAX_INSTRUCTIONS

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0 or code not in self:
            raise ValueError("a pickle larger than weights need")
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):
    """Reads the pickles of a file, one with each `load`. storages: those that tensors refer to, by key. order: of their
    bytes, "<" or ">"."""

    def __init__(self, content: bytes, path: Path, order: str = "<"):
        self.file, self.path, self.order, self.free = io.BytesIO(content), path, order, path.stat().st_size
        super().__init__(self.file, encoding="latin-1")  # texts of Python 2, a byte in each letter
        self.storages: dict[str, Foreign] = {}
        self.dispatch = _Instructions(self.dispatch)

    def load(self) -> Any:
        """Read the pickle at the file's position, which is advanced past it."""
        self.memo = {}
        return super().load()

    def find_class(self, module: str, name: str) -> Foreign:
        """Return the name; raises InputError for a program's, and for a tensor that cannot be read."""
        named = Foreign(f"{module}.{name}")
        if _PROGRAM.fullmatch(named.name):
            raise InputError(f"{self.path}: refers to {named.name!r}, which no weights need; it was not run; {SAVE}")
        if named.name not in _CALLS and _ODD_TENSOR.fullmatch(named.name):
            raise InputError(f"{self.path}: has a tensor of {named}, which is not plain; {_PLAINLY}")
        return named

    def persistent_load(self, saved: Any) -> Foreign:
        """Make a storage; the earlier container's modules have a place too."""
        kind, named, *about = saved
        if kind == "module":
            return Foreign(named.name)
        key, _, size, *view = about
        if kind != "storage" or type(key) is not str or type(size) is not int or size < 0:
            raise ValueError("a reference to something other than a storage")
        if not (known := _STORAGE.fullmatch(named.name)) or view not in ([], [None]):
            raise InputError(f"{self.path}: has a storage of {named}, which is not plain; {_PLAINLY}")
        dtype = np.dtype(_TYPES[known[1]]).newbyteorder(self.order)
        if key not in self.storages:
            self.free -= size * dtype.itemsize
            if self.free < 0:
                raise ValueError("storages larger than the file")
            self.storages[key] = Foreign(named.name, np.empty(size, dtype))
        numbers = self.storages[key].numbers
        if (numbers.dtype, len(numbers)) != (dtype, size):
            raise ValueError(f"storage {key} has two types or sizes")
        return self.storages[key]

    def fill(self, key: str, content: Any) -> None:
        """Give a storage its numbers."""
        numbers = self.storages[key].numbers
        if len(content) != numbers.nbytes:
            raise ValueError(f"storage {key} has {len(content)} bytes, not {numbers.nbytes}")
        numbers.view("u1")[:] = np.frombuffer(content, "u1")

    def _reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.append(_call(called, arguments))

    dispatch: ClassVar = {code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _NEVER}
    dispatch |= {
        pickle.EMPTY_DICT[0]: lambda self: self.append(Dictionary()),
        pickle.EMPTY_SET[0]: pickle._Unpickler.load_empty_list,  # nothing is hashed
        pickle.ADDITEMS[0]: pickle._Unpickler.load_appends,
        pickle.FROZENSET[0]: pickle._Unpickler.load_list,
        pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # its own would allocate first
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: lambda self: (self.stack.pop(), self._reduce()),
        pickle.BUILD[0]: lambda self: self.stack.pop(),  # an object's state
    }


def read_pth(path: Path, is_archive: bool) -> Any:
    """Read what a file holds, made of plain values, dictionaries, lists, tensors as read-only arrays that may share
    memory, and a `Foreign` for anything else.

    Raises ValueError, or what a damaged pickle makes of Python's types, for a damaged file; InputError for what cannot
    be read otherwise.
    """
    try:
        return _read_archive(path) if is_archive else _read_sequence(path)
    except (ArithmeticError, EOFError, RuntimeError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(str(error) or "it is cut off") from None


def _read_archive(path: Path) -> Any:
    with open_archive(path) as archive:
        names, members = archive.namelist(), archive.infolist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in names):
            raise InputError(f"{path}: is a zip archive, but no file of torch.save (TorchScript is a program); {SAVE}")
        # PyTorch compresses nothing; what is packed or overlaps could be of any size.
        is_packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if is_packed or sum(member.file_size for member in members) > path.stat().st_size or len({*names}) < len(names):
            raise ValueError("compressed, or members that overlap")
        if any(member.file_size and not member.CRC for member in members):
            why = "has no checksums, as set_crc32_options(False) and skip_data of torch.serialization save"
            raise InputError(f"{path}: {why}; save it again without these")
        folder = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        pickled = _Unpickler(archive.read(pickles[0]), path, {b"little": "<", b"big": ">"}[order])
        loaded = pickled.load()
        for key in pickled.storages:
            pickled.fill(key, archive.read(f"{folder}data/{key}"))
    return loaded


def _read_sequence(path: Path) -> Any:
    content = path.read_bytes()  # not BytesIO.getbuffer(), by which Python may crash when it collects an error's frames
    pickled = _Unpickler(content, path)
    if (pickled.load(), pickled.load()) != (0x1950A86A20F9469CFC6C, 1001):
        raise InputError(f"{path}: is a pickle, but not torch.save's; {SAVE}")
    pickled.order = ">" if pickled.load()["little_endian"] is False else "<"
    loaded, keys, start = pickled.load(), pickled.load(), pickled.file.tell()
    content = memoryview(content)
    for key in keys:
        numbers = pickled.storages[key].numbers if type(key) is str else None  # others could take long to hash
        end = start + 8 + numbers.nbytes
        if content[start : start + 8] != np.array(len(numbers), f"{pickled.order}i8").tobytes():
            raise ValueError(f"storage {key} is of another size")
        pickled.fill(key, content[start + 8 : end])
        start = end
    if pickled.storages.keys() != {*keys}:
        raise ValueError("storages without numbers")
    return loaded


def plain_array(tensor: np.ndarray) -> np.ndarray:
    """Make an array of its own, of a type that NumPy computes with; bfloat16 becomes float32."""
    native = tensor.dtype.newbyteorder("=")
    if native.kind == "b":
        return np.asarray(tensor.view("u1") != 0)
    array = widened(tensor) if native == _BFLOAT16 else np.ascontiguousarray(tensor, native)
    return array.reshape(tensor.shape)


def widened(bits: np.ndarray) -> np.ndarray:
    """Make float32 of bfloat16's bits, which is exact."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)

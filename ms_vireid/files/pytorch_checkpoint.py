"""PyTorch's `.pth`, parsed without PyTorch and without Python's unpickler.

Two containers exist: the zip archive of PyTorch 1.6 and later, and the earlier sequence of pickles and storages. The
pickle's opcodes are interpreted here, with a closed list of names that stand for data: nothing that a file names is
imported or called.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.command.errors import InputError, the_first
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import open_archive

PICKLED = (".pth", ".pt", ".t")  # the AGW baseline saves .t
# Keys of a dict that contains the plain state dict.
WRAPPERS = ("state_dict", "model", "net", "model_state", "model_state_dict", "network", "module", "weights")
CHOOSE = "name one: --weights NAME of convert.py, or model.pretrained_weights=NAME"
ZIP = b"PK\x03\x04"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the earlier container
_MAX_PICKLE_BYTES = 1 << 22  # a ViT-B's has 20 thousand
_MAX_DIMENSIONS = 32
_BFLOAT16 = "bfloat16"  # NumPy lacks it: read as integers and widened to float32, which is exact
_TYPES = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": _BFLOAT16,
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
_STORAGES = {f"torch.{device}{kind}Storage": code for device in ("", "cuda.") for kind, code in _TYPES.items()}
_CALLED = {  # functions, with the lowest number of arguments
    "collections.OrderedDict": 0,
    "torch.Size": 1,
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 4,
    "torch._utils._rebuild_parameter": 1,
    "torch.nn.parameter.Parameter": 1,  # in PyTorch's earliest files
}
# What lies beside weights and is passed over: a metric, a curve, the command's arguments. None of it is made.
_PASSED_OVER = {
    **{f"numpy.{core}.multiarray._reconstruct": "ndarray" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": "number" for core in ("core", "_core")},
    "numpy.dtype": "dtype",
    "_codecs.encode": "bytes",
    "argparse.Namespace": "namespace",
    "collections.Counter": "counter",
    "pathlib.PosixPath": "path",
    "torch.device": "device",
}
_NAMED = ("numpy.ndarray", *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64")))
_KNOWN = {*_STORAGES, *_CALLED, *_PASSED_OVER, *_NAMED}
_MARK = object()
_SAVE = "save a plain state dict: torch.save(model.state_dict(), path)"


class DamagedError(ValueError):
    """A file is truncated, damaged or of another kind."""


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names. It is never looked up."""

    text: str


@dataclass(frozen=True, eq=False)
class _PassedOver:
    """A value of a kind in `_PASSED_OVER`."""

    kind: str


@dataclass(frozen=True)
class _Storage:
    key: str
    code: str
    size: int  # elements

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u2" if self.code == _BFLOAT16 else self.code)


@dataclass(frozen=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


@dataclass(frozen=True)
class Pickled:
    """A set of weights in a file, and what else is there.

    arrays: by name; they may share memory and be read-only. sets: names of all sets, this one's first; "" is the whole
    file. others: further values of the file, plain ones as they are.
    """

    arrays: dict[str, np.ndarray]
    sets: tuple[str, ...]
    others: dict[str, Any]


def read_pth(path: Path, choice: str | None = None) -> Pickled:
    """Read a set of tensors by name: the one called `choice`, else the plain one; bfloat16 becomes float32.

    A `choice` that is no set is the caller's to look for among the names. Raises DamagedError for a damaged file, and
    InputError for one that names anything outside the closed list, contains no set of tensors or several of which none
    is plain, or needs more memory than there is.
    """
    with path.open("rb") as file:
        start = file.read(256)
        is_archive = start.startswith(ZIP)
        if start.lstrip().startswith(b"<"):
            raise InputError(f"{path}: is a page of HTML or XML, not a weight file; download the file itself")
        file.seek(0)
        try:
            if is_archive:
                return _read_archive(path, choice)
            return _read_sequence(path, io.BytesIO(file.read()), choice)
        except (ArithmeticError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
            raise DamagedError(str(error)) from None


def check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Raise DamagedError if a member of the archive is compressed, repeated or overlaps another. PyTorch compresses
    nothing, and a compressed member could expand to any size. size: of the file, in bytes."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DamagedError("compressed")
    if sum(member.file_size for member in members) > size:
        raise DamagedError("members that overlap")
    if len(set(archive.namelist())) < len(members):
        raise DamagedError("a member is there twice")


def _read_archive(path: Path, choice: str | None) -> Pickled:
    with open_archive(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise InputError(f"{path}: is TorchScript, a program; save its state_dict() by torch.save")
        check_stored(archive, path.stat().st_size)
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DamagedError("an archive without PyTorch's data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
            raise DamagedError("a pickle longer than weights need")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise DamagedError(f"byte order {order[:20]!r}")
        loaded = _Pickle(path).read(io.BytesIO(archive.read(pickles[0])))
        tensors, sets, others = _state_dict(path, loaded, choice)
        contents = {key: archive.read(f"{folder}data/{key}") for key in {t.storage.key for t in tensors.values()}}
    return Pickled(_arrays(tensors, contents, order == b"big"), sets, others)


def _read_sequence(path: Path, file: io.BytesIO, choice: str | None) -> Pickled:
    machine = _Pickle(path)
    if machine.read(file) != _MAGIC or machine.read(file) != _PROTOCOL:
        raise DamagedError("not PyTorch's")
    system = machine.read(file)
    is_big = system["little_endian"] is False
    tensors, sets, others = _state_dict(path, machine.read(file), choice)
    keys = machine.read(file)
    buffer = file.getbuffer()
    contents, start = {}, file.tell()
    for key in keys:
        storage = machine.storages[key]
        size = int.from_bytes(buffer[start : start + 8], "big" if is_big else "little", signed=True)
        end = start + 8 + storage.size * storage.dtype.itemsize
        if size != storage.size or end > len(buffer):
            raise DamagedError(f"storage {key} is cut off")
        contents[key] = buffer[start + 8 : end]
        start = end
    return Pickled(_arrays(tensors, contents, is_big), sets, others)


def _state_dict(
    path: Path, loaded: Any, choice: str | None
) -> tuple[dict[str, _Tensor], tuple[str, ...], dict[str, Any]]:
    """The tensors of the chosen set, the names of all sets, the chosen one's first, and what else there is."""
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {kind_of(loaded)}, not a state dict (tensors by name); {_SAVE}")
    sets = _sets(loaded)
    if not sets:
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
        wrong = [f"{name} is a {kind_of(value)}" for name, value in inner.items() if not isinstance(value, _Tensor)]
        wrong += [f"{name!r} is not a name" for name in inner if not isinstance(name, str)]
        problems = the_first(wrong) or "nothing"
        raise InputError(f"{path}: holds no plain state dict (tensors by name): {problems}; {_SAVE}")
    chosen = choice if choice in sets else _plain(path, list(sets), choice)
    tensors = {name: value for name, value in sets[chosen].items() if isinstance(value, _Tensor)}
    outer = chosen.partition(".")[0]
    others = {str(name): value for name, value in loaded.items() if chosen and name != outer}
    others |= {name: value for name, value in sets[chosen].items() if name not in tensors}
    # Tensors that share a storage need more memory than the file.
    size = sum(math.prod(tensor.shape) * max(tensor.storage.dtype.itemsize, 4) for tensor in tensors.values())
    require_memory(size, f"{path}: making its tensors", "use another copy, or a machine with more memory")
    return tensors, (chosen, *(name for name in sets if name != chosen)), others


def _sets(tree: Any, name: str = "", depth: int = 3) -> dict[str, dict[str, Any]]:
    """Every dict of tensors by name within `depth` dicts, by the keys that lead to it."""
    if not isinstance(tree, dict) or not depth or not all(isinstance(key, str) for key in tree):
        return {}
    found = {name: tree} if any(isinstance(value, _Tensor) and value.shape for value in tree.values()) else {}
    for key, value in tree.items():
        found |= _sets(value, f"{name}.{key}" if name else key, depth - 1)
    return found


def _plain(path: Path, names: list[str], choice: str | None) -> str:
    """The name of the only set, or of the only one that the file or `WRAPPERS` names; raises InputError without one."""
    plain = [name for name in names if all(key in ("", *WRAPPERS) for key in name.split("."))]
    if "" in names or len(names) == 1:
        return names[0]
    if len(plain) != 1:
        asked = f"no {choice!r} among its sets of weights" if choice else "several sets of weights"
        raise InputError(f"{path}: holds {asked} ({the_first(names)}); {CHOOSE}")
    return plain[0]


def _arrays(tensors: dict[str, _Tensor], contents: dict[str, Any], is_big: bool) -> dict[str, np.ndarray]:
    return {name: _array(name, tensor, contents, is_big) for name, tensor in tensors.items()}


def _array(name: str, tensor: _Tensor, contents: dict[str, Any], is_big: bool) -> np.ndarray:
    storage = tensor.storage
    dtype = storage.dtype.newbyteorder(">" if is_big else "<")
    content = contents[storage.key]
    if len(content) != storage.size * dtype.itemsize:
        raise DamagedError(f"{name}: its storage has {len(content)} bytes, not {storage.size} of {dtype}")
    flat = np.frombuffer(content, "u1" if storage.code == "?" else dtype)[tensor.offset :]
    strides = [stride * flat.itemsize for stride in tensor.strides]
    array = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    if storage.code == "?":
        return array != 0
    if storage.code == _BFLOAT16:
        return widened(array)
    return np.ascontiguousarray(array, storage.dtype).reshape(tensor.shape)


def widened(bits: np.ndarray) -> np.ndarray:
    """Make float32 of bfloat16's bits, which is exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class _Pickle:
    """Interprets pickles. storages: those that they refer to, by key."""

    def __init__(self, path: Path):
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def read(self, file: io.BytesIO) -> Any:
        """Read the pickle at the position of `file`, which is advanced past it."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        start = file.tell()
        for opcode, argument, place in pickletools.genops(file):
            if place - start > _MAX_PICKLE_BYTES:
                raise DamagedError("a pickle longer than weights need")
            if opcode.name == "STOP":
                break
            self._follow(opcode.name, argument)
        (result,) = self.stack
        return result

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("APPEND", "APPENDS"):
            values = self._marked() if name == "APPENDS" else [stack.pop()]
            self._last(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._set(self._last(dict), values)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            text = ".".join((stack.pop(-2), stack.pop()) if name == "STACK_GLOBAL" else argument.split(" "))
            stack.append(self._known(text))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._call(called, arguments))
        elif name == "BUILD":
            stack.pop()  # a parameter's flags, or a state dict's _metadata: neither is weights
            self._last((_Tensor, _PassedOver, dict))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"{self.path}: its pickle has {name}, which no weights need; {_SAVE}")

    def _last(self, kind: type | tuple[type, ...]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise DamagedError(f"a {kind_of(self.stack[-1])} is changed")
        return self.stack[-1]

    def _marked(self) -> list[Any]:
        """Pop everything down to the last mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _set(self, target: dict, values: list[Any]) -> None:
        if any(not isinstance(key, str | int) for key in values[::2]):
            raise DamagedError("a key that is neither text nor number")
        target.update(zip(values[::2], values[1::2], strict=True))

    def _known(self, text: str) -> _Name:
        if text not in _KNOWN:
            raise InputError(f"{self.path}: refers to {text[:100]!r}, which no weights need; it was not run; {_SAVE}")
        return _Name(text)

    def _storage(self, saved: Any) -> _Storage:
        kind, named, key, _, size, *view = saved
        if kind != "storage" or not isinstance(named, _Name) or named.text not in _STORAGES:
            raise DamagedError("a reference to something other than a storage")
        if view not in ([], [None]):
            raise InputError(f"{self.path}: storage {key} is a view of another; save clones of its tensors")
        storage = _Storage(str(key), _STORAGES[named.text], _count(size))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise DamagedError(f"storage {key} has two types or sizes")
        return storage

    def _call(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, _Name) and called.text in _PASSED_OVER:
            return _PassedOver(_PASSED_OVER[called.text])
        if not isinstance(called, _Name) or called.text not in _CALLED or not isinstance(arguments, tuple):
            raise DamagedError("a call of something that is no function")
        if len(arguments) < _CALLED[called.text]:
            raise DamagedError(f"{called.text} with {len(arguments)} arguments")
        if called.text == "torch.Size":
            return tuple(arguments[0])
        if called.text == "collections.OrderedDict":
            result: dict = {}
            for pair in arguments[0] if arguments else ():  # from Python 2
                self._set(result, list(pair))
            return result
        if called.text in ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"):
            if not isinstance(arguments[0], _Tensor):
                raise DamagedError("a parameter that is no tensor")
            return arguments[0]
        return self._tensor(*arguments[:4])

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
        """Make a tensor, after checking that no element lies outside its storage."""
        if not isinstance(storage, _Storage):
            raise DamagedError("a tensor without a storage")
        offset, shape, strides = _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides))
        if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
            raise DamagedError(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if offset > storage.size or (0 not in shape and last >= storage.size):
            raise DamagedError(f"a tensor that ends at {last} of a storage of {storage.size}")
        return _Tensor(storage, offset, shape, strides)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "SHORT_BINSTRING", "BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def kind_of(value: Any) -> str:
    """Say what a value of `Pickled.others` is."""
    return value.kind if isinstance(value, _PassedOver) else type(value).__name__.strip("_").lower()


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise DamagedError(f"{str(value)[:30]} where a size belongs")
    return value

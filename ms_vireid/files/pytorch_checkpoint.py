"""PyTorch's `.pth`, read without PyTorch: the pickle's tensors as places in storages, then the storages.

Two containers exist: the zip archive of PyTorch 1.6 and later, and the earlier sequence of pickles and storages.
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError, first_few
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import open_archive
from ms_vireid.files.containers import GATHER_ZERO
from ms_vireid.files.pickles import DamagedError, Name, Object, Pickle, hides, kind_of

PICKLED = (".pth", ".pt", ".t")  # the AGW baseline saves .t
# Keys of a dict that contains the plain state dict.
WRAPPERS = ("state_dict", "model", "net", "model_state", "model_state_dict", "network", "module", "weights")
CHOOSE = "name one: --weights NAME of convert.py, or model.pretrained_weights=NAME"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the earlier container
_LONG_PICKLE = 1 << 22  # bytes; longer ones hold arrays
_MAX_DIMENSIONS = 32
_BFLOAT16 = np.dtype("u2")  # NumPy lacks it: widened to float32, which is exact
_TYPES = {
    **dict.fromkeys(("QInt8", "QUInt8", "QUInt4x2", "QUInt2x4", "Untyped"), "V1"),  # these are known by size alone
    **dict.fromkeys(("QInt32", "ComplexHalf"), "V4"),
    "ComplexFloat": "V8",
    "ComplexDouble": "V16",
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
# Also as torch.cuda.FloatStorage, or of another device's library.
_STORAGE = re.compile(rf"torch(?:_\w+)?\.(?:\w+\.)*_?({'|'.join(_TYPES)})Storage")
# Functions whose first arguments are a storage, an offset, a shape and strides.
_REBUILT = (
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
    "torch_npu.utils.storage._rebuild_npu_tensor",  # of an Ascend's memory; the numbers lie as PyTorch lays them
)
# Functions and classes whose first argument is the tensor, or an array of it.
_WRAPPED = (
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
    *("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),  # also in PyTorch's earliest files
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    *("torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_xla_tensor"),
)
_TYPED = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")  # function, class, arguments
_FEWEST = {  # arguments of what is made
    "collections.OrderedDict": 0,
    "torch.Size": 1,
    **dict.fromkeys(_REBUILT, 4),
    **dict.fromkeys(_WRAPPED, 1),
    **dict.fromkeys(_TYPED, 3),
}
_NUMPY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_ON_CPU = "save it from the CPU's memory: torch.save({k: v.cpu() for k, v in model.state_dict().items()}, path)"
_PLAINLY = "save it as a plain float32 tensor"
_GATHER = (
    "it is one process's part (FSDP, DTensor) or packed: gather it by get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)) and save that"
)
# What to do about a tensor that cannot be read, by the name of what makes it.
_REMEDIES = {
    r"_rebuild_sparse": "it is sparse: save its to_dense()",
    r"_rebuild_(q|nested_)tensor|_rebuild_tensor_v3|^torch\.[\w.]*Storage$": _PLAINLY,
    r"_rebuild_meta": "it has no numbers, as on the meta device: give the model its weights and save it again",
    r"_rebuild_wrapper_subclass|^torch\.distributed\.[\w.]*Tensor$": _GATHER,
    r"_rebuild_\w*tensor": _ON_CPU,
}
_SAVE = "save a plain state dict: torch.save(model.state_dict(), path)"


class _Storage(NamedTuple):
    """Numbers that tensors share. kind: of `_TYPES`. size: elements. content: of a NumPy array, which lies in the
    pickle, as bytes or a text with a byte in each letter; None: it lies outside."""

    key: str
    kind: str
    dtype: np.dtype
    size: int
    content: bytes | str | None = None

    def flat(self, contents: Mapping[str, Any], order: str) -> np.ndarray:
        """The numbers; raises DamagedError for a content of another size. contents: bytes by key, in that order."""
        inside = self.content.encode("latin-1") if isinstance(self.content, str) else self.content
        content = contents[self.key] if inside is None else inside
        if len(content) != self.size * self.dtype.itemsize:
            raise DamagedError(f"storage {self.key} has {len(content)} bytes, not {self.size} of {self.kind}")
        return np.frombuffer(content, self.dtype.newbyteorder(order) if inside is None else self.dtype)


@dataclass(frozen=True, eq=False)
class _Tensor:
    """strides: elements. Its numbers are made once it is chosen."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind = "tensor"

    def __setstate__(self, state: Any) -> None:
        """Drop a parameter's flags."""

    def array(self, contents: Mapping[str, Any], order: str) -> np.ndarray:
        """The tensor; arguments and errors as of `flat`."""
        dtype, flat = self.storage.dtype, self.storage.flat(contents, order)
        strides = [stride * dtype.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        if dtype.kind == "b":
            return array.view("u1") != 0
        if dtype == _BFLOAT16:
            return widened(array)
        return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(self.shape)


@dataclass(frozen=True)
class Pickled:
    """A set of weights in a file, and what else is there.

    arrays: by name; they may share memory and be read-only. sets: names of all sets, this one's first; "" is the whole
    file. others: further values of the file, plain ones as they are; what a class was to make is an `Object`. unread:
    those of `others` that hold tensors, which nobody reads.
    """

    arrays: dict[str, np.ndarray]
    sets: tuple[str, ...]
    others: dict[str, Any]
    unread: tuple[str, ...] = ()


def read_pth(path: Path, is_archive: bool, choice: str | None = None) -> Pickled:
    """Read a set of tensors by name: the one called `choice`, else the plain one; bfloat16 becomes float32.

    A `choice` that is no set is the caller's to look for among the names. Raises DamagedError for a damaged file, and
    InputError for one that names a program, contains no set of tensors or several of which none is plain, has tensors
    in it that cannot be read, or needs more memory than there is.
    """
    try:
        return (_read_archive if is_archive else _read_sequence)(path, choice)
    except (ArithmeticError, EOFError, RuntimeError, UnpicklingError, struct.error, zipfile.BadZipFile) as error:
        raise DamagedError(str(error) or "it ends too early") from None


def has_checksums(path: Path) -> bool:
    """Return whether an archive of PyTorch has the CRC-32 of every member; `set_crc32_options(False)` leaves them 0."""
    with open_archive(path) as archive:
        return not any(_is_unchecked(member) for member in archive.infolist())


def _is_unchecked(member: zipfile.ZipInfo) -> bool:
    return member.file_size > 0 and member.CRC == 0


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
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path}: {_archive_of(names)}")
        check_stored(archive, path.stat().st_size)
        folder = pickles[0].removesuffix("data.pkl")
        unchecked = {member.filename for member in archive.infolist() if _is_unchecked(member)}
        for name in unchecked:
            del archive.getinfo(name).CRC  # zipfile checks a member that has one
        if (size := archive.getinfo(pickles[0]).file_size) > _LONG_PICKLE:
            require_memory(4 * size, f"{path}: its pickle", "use another copy, or a machine with more memory")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise DamagedError(f"byte order {order[:20]!r}")
        chosen = _chosen(path, _Weights(io.BytesIO(archive.read(pickles[0])), path).load(), choice)
        keys = {tensor.storage.key for tensor in chosen.arrays.values() if tensor.storage.content is None}
        contents = {key: archive.read(f"{folder}data/{key}") for key in keys}
    reserved = [key for key, content in contents.items() if f"{folder}data/{key}" in unchecked and not any(content)]
    if reserved and pickles[0] not in unchecked:
        raise InputError(
            f"{path}: its numbers were never written, as torch.serialization.skip_data saves; save it again without"
        )
    return _filled(chosen, contents, "<" if order == b"little" else ">")


def _archive_of(names: list[str]) -> str:
    """What a zip archive is that torch.save did not write, and what to do."""
    if any(name.endswith(".npy") for name in names):
        return "is NumPy's .npz, not PyTorch's; load it in the library that it is for, and save a state dict there"
    inside = [name for name in names if name.lower().endswith((*PICKLED, ".bin", ".ckpt", ".safetensors", ".tar"))]
    if inside:
        return f"is a zip archive around {first_few(inside)}: unpack it, and give the file inside"
    return "not a whole weight file: a zip archive without PyTorch's data.pkl; use another copy"


def _read_sequence(path: Path, choice: str | None) -> Pickled:
    file = io.BytesIO(path.read_bytes())
    pickles = _Weights(file, path)
    if pickles.load() != _MAGIC:
        raise InputError(f"{path}: is a pickle, but not torch.save's; {_SAVE}")
    if pickles.load() != _PROTOCOL:
        raise DamagedError("not PyTorch's")
    is_big = pickles.load()["little_endian"] is False
    chosen = _chosen(path, pickles.load(), choice)
    keys, buffer = pickles.load(), file.getbuffer()
    contents, start = {}, file.tell()
    for key in keys:
        storage = pickles.storages[key]
        size = int.from_bytes(buffer[start : start + 8], "big" if is_big else "little", signed=True)
        end = start + 8 + storage.size * storage.dtype.itemsize
        if size != storage.size or end > len(buffer):
            raise DamagedError(f"storage {key} is cut off")
        contents[key] = buffer[start + 8 : end]
        start = end
    return _filled(chosen, contents, ">" if is_big else "<")


def _filled(chosen: Pickled, contents: Mapping[str, Any], order: str) -> Pickled:
    """Make arrays of the tensors."""
    return replace(chosen, arrays={name: tensor.array(contents, order) for name, tensor in chosen.arrays.items()})


def _chosen(path: Path, loaded: Any, choice: str | None) -> Pickled:
    """The chosen set, of tensors that are no arrays yet."""
    if isinstance(loaded, Object) and loaded.is_module:
        raise InputError(f"{path}: {_whole_module(loaded)}")
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {kind_of(loaded)}, not a state dict (tensors by name); {_SAVE}")
    sets = _sets(loaded)
    if not sets:
        raise InputError(f"{path}: {_without_sets(loaded)}")
    chosen = choice if choice in sets else _plain(path, list(sets), choice)
    outer = chosen.partition(".")[0]
    # A whole nn.Module among the weights, or as what the file names its model.
    named = {} if chosen == choice or outer in WRAPPERS else {key: loaded[key] for key in WRAPPERS if key in loaded}
    for name, value in (sets[chosen] | named).items():
        if isinstance(value, Object) and value.is_module and hides(value, _Tensor):
            raise InputError(f"{path}: {name} {_whole_module(value)}")
    tensors = {name: value for name, value in sets[chosen].items() if isinstance(value, _Tensor)}
    others = {str(name): value for name, value in loaded.items() if chosen and name != outer}
    others |= {name: value for name, value in sets[chosen].items() if name not in tensors}
    wrong = [(name, value) for name, value in others.items() if name in sets[chosen] and _remedy(value)]
    if wrong:
        name, value = wrong[0]
        more = f" and {len(wrong) - 1} others" if wrong[1:] else ""
        raise InputError(f"{path}: {name}{more} is of {value.text[:80]}, which is no plain tensor; {value.remedy}")
    # Tensors that share a storage need more memory than the file.
    size = sum(math.prod(tensor.shape) * max(tensor.storage.dtype.itemsize, 4) for tensor in tensors.values())
    require_memory(size, f"{path}: making its tensors", "use another copy, or a machine with more memory")
    unread = tuple(name for name, value in others.items() if hides(value, _Tensor))
    return Pickled(tensors, (chosen, *(name for name in sets if name != chosen)), others, unread)


def _whole_module(value: Object) -> str:
    return f"is a whole nn.Module ({value.text[:80]}); it was not made; {_SAVE}"


def _remedy(value: Any) -> str:
    """What to do about a tensor that cannot be read; "" for all other values."""
    return value.remedy if isinstance(value, Object) else ""


def _without_sets(loaded: dict) -> str:
    """Why a dictionary holds no state dict, and what to do."""
    inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    for name, value in loaded.items():
        if isinstance(value, Object) and value.is_module:
            return f"{name} {_whole_module(value)}"
    if "ds_version" in loaded:
        return f"is one process's part of DeepSpeed's state; {GATHER_ZERO}"
    unread = [name for name, value in inner.items() if hides(value, _Tensor)]
    if unread:
        name = unread[0]
        return f"{name} is a {inner[name].kind} with tensors in it, not a dict; save dict(...) of it"
    wrong = [f"{name} is not a name" for name in inner if not isinstance(name, str)]
    named = ((name, value) for name, value in inner.items() if isinstance(name, str))
    wrong += [f"{name} is a {kind_of(value)}" for name, value in named if not isinstance(value, _Tensor)]
    problems = first_few(list(dict.fromkeys(wrong))) or "nothing"
    return f"holds no plain state dict (tensors by name): {problems}; {_SAVE}"


def _sets(tree: Any, name: str = "", depth: int = 3) -> dict[str, dict[str, Any]]:
    """Every dict of tensors by name within `depth` dicts, by the keys that lead to it."""
    if not isinstance(tree, dict) or not depth:
        return {}
    is_set = any((isinstance(value, _Tensor) and value.shape) or _remedy(value) for value in tree.values())
    sets = {name: tree} if is_set and all(isinstance(key, str) for key in tree) else {}
    for key, value in tree.items():
        if isinstance(key, str):
            sets |= _sets(value, f"{name}.{key}" if name else key, depth - 1)
    return sets


def _plain(path: Path, names: list[str], choice: str | None) -> str:
    """The name of the only set, or of the only one that `WRAPPERS` names, or the file's own tensors; raises InputError
    without one."""
    plain = [name for name in names if all(key in WRAPPERS for key in name.split("."))]
    if len(names) == 1 or (not plain and "" in names):
        return names[0]
    if len(plain) != 1:
        asked = f"no {choice!r} among its sets of weights" if choice else "several sets of weights"
        raise InputError(f"{path}: holds {asked} ({first_few(names)}); {CHOOSE}")
    return plain[0]


def widened(bits: np.ndarray) -> np.ndarray:
    """Make float32 of bfloat16's bits, which is exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class _Weights(Pickle):
    """Makes tensors, of storages that are read later. storages: those that the pickles refer to, by key."""

    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file, path, _SAVE)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, saved: Any) -> Any:
        """Make a storage's place; the earlier container's modules have one too."""
        kind, named, *_ = saved
        if kind == "module" and isinstance(named, Name):
            return named
        _, _, key, _, size, *view = saved
        known = _STORAGE.fullmatch(named.text) if isinstance(named, Name) else None
        if kind != "storage" or not known:
            raise DamagedError("a reference to something other than a storage")
        if view not in ([], [None]):
            raise InputError(f"{self.path}: storage {key} is a view of another; save clones of its tensors")
        storage = _Storage(str(key), known[1], np.dtype(_TYPES[known[1]]), _count(size))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise DamagedError(f"storage {key} has two types or sizes")
        return storage

    def call(self, name: str, arguments: Any) -> Any:
        """Make tensors and plain dictionaries; all else is an `Object`."""
        fewest = _FEWEST.get(name)
        if fewest is not None and (not isinstance(arguments, tuple) or len(arguments) < fewest):
            raise DamagedError(f"{name} with {kind_of(arguments)} of too few arguments")
        if fewest is not None and (made := self._known(name, arguments)) is not None:
            return made
        made = super().call(name, arguments)
        made.remedy = next((words for pattern, words in _REMEDIES.items() if re.search(pattern, made.text)), "")
        return made

    def _known(self, name: str, arguments: tuple) -> Any:
        """Make what is known; None if its arguments are another device's."""
        if name == "collections.OrderedDict":
            return self.dictionary(arguments[0] if arguments else ())
        if name == "torch.Size":
            return _sizes(arguments[0])
        if name in _REBUILT:
            return self._tensor(*arguments[:4], *arguments[6:7])
        if name in _TYPED:
            function, _, inner = arguments[:3]
            is_nested = not isinstance(function, Name) or function.text in _TYPED
            return None if is_nested else self.call(function.text, inner)
        value = arguments[0]
        if isinstance(value, Object) and not value.remedy:
            value = _inline(value)
        if not isinstance(value, _Tensor | Object):
            raise DamagedError(f"{name} of a {kind_of(value)}")
        return value

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, flags: Any = None) -> Any:
        """Make a tensor, after checking that no element lies outside its storage."""
        if not isinstance(storage, _Storage):
            raise DamagedError("a tensor without a storage")
        offset, shape, strides = _count(offset), _sizes(shape), _sizes(strides)
        if len(shape) != len(strides):
            raise DamagedError(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if offset > storage.size or (0 not in shape and last >= storage.size):
            raise DamagedError(f"a tensor that ends at {last} of a storage of {storage.size}")
        is_view = isinstance(flags, dict) and any(flags.values())  # conjugated or negated when it is read
        if storage.dtype.kind == "V" or is_view:
            return Object(f"torch.{storage.kind}Storage", [storage], _PLAINLY)
        return _Tensor(storage, offset, shape, strides)


def _inline(array: Object) -> _Tensor:
    """The tensor of a pickled NumPy array; raises DamagedError unless that is of plain numbers and whole."""
    try:
        _, shape, kind, is_fortran, content = array.parts[-1]
        (code, *_), *states = kind.parts  # of its type: what it was to be made of, and its state
        order = states[-1][1] if states else "|"
        if isinstance(content, Object):  # as Python 2 could read it
            content = (*content.parts[0], b"")[0]
    except (TypeError, ValueError, LookupError, AttributeError):
        raise DamagedError("a tensor of something other than an array") from None
    shape = _sizes(shape)
    if code not in _NUMPY_TYPES or order not in ("<", ">", "|", "=") or not isinstance(content, str | bytes):
        raise DamagedError(f"an array of {str(code)[:20]}")
    axes = range(len(shape))
    strides = [math.prod(shape[:axis] if is_fortran is True else shape[axis + 1 :]) for axis in axes]
    dtype = np.dtype(code).newbyteorder(">" if order == ">" else "<")
    return _Tensor(_Storage("", code, dtype, math.prod(shape), content), 0, shape, tuple(strides))


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMENSIONS:
        raise DamagedError(f"a {kind_of(values)} where at most {_MAX_DIMENSIONS} sizes belong")
    return tuple(map(_count, values))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise DamagedError(f"{kind_of(value)} where a size belongs")
    return value

"""Pickles read as data, by Python's own unpickler: plain values are made, and what else a pickle asks for is noted,
never imported or called.

`pickle.Unpickler` fills dictionaries, sets and its memo before `find_class` is asked anything: a memo's place of 2^31
takes 64 GB, a key of nested tuples takes for ever to hash or ends the process, and numbers with one hash take hours.
`pickle._Unpickler`, the same in Python, has a method for each instruction, of which a few are replaced here, as joblib
does. Its memo is a dictionary.
"""

import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from ms_vireid.command.errors import InputError

_MAX_INSTRUCTIONS = 1 << 20  # a ViT-B's pickle has 7 thousand, with its optimizer's state 30 thousand
_MAX_KEY = 1 << 60  # larger whole numbers can share a hash
# What a pickle names to have a program run. None of it is a value that somebody keeps beside weights.
_PROGRAMS = (
    *("_posixsubprocess", "asyncio", "bdb", "cffi", "code", "commands", "ctypes", "imp", "importlib", "nt", "os"),
    *("pdb", "pip", "posix", "profile", "pty", "pydoc", "runpy", "shutil", "socket", "subprocess", "sys", "timeit"),
    *("torch.hub", "torch.utils.cpp_extension", "trace", "urllib", "webbrowser"),
)
_BUILTINS = ("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open")
_CALLS = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
    *("pickle.load", "pickle.loads", "_pickle.load", "_pickle.loads", "cPickle.loads", "dill.loads", "marshal.loads"),
    *("torch.load", "torch.serialization.load", "numpy.load", "joblib.load"),
}
_TELLING = ("copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "functools.partial")
_KINDS = {"_reconstruct": "ndarray", "scalar": "number", "encode": "bytes", "_reconstructor": "object"}


class DamagedError(ValueError):
    """A file is truncated, damaged or of another kind."""


class Name(NamedTuple):
    """A class or function that a pickle names. It is never looked up, and nothing of it can be set."""

    text: str


@dataclass(eq=False)
class Object:
    """What a class or function would have made; it was not called.

    text: its full name. parts: what it was to be made of. remedy: for a tensor that cannot be read, what to do.
    """

    text: str
    parts: list[Any] = field(default_factory=list, repr=False)
    remedy: str = ""

    def __str__(self) -> str:
        return self.kind

    def append(self, part: Any) -> None:
        """Keep what a pickle adds to a list or a set, or sets as an object's state."""
        self.parts.append(part)

    add = __setstate__ = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self.parts += (key, value)

    @property
    def kind(self) -> str:
        """Its name in a few words."""
        last = self.text.rpartition(".")[2][:60]
        return _KINDS.get(last, last.lower())

    @property
    def is_module(self) -> bool:
        """Whether it is an nn.Module."""
        return any(isinstance(part, dict) and {"_parameters", "_modules"} <= part.keys() for part in self.parts)


class Dictionary(dict):
    """A pickle's dictionary. An `Object` stands for each key that could take long to hash."""

    kind = "dict"

    def __setitem__(self, key: Any, value: Any) -> None:
        is_plain = isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY)
        super().__setitem__(key if is_plain else Object(kind_of(key)), value)

    def __setstate__(self, state: Any) -> None:
        """Drop a state dict's _metadata."""


def kind_of(value: Any) -> str:
    """Say what a value is."""
    return getattr(value, "kind", None) or type(value).__name__.lower()


def hides(value: Any, kind: type) -> bool:
    """Whether an `Object` in a value, at any depth, was to be made of a `kind`."""
    seen, ahead = set(), [(value, False)]
    while ahead:
        value, is_hidden = ahead.pop()
        if is_hidden and isinstance(value, kind):
            return True
        if (id(value), is_hidden) in seen or not isinstance(value, dict | list | tuple | Object):
            continue
        seen.add((id(value), is_hidden))
        if isinstance(value, Object):
            ahead += [(part, True) for part in value.parts]
        else:
            ahead += [(item, is_hidden) for item in (value.values() if isinstance(value, dict) else value)]
    return False


def _counted(load: Callable[["Pickle"], None]) -> Callable[["Pickle"], None]:
    def counted(self: "Pickle") -> None:
        self.count()
        load(self)

    return counted


class Pickle(pickle._Unpickler):
    """Reads the pickles of a file, one with each `load`. That raises DamagedError and what a damaged one makes of the
    unpickler and of Python's own types; InputError if it names a program. The subclass makes what it knows.

    path: for messages. remedy: ends the refusal of one that asks for a program.
    """

    def __init__(self, file: io.BytesIO, path: Any, remedy: str):
        super().__init__(file, encoding="latin-1")  # texts of Python 2, a byte in each letter
        self.path = path
        self.remedy = remedy
        self._instructions = 0

    def load(self) -> Any:
        """Read the pickle at the file's position, which is advanced past it."""
        self.memo = {}
        return super().load()

    def call(self, name: str, arguments: Any) -> Any:
        """Make what the function or class `name` is said to make; `Object` unless it is known."""
        telling = name in _TELLING and isinstance(arguments, tuple) and arguments and isinstance(arguments[0], Name)
        return Object(arguments[0].text if telling else name, [arguments])

    def dictionary(self, pairs: Iterable[Any]) -> Dictionary:
        """Make a dictionary of (key, value) pairs. They are counted, as a pickle may use them many times."""
        made = Dictionary()
        for key, value in pairs:
            self.count()
            made[key] = value
        return made

    def count(self) -> None:
        """Count an instruction."""
        self._instructions += 1
        if self._instructions > _MAX_INSTRUCTIONS:
            raise DamagedError("a pickle longer than weights need")

    def find_class(self, module: str, name: str) -> Name:
        """Return the name; raises InputError for a program's."""
        text = f"{module}.{name}"
        if text in _CALLS or text.startswith(tuple(f"{module}." for module in _PROGRAMS)):
            what = f"refers to {text[:100]!r}, which no weights need; it was not run"
            raise InputError(f"{self.path}: {what}; {self.remedy}")
        return Name(text)

    def get_extension(self, code: int) -> None:
        """Raise DamagedError: this looks into a table of all of Python."""
        raise DamagedError(f"an extension ({code}), which no weights need")

    def _called(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, Name):
            return self.call(called.text, arguments)
        if not isinstance(called, Object):
            raise DamagedError("a call of something that is no function")
        return Object(called.text, [called, arguments])

    def _instantiate(self, called: Any, arguments: list[Any]) -> None:
        self.append(self._called(called, tuple(arguments)))

    def _load_call(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.append(self._called(called, arguments))

    def _load_call_with_names(self) -> None:
        named, arguments, called = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(self._called(called, (arguments, named)))

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append(self.dictionary(zip(items[::2], items[1::2], strict=True)))

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(Object("frozenset", items))

    dispatch: ClassVar = {
        code: _counted(load)
        for code, load in {
            **pickle._Unpickler.dispatch,
            pickle.EMPTY_DICT[0]: lambda self: self.append(Dictionary()),
            pickle.DICT[0]: _load_dict,
            pickle.EMPTY_SET[0]: lambda self: self.append(Object("set")),
            pickle.FROZENSET[0]: _load_frozenset,
            pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # its own would allocate first
            pickle.REDUCE[0]: _load_call,
            pickle.NEWOBJ[0]: _load_call,
            pickle.NEWOBJ_EX[0]: _load_call_with_names,
        }.items()
    }

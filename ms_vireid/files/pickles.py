"""Pickles read as data: plain values are made, and what else a pickle asks for is noted, never imported or called.

`pickletools` takes the pickle apart. Python's own unpickler calls nothing either with a closed `find_class`, but it
fills dictionaries and its memo before anybody is asked: a memo's place of 2^31 takes 64 GB, a key of a million nested
tuples ends the process, and numbers with one hash take hours.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ms_vireid.command.errors import InputError

_MAX_INSTRUCTIONS = 1 << 20  # a ViT-B's pickle has 7 thousand, with its optimizer's state 30 thousand
_MAX_KEY = 1 << 60  # larger whole numbers can share a hash
_MARK = object()
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


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. It is never looked up."""

    text: str


@dataclass(eq=False)
class Object:
    """What a class or function would have made; it was not called.

    text: its full name. parts: what it was to be made of. remedy: for a tensor that cannot be read, what to do.
    """

    text: str
    parts: list[Any] = field(default_factory=list, repr=False)
    remedy: str = ""

    @property
    def kind(self) -> str:
        """Its name in a few words."""
        last = self.text.rpartition(".")[2][:60]
        return _KINDS.get(last, last.lower())

    @property
    def is_module(self) -> bool:
        """Whether it is an nn.Module."""
        return any(isinstance(part, dict) and {"_parameters", "_modules"} <= part.keys() for part in self.parts)


def kind_of(value: Any) -> str:
    """Say what a value is."""
    return getattr(value, "kind", None) or type(value).__name__.lower()


def hides(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether an `Object` in a value, at any depth, was to be made of one of `kinds`."""
    seen, ahead = set(), [(value, False)]
    while ahead:
        value, is_hidden = ahead.pop()
        if is_hidden and isinstance(value, kinds):
            return True
        if (id(value), is_hidden) in seen or not isinstance(value, dict | list | tuple | Object):
            continue
        seen.add((id(value), is_hidden))
        if isinstance(value, Object):
            ahead += [(part, True) for part in value.parts]
        else:
            ahead += [(item, is_hidden) for item in (value.values() if isinstance(value, dict) else value)]
    return False


class Pickle:
    """Interprets pickles. remedy: ends the refusal of one that asks for a program. The subclass makes what it knows."""

    def __init__(self, path: Any, remedy: str):
        self.path = path
        self.remedy = remedy
        self._instructions = 0
        self._copied = 0  # items of dictionaries that were made of a list, of which a pickle may make many

    def call(self, name: str, arguments: Any) -> Any:
        """Make what the function or class `name` is said to make; `Object` unless it is known."""
        telling = name in _TELLING and isinstance(arguments, tuple) and arguments and isinstance(arguments[0], Name)
        return Object(arguments[0].text if telling else name, [arguments])

    def build(self, target: Any, state: Any) -> None:
        """Set the state of a made value; it is dropped, but for an `Object`, which keeps it."""
        if isinstance(target, Object):
            target.parts.append(state)
        elif isinstance(target, Name) or type(target) in (list, tuple, str, int, float, bytes, bool, type(None)):
            raise DamagedError(f"a {kind_of(target)} is changed")

    def persistent(self, saved: Any) -> Any:
        """Make what lies outside of the pickle."""
        raise DamagedError("a reference to something outside of it")

    def read(self, file: io.BytesIO) -> Any:
        """Read the pickle at the position of `file`, which is advanced past it. Raises DamagedError and what a damaged
        one makes of Python's own types; InputError if it names a program."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(file):
            self._instructions += 1
            if self._instructions > _MAX_INSTRUCTIONS:
                raise DamagedError("a pickle longer than weights need")
            if opcode.name == "STOP":
                break
            self._follow(opcode.name, argument)
        (result,) = self._stack
        return result

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _MARKED:
            stack.append(_MARKED[name](self._marked()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [stack.pop()] if name == "APPEND" else self._marked()
            self._changed(list, values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._changed(dict, values)
        elif name == "DICT":
            values = self._marked()
            stack.append({})
            self._changed(dict, values)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            text = ".".join((stack.pop(-2), stack.pop()) if name == "STACK_GLOBAL" else argument.split(" "))
            stack.append(self._name(text))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._call(called, arguments))
        elif name == "NEWOBJ_EX":
            named, arguments, called = stack.pop(), stack.pop(), stack.pop()
            stack.append(self._call(called, (arguments, named)))
        elif name == "INST":
            stack.append(self._call(self._name(".".join(argument.split(" "))), tuple(self._marked())))
        elif name == "OBJ":
            called, *arguments = self._marked()
            stack.append(self._call(called, tuple(arguments)))
        elif name == "BUILD":
            state = stack.pop()
            self.build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            raise DamagedError(f"its pickle has {name}, which no weights need")

    def _changed(self, kind: type, values: list[Any]) -> None:
        """Add items to the list or dictionary on the stack, or to what stands for another one."""
        target = self._stack[-1]
        if isinstance(target, Object):
            target.parts.extend(values)
        elif not isinstance(target, kind):
            raise DamagedError(f"a {kind_of(target)} is changed")
        elif kind is list:
            target.extend(values)
        else:
            keys = [key if _is_plain(key) else Object(kind_of(key)) for key in values[::2]]
            target.update(zip(keys, values[1::2], strict=True))

    def _marked(self) -> list[Any]:
        """Pop everything down to the last mark, and the mark."""
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _name(self, text: str) -> Name:
        if text in _CALLS or text.startswith(tuple(f"{module}." for module in _PROGRAMS)):
            what = f"refers to {text[:100]!r}, which no weights need; it was not run"
            raise InputError(f"{self.path}: {what}; {self.remedy}")
        return Name(text)

    def _call(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, Name):
            return self.call(called.text, arguments)
        if not isinstance(called, Object):
            raise DamagedError("a call of something that is no function")
        return Object(called.text, [called, arguments])

    def dictionary(self, pairs: Any) -> dict:
        """Make a dictionary of [key, value] pairs, as Python 2 pickled an OrderedDict."""
        self._copied += len(pairs)
        if self._copied > _MAX_INSTRUCTIONS:
            raise DamagedError("a pickle longer than weights need")
        self._stack.append({})
        self._changed(dict, [value for key_and_value in pairs for value in _pair(key_and_value)])
        return self._stack.pop()


def _pair(values: Any) -> tuple[Any, Any]:
    key, value = values
    return key, value


def _is_plain(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": lambda: Object("set"),
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"),
    *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8"),
}
_MARKED: dict[str, Callable[[list[Any]], Any]] = {
    "FROZENSET": lambda values: Object("frozenset", values),
    "LIST": list,
    "TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

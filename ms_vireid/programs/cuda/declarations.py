"""Reads what the kernels' files (*.cu) declare, and generates from it what CUDA, C and Python need.

    OPERATOR(NAME(NUMBERS), INPUTS -> OUTPUTS, LAUNCHES)

NUMBERS: "int limit" is given by Python; "planes = samples * channels" follows from others; "int ratios{MOST}" are
several.

INPUTS, OUTPUTS: "T x[rows.., columns]" is a type, a name and dimensions. T is float32 or float16, the same in one call.
"rows.." is the product of the leading dimensions. A name is the same length wherever it stands; an expression must give
its dimension. "x?" may be absent; the output "y?x" is absent if x is. "&x" is written in place. "x{MAPS}" are so many
tensors, "x{ratios}" as many as the ratios, of which ratios[k] is each one's, "x{..}" any number, of any shapes.

LAUNCHES: calls of launcher.h's functions, joined by ||. "gelu" launches the kernel of this name with all that has a
name here; "gelu(x, y = z)" with these tensors alone. Its entry points are generated, by types and packs.

    KERNEL(NAME(NUMBERS), INPUTS -> OUTPUTS)

declares what a kernel takes whose name is no operator's, or not with the same arguments. Macros without arguments, or
with one, may stand in all of these.

setup.py imports this module too: it imports nothing of the project.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
_ARGUMENTS, _COMMON = FOLDER / "arguments.h", FOLDER / "common.cuh"
_TYPES = {
    "T": "void",
    "float": "float",
    "int": "int",
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "half": "void",
}
_TENSOR = re.compile(
    r"(?P<type>\w+) (?P<written>&?)(?P<name>\w+)(?:\{(?P<number>[\w.]+)\})?(?P<optional>\?)?(?P<follows>\w+)?"
    r"(?:\[(?P<dimensions>(?:[^][]|\[k\])*)\])?\s*"
)
_NUMBER = re.compile(r"(?:(?P<type>int|float|unsigned) )?(?P<name>\w+)(?:\{(?P<most>\w+)\})?(?: = (?P<value>.+))?")
ABSENT_SHAPE = (1,) * 5  # of the tensor that stands for an absent one: no other has so many dimensions


class Tensor(NamedTuple):
    """number: "" for one, a number or a list's name for several, ".." for any number. follows: the input without which
    this output is absent. dimensions: None for any."""

    type: str
    name: str
    written: bool
    number: str
    optional: bool
    follows: str
    dimensions: tuple[str, ...] | None
    text: str


class Number(NamedTuple):
    """most: how many at most, or the list that has as many; "" for one. value: "" if Python gives it."""

    type: str
    name: str
    most: str
    value: str


class Operator(NamedTuple):
    name: str
    numbers: tuple[Number, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    launches: str

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs + self.outputs

    @property
    def given(self) -> tuple[Number, ...]:
        """The numbers that Python gives."""
        return tuple(number for number in self.numbers if not number.value)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of dimensions that tensors have."""
        known = {*constants(), *(number.name for number in self.numbers)}
        names = (_size(text) for tensor in self.tensors for text in tensor.dimensions or ())
        return tuple(dict.fromkeys(name for name in names if name and name not in known))

    def flat(self, numbers: Mapping[str, object]) -> list[float]:
        """The numbers as C takes them: a list begins with its length. Raises TypeError for other names or lengths."""
        if set(numbers) != {number.name for number in self.given}:
            raise TypeError(f"{self.name} takes {[number.name for number in self.given]}, not {list(numbers)}")
        values = []
        for number in self.given:
            value = numbers[number.name]
            if number.most and len(value) > constants()[number.most]:
                raise TypeError(f"{self.name}: {number.name} has {len(value)} numbers, more than {number.most}")
            values += [len(value), *value] if number.most else [value]
        return [float(value) for value in values]

    def each(self, tensors: Sequence[Tensor], numbers: Mapping[str, object]) -> list[tuple[str, Tensor]]:
        """Some of its tensors with their names, which have the places of several."""
        counts = constants() | {name: len(value) for name, value in numbers.items() if isinstance(value, tuple)}
        pairs = []
        for tensor in tensors:
            several = [f"{tensor.name}{k}" for k in range(counts[tensor.number])] if tensor.number else [tensor.name]
            pairs += [(name, tensor) for name in several]
        return pairs

    def result_types(self, types: Sequence[object], numbers: Mapping[str, object], absent: object) -> list[object]:
        """For each output the type that T is among those of the inputs, the name of another type, or `absent`."""
        inputs = self.each(self.inputs, numbers)
        missing = {name for (name, _), type_ in zip(inputs, types, strict=True) if type_ == absent}
        of_t = [type_ for (name, tensor), type_ in zip(inputs, types, strict=True) if tensor.type == "T"]
        results = []
        for _, tensor in self.each(self.outputs, numbers):
            present = of_t[0] if tensor.type == "T" else tensor.type
            results.append(absent if tensor.follows in missing else present)
        return results

    def result_shapes(self, shapes: Sequence[tuple[int, ...]], numbers: Mapping[str, object]) -> list[tuple[int, ...]]:
        """Shapes of the outputs."""
        following = {number.name: number.value for number in self.numbers if number.value}
        sizes, leading, missing = _Sizes({**_FUNCTIONS, **constants(), **numbers}, following), {}, set()
        for (name, tensor), shape in zip(self.each(self.inputs, numbers), shapes, strict=True):
            if tensor.optional and tuple(shape) == ABSENT_SHAPE:
                missing.add(name)
                continue
            for text, length, part in _aligned(tensor, shape):
                sizes.setdefault(_size(text), length)
                leading.setdefault(text, tuple(part))
        results = []
        outputs = [tensor for _, tensor in self.each(self.outputs, numbers)]
        for place, tensor in enumerate(outputs):
            sizes["k"] = outputs[:place].count(tensor)
            shape = ABSENT_SHAPE if tensor.follows in missing else ()
            for text in () if shape else tensor.dimensions:
                shape += leading[text] if text.endswith("..") else (sizes.evaluate(text),)
            results.append(shape)
        return results


class _Sizes(dict):
    """Sizes by name, those that follow from others once they are asked for."""

    def __init__(self, known: Mapping[str, object], values: Mapping[str, str]):
        super().__init__(known)
        self.values_of = values

    def __missing__(self, name: str) -> object:
        if name not in self.values_of:
            raise KeyError(name)
        return self.evaluate(self.values_of[name])

    def evaluate(self, text: str) -> int:
        return eval(text.replace("/", "//"), {"__builtins__": {}}, self)


def _blocks(count: int, each: int) -> int:
    return -(-count // each)


# What launcher.h has, too.
_FUNCTIONS = {
    "min": min,
    "max": max,
    "blocks": _blocks,
    "parts_of": lambda rows: min(constants()["PARTS"], _blocks(rows, constants()["ROWS"])),
}


def _size(text: str) -> str:
    """The name of a dimension that is one: of "rows..", rows; "" of an expression."""
    name = text.removesuffix("..")
    return name if name.isidentifier() else ""


def _aligned(tensor: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Each dimension's text, length, and for leading ones their shape."""
    dimensions = tensor.dimensions or ()
    for place, text in enumerate(dimensions):
        last = len(shape) - len(dimensions) + place + 1
        part = shape[:last] if text.endswith("..") else shape[last - 1 : last]
        yield text, math.prod(part), part


@cache
def constants() -> dict[str, int]:
    """The numbers that arguments.h defines."""
    return {name: int(value) for name, value in re.findall(r"\b([A-Z_]+) = (\d+)", _text(_ARGUMENTS))}


@cache
def operators() -> dict[str, Operator]:
    return _declared("OPERATOR")


@cache
def _kernels() -> dict[str, Operator]:
    """What declares the arguments of a kernel: KERNEL, or else the operator of its name."""
    return operators() | _declared("KERNEL")


def _declared(kind: str) -> dict[str, Operator]:
    sources = "\n".join(map(_text, [_COMMON, *_files()]))
    sources = re.sub(r"//.*", "", sources).replace("\\\n", " ")
    macros = re.findall(r"^#define ([A-Z_]+)(?:\((\w+)\))? +(.+)$", sources, re.MULTILINE)
    declared = {}
    for found in re.finditer(rf"^{kind}\(", sources, re.MULTILINE):
        text = " ".join(_inside(sources, found.end()).split())
        for name, parameter, value in macros:
            text = _expanded(text, name, parameter, " ".join(value.split()))
        operator = _operator(text)
        declared[operator.name] = operator
    return declared


def _expanded(text: str, name: str, parameter: str, value: str) -> str:
    """With a macro's value in its place."""
    if not parameter:
        return re.sub(rf"\b{name}\b", lambda _: value, text)
    return re.sub(rf"\b{name}\(([\w?]+)\)", lambda used: re.sub(rf"\b{parameter}\b", used[1], value), text)


def _operator(text: str) -> Operator:
    signature, tensors, *launches = _split(text)
    name, _, numbers = signature.removesuffix(")").partition("(")
    inputs, _, outputs = tensors.partition("->")
    return Operator(name, tuple(map(_number, _split(numbers))), _tensors(inputs), _tensors(outputs), "".join(launches))


def _number(text: str) -> Number:
    parts = _NUMBER.fullmatch(text).groupdict("")
    return Number(parts["type"] or "int", parts["name"], parts["most"], parts["value"])


def _tensors(text: str) -> tuple[Tensor, ...]:
    tensors, place = [], 0
    for found in _TENSOR.finditer(text := text.strip()):
        assert found.start() == place, f"{text!r} is no list of tensors"
        place = found.end()
        parts = found.groupdict()
        dimensions = None if parts["dimensions"] is None else tuple(_split(parts["dimensions"]))
        numbers = parts["number"] or "", bool(parts["optional"]), parts["follows"] or ""
        tensors.append(
            Tensor(parts["type"], parts["name"], bool(parts["written"]), *numbers, dimensions, found[0].strip())
        )
    assert place == len(text), f"{text!r} is no list of tensors"
    return tuple(tensors)


def _inside(text: str, start: int) -> str:
    """What stands from `start` up to the parenthesis that ends it."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if not depth:
            return text[start:place]
    raise AssertionError(f"{text[start : start + 60]!r} has no end")


def _split(text: str) -> list[str]:
    """Split at commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


# What is compiled.
def kernel_source() -> str:
    """The text of all kernels and their arguments."""
    files = _text(_ARGUMENTS), _structures(), *map(_text, [_COMMON, *_files()]), _entries()
    return "\n".join(files).replace("#pragma once", "")


def operators_source() -> str:
    """The C functions of the operators: each takes the tensors of a call, checks them, and launches the kernels."""
    functions = "\n".join(map(_function, operators().values()))
    table = "".join(f'  {{"{name}", run_{name}}},\n' for name in operators())
    return (
        f'#include "launcher.h"\n{_structures()}\n{functions}\n'
        f"const Operator operators[] = {{\n{table}  {{0, 0}},\n}};\n"
    )


def launcher_digest() -> str:
    """A checksum of what the launcher is compiled from."""
    files = sorted(FOLDER.glob("*.[ch]"))
    return hashlib.sha256("\0".join([*map(_text, files), operators_source()]).encode()).hexdigest()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _files() -> list[Path]:
    return sorted(FOLDER.glob("*.cu"))


def _structure(name: str) -> str:
    """gelu_gradient -> GeluGradient."""
    return name.title().replace("_", "")


def _structures() -> str:
    """Arguments of the kernels: their tensors, then sizes and numbers."""
    return "\n".join(
        f"typedef struct {{\n{''.join(f'  {line};{chr(10)}' for line in _fields(operator))}}} {_structure(name)};"
        for name, operator in _kernels().items()
        if all(tensor.number != ".." for tensor in operator.tensors)
    )


def _fields(operator: Operator) -> Iterator[str]:
    for tensor in operator.tensors:
        constant = "const " if tensor in operator.inputs and not tensor.written else ""
        yield f"{constant}{_TYPES[tensor.type]} *{tensor.name}{_array(operator, tensor.number)}"
    for name in operator.sizes:
        yield f"int {name}"
    for number in operator.numbers:
        yield f"{number.type} {number.name}{_array(operator, number.most)}"
        if number.most and not number.value:
            yield f"int {number.name}_count"


def _most(operator: Operator, number: str) -> int:
    """How many there are at most."""
    lists = {each.name: each.most for each in operator.given}
    return constants()[lists.get(number, number)]


def _array(operator: Operator, number: str) -> str:
    return f"[{_most(operator, number)}]" if number else ""


def _function(operator: Operator) -> str:
    lines = [f"static int run_{operator.name}(Call *call, const double *numbers) {{"]
    for number in operator.given:
        lines.append(
            f"  {number.type} {number.name}{_array(operator, number.most)} = {'{0}' if number.most else '*numbers++'};"
        )
        if number.most:
            lines.append(f"  int {number.name}_count = *numbers++;")
            lines.append(f"  for (int k = 0; k < {number.name}_count; k++) {number.name}[k] = *numbers++;")
    lines += [f"  int {name} = UNKNOWN;" for name in operator.sizes]
    lines.append(f"  expect(call, {_number_of_tensors(operator)});")
    following = [number for number in operator.numbers if number.value]
    known = {*constants(), *(number.name for number in operator.given)}
    for tensor in operator.tensors:
        if operator.outputs and tensor == operator.outputs[0]:
            lines += [f"  if ({name} < 0) {name} = 0;" for name in operator.sizes]
        lines += _taken(operator, tensor)
        known |= {name for name in map(_size, tensor.dimensions or ()) if name}
        for number in [number for number in following if _names(number.value) <= known]:
            lines += ["  if (call->status) return call->status;", *_followed(operator, number)]
            following.remove(number)
            known.add(number.name)
    lines.append("  if (call->status) return call->status;")
    for number in following:  # these ask for addresses
        lines += _followed(operator, number)
    return "\n".join([*lines, f"  return {_launching(operator)};", "}"])


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\b[A-Za-z_]\w*\b(?!\()", expression)) - {"k"}


def _number_of_tensors(operator: Operator) -> str:
    """As a C expression; of any number, at least so many."""
    singles, counts = 0, []
    for tensor in operator.tensors:
        if tensor.number and tensor.number not in constants() and tensor.number != "..":
            counts.append(f" + {tensor.number}_count")
        elif tensor.number != "..":
            singles += _most(operator, tensor.number) if tensor.number else 1
    several = any(tensor.number == ".." for tensor in operator.tensors)
    return f"{singles}{''.join(counts)}, {int(several)}"


def _taken(operator: Operator, tensor: Tensor) -> list[str]:
    """Take a tensor, or several, and check types and dimensions."""
    dimensions = tensor.dimensions or ()
    leading = bool(dimensions) and dimensions[0].endswith("..")
    type_ = {"float": "float32", "int": "int32", "half": "float16"}.get(tensor.type, tensor.type)
    if tensor.number == ".." or tensor.dimensions is None:
        count = "call->extra" if tensor.number == ".." else "1"
        return [f'  Tensors {tensor.name} = take_any(call, "{tensor.text}", "{type_}", {count});']
    rank, optional = len(dimensions) - leading, int(tensor.optional)
    taken = f'take(call, "{tensor.text}", "{type_}", {rank}, {int(leading)}, {optional})'
    if tensor.number:
        count = str(constants().get(tensor.number, f"{tensor.number}_count"))
        lines = [f"  void *{tensor.name}{_array(operator, tensor.number)} = {{0}};"]
        lines += [f"  for (int k = 0; k < {count}; k++) {{", f"    {tensor.name}[k] = {taken};"]
    else:
        lines = [f"  void *{tensor.name} = {taken};"]
    for place, text in enumerate(dimensions):
        from_end = len(dimensions) - place
        derived = {number.name for number in operator.numbers}
        if text.endswith(".."):
            lines.append(f"  leading(call, {rank}, &{_size(text)});")
        elif _size(text) and text not in derived and text not in constants():
            lines.append(f"  dimension(call, {from_end}, &{text});")
        else:
            unknown = " || ".join(
                f"{name} < 1" for name in sorted(_names(text) - set(constants())) if "/" in text and "[" not in text
            )
            lines.append(f"  equals(call, {from_end}, {f'{unknown} ? UNKNOWN : ' if unknown else ''}{text});")
    return lines + ["  }"] * bool(tensor.number)


def _followed(operator: Operator, number: Number) -> list[str]:
    if not number.most:
        return [f"  {number.type} {number.name} = {number.value};"]
    return [
        f"  {number.type} {number.name}{_array(operator, number.most)} = {{0}};",
        f"  for (int k = 0; k < {number.most}_count; k++) {number.name}[k] = {number.value};",
    ]


class _Launch(NamedTuple):
    """A call of one of launcher.h's functions, from `start` to `end` of an operator's launches. fields: of the kernel's
    arguments; None for all."""

    start: int
    end: int
    function: str
    kernel: str
    fields: str | None
    others: list[str]


def _launches_of(operator: Operator) -> Iterator[_Launch]:
    for found in re.finditer(r"\b(over|grid)\w*\(", operator.launches):
        inside = _inside(operator.launches, found.end())
        kernel, *others = _split(inside)
        name, opened, fields = kernel.removesuffix(")").partition("(")
        places = found.start(), found.end() + len(inside) + 1
        yield _Launch(*places, found[0][:-1], name, fields if opened else None, others)


def _launching(operator: Operator) -> str:
    """The launches as C, with each kernel's name and arguments."""
    text, last = "", 0
    for launch in _launches_of(operator):
        arguments = f'"{launch.kernel}"', f"&{_arguments(operator, launch.kernel, launch.fields)}", *launch.others
        text += f"{operator.launches[last : launch.start]}{launch.function}(call, {', '.join(arguments)})"
        last = launch.end
    return re.sub(r"\bjoin_(pieces|rows)\(", r"join_\1(call, ", text + operator.launches[last:])


def _entries() -> str:
    """Entry points of the kernels, for each type and width of packs that they are launched with."""
    entries = set()
    for operator in operators().values():
        values = {number.name: number.value for number in operator.numbers}
        types = ("float", "half") if any(tensor.type == "T" for tensor in operator.tensors) else ("float",)
        for launch in _launches_of(operator):
            packs = values.get(launch.others[0], launch.others[0]).partition("(")[0]
            for of in types if packs in _WIDTHS else ():
                for width in _WIDTHS[packs]:
                    width = 8 if (width, of) == (4, "half") and packs != "quads" else width
                    function = f"{launch.kernel}<{of.replace('half', 'Half')}, {width}>"
                    name = f"{launch.kernel}_{of}_{width}"
                    entries.add(f"ENTRY({name}, {_structure(_taken_by(launch.kernel, operator).name)}, {function})")
    return "\n".join(sorted(entries))


_WIDTHS = {"packs": (4, 1), "quads": (4, 1), "map_packs": (4, 2, 1), "1": (1,)}  # in float; launcher.h


def _taken_by(kernel: str, operator: Operator) -> Operator:
    """What declares a kernel's arguments."""
    return _kernels().get(kernel, operator)


def _arguments(operator: Operator, kernel: str, fields: str | None) -> str:
    """A kernel's arguments as a C literal. fields: as "x, y = z"; None for all."""
    of = _taken_by(kernel, operator)
    pairs = [field.partition(" = ") for field in _split(fields or "")]
    values = {name: value or name for name, _, value in pairs}
    tensors = {tensor.name: tensor for tensor in operator.tensors}
    if fields is None:
        values |= {name: name for name in tensors}
    known = [*operator.sizes, *(number.name for number in operator.numbers)]
    known += [f"{number.name}_count" for number in operator.given if number.most]
    values = {name: name for name in known} | values
    lists = {tensor.name: tensor.number for tensor in of.tensors} | {number.name: number.most for number in of.numbers}
    names = [re.search(r"(\w+)(\[\d+\])?$", line)[1] for line in _fields(of)]
    assert set(values) - set(known) <= set(names), f"{kernel} takes {names}, not {list(values)}"
    literal = []
    for name in names:
        if name in values:
            value = values[name]
            if lists.get(name):
                value = f"{{{', '.join(f'{value}[{k}]' for k in range(_most(of, lists[name])))}}}"
            literal.append(f".{name} = {value}")
    return f"({_structure(of.name)}){{{', '.join(literal)}}}"

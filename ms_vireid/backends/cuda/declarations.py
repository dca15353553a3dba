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
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
_ARGUMENTS, _COMMON = FOLDER / "arguments.h", FOLDER / "common.cuh"
_C_TYPES = {"float": "float", "int": "int", "bool": "unsigned char", "uint8": "unsigned char"}  # or void
_MINDSPORE_TYPES = {"float": "float32", "int": "int32", "half": "float16"}  # or the same
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
    text: str  # that declares it


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
    """Sizes by name; those that follow from others once they are asked for."""

    def __init__(self, known: Mapping[str, object], following: Mapping[str, str]):
        super().__init__(known)
        self.following = following

    def __missing__(self, name: str) -> int:
        return self.evaluate(self.following[name])

    def evaluate(self, text: str) -> int:
        return eval(text.replace("/", "//"), {"__builtins__": {}}, self)


_FUNCTIONS = {  # of launcher.h
    "min": min,
    "max": max,
    "blocks": lambda count, each: -(-count // each),
    "parts_of": lambda rows: min(constants()["PARTS"], -(-rows // constants()["ROWS"])),
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
    sources = re.sub(r"//.*", "", "\n".join(map(_text, [_COMMON, *_files()]))).replace("\\\n", " ")
    macros = re.findall(r"^#define ([A-Z_]+)(?:\((\w+)\))? +(.+)$", sources, re.MULTILINE)
    declared = {}
    for found in re.finditer(rf"^{kind}\(", sources, re.MULTILINE):
        text = _inside(sources, found.end())
        for macro in macros:
            text = _expanded(text, *macro)
        signature, tensors, *launches = _split(" ".join(text.split()))
        name, _, numbers = signature.removesuffix(")").partition("(")
        inputs, _, outputs = tensors.partition("->")
        numbers = tuple(map(_number, _split(numbers)))
        declared[name] = Operator(name, numbers, _tensors(inputs), _tensors(outputs), "".join(launches))
    return declared


def _expanded(text: str, name: str, parameter: str, value: str) -> str:
    """With a macro's value in its place."""
    if not parameter:
        return re.sub(rf"\b{name}\b", lambda _: value, text)
    return re.sub(rf"\b{name}\(([\w?]+)\)", lambda used: re.sub(rf"\b{parameter}\b", used[1], value), text)


def _number(text: str) -> Number:
    parts = _NUMBER.fullmatch(text).groupdict("")
    return Number(parts["type"] or "int", parts["name"], parts["most"], parts["value"])


def _tensors(text: str) -> tuple[Tensor, ...]:
    tensors, place = [], 0
    while place < len(text := text.strip()):
        found = _TENSOR.match(text, place)
        assert found, f"{text[place:]!r} is no tensor"
        place, parts = found.end(), found.groupdict("")
        dimensions = tuple(_split(parts["dimensions"])) if "[" in found[0] else None
        marks = bool(parts["written"]), parts["number"], bool(parts["optional"]), parts["follows"]
        tensors.append(Tensor(parts["type"], parts["name"], *marks, dimensions, found[0].strip()))
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
        yield f"{constant}{_C_TYPES.get(tensor.type, 'void')} *{tensor.name}{_array(operator, tensor.number)}"
    yield from (f"int {name}" for name in operator.sizes)
    for number in operator.numbers:
        yield f"{number.type} {number.name}{_array(operator, number.most)}"
    yield from (f"int {number.name}_count" for number in operator.given if number.most)


def _field_names(operator: Operator) -> list[str]:
    return [re.search(r"(\w+)(\[\d+\])?$", field)[1] for field in _fields(operator)]


def _most(operator: Operator, number: str) -> int:
    """How many there are at most."""
    lists = {each.name: each.most for each in operator.given}
    return constants()[lists.get(number, number)]


def _array(operator: Operator, number: str) -> str:
    return f"[{_most(operator, number)}]" if number else ""


def _count(tensor: Tensor) -> str:
    """How many there are, in C."""
    if tensor.number in constants():
        return str(constants()[tensor.number])
    return {"": "1", "..": "call->extra"}.get(tensor.number, f"{tensor.number}_count")


def _function(operator: Operator) -> str:
    number_of_tensors = " + ".join(_count(tensor) for tensor in operator.tensors if tensor.number != "..")
    any_number = any(tensor.number == ".." for tensor in operator.tensors)
    lines = [f"static int run_{operator.name}(Call *call, const double *numbers) {{"]
    for number in operator.given:
        lines += _defined(operator, number, "*numbers++")
    lines += [f"int {name} = UNKNOWN;" for name in operator.sizes]
    lines.append(f"expect(call, {number_of_tensors}, {int(any_number)});")
    following = [number for number in operator.numbers if number.value]
    known = {*constants(), *(number.name for number in operator.given)}
    known |= {f"{number.name}_count" for number in operator.given if number.most}
    for tensor in (None, *operator.tensors):
        if tensor == operator.outputs[0]:
            lines += [f"if ({name} < 0) {name} = 0;" for name in operator.sizes]
        if tensor:
            lines += _taken(operator, tensor)
            known |= {_size(text) for text in tensor.dimensions or ()}
        for number in [number for number in following if _names(number.value) <= known]:
            lines += ["if (call->status) return call->status;", *_defined(operator, number, number.value)]
            following.remove(number)
            known.add(number.name)
    lines.append("if (call->status) return call->status;")
    for number in following:  # these ask for addresses
        lines += _defined(operator, number, number.value)
    return "\n  ".join([*lines, f"return {_launching(operator)};"]) + "\n}"


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\b[A-Za-z_]\w*\b(?!\()", expression)) - {"k"}


def _defined(operator: Operator, number: Number, value: str) -> list[str]:
    if not number.most:
        return [f"{number.type} {number.name} = {value};"]
    given = not number.value
    return [
        *[f"int {number.name}_count = *numbers++;"] * given,
        f"{number.type} {number.name}{_array(operator, number.most)} = {{0}};",
        f"for (int k = 0; k < {number.name if given else number.most}_count; k++) {number.name}[k] = {value};",
    ]


def _taken(operator: Operator, tensor: Tensor) -> list[str]:
    """Take a tensor, or several, and check types and dimensions."""
    declared = f'call, "{tensor.text}", "{_MINDSPORE_TYPES.get(tensor.type, tensor.type)}"'
    if tensor.dimensions is None:
        return [f"Tensors {tensor.name} = take_any({declared}, {_count(tensor)});"]
    leading = any(text.endswith("..") for text in tensor.dimensions)
    rank = len(tensor.dimensions) - leading
    taken = f"take({declared}, {rank}, {int(leading)}, {int(tensor.optional)});"
    checks = []
    for from_end, text in zip(range(len(tensor.dimensions), 0, -1), tensor.dimensions, strict=True):
        if text.endswith(".."):
            checks.append(f"leading(call, {rank}, &{_size(text)});")
        elif text in operator.sizes:
            checks.append(f"dimension(call, {from_end}, &{text});")
        else:
            checks.append(f"equals(call, {from_end}, {text});")
    if tensor.follows:
        problem = f"{tensor.name} or {tensor.follows} is absent, not both"
        checks.append(f'if (!{tensor.name} != !{tensor.follows}) refuse(call, "{problem}");')
    if not tensor.number:
        return [f"void *{tensor.name} = {taken}", *checks]
    array = f"void *{tensor.name}{_array(operator, tensor.number)} = {{0}};"
    return [array, f"for (int k = 0; k < {_count(tensor)}; k++) {{", f"{tensor.name}[k] = {taken}", *checks, "}"]


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
    """Entry points of the kernels, for each type, size of a filter and width of packs that they are launched with."""
    entries = set()
    for operator in operators().values():
        values = {number.name: number.value for number in operator.numbers}
        types = ("float", "half") if any(tensor.type == "T" for tensor in operator.tensors) else ("float",)
        for launch in _launches_of(operator):
            of_size = launch.function == "grid_of_size"
            packs = values.get(launch.others[of_size], launch.others[of_size]).partition("(")[0]
            structure = _structure(_kernels().get(launch.kernel, operator).name)
            for of, size, width in itertools.product(types, FILTERS if of_size else (None,), _WIDTHS.get(packs, ())):
                width = 8 if (width, of) == (4, "half") and packs != "quads" else width
                numbers = [size, width] if of_size else [width]
                function = f"{launch.kernel}<{of.replace('half', 'Half')}, {', '.join(map(str, numbers))}>"
                name = "_".join(map(str, [launch.kernel, *numbers[:-1], of, width]))
                entries.add(f"ENTRY({name}, {structure}, {function})")
    return "\n".join(sorted(entries))


FILTERS = (3, 5, 7)  # sizes of those that depth-wise kernels have
_WIDTHS = {"packs": (4, 1), "quads": (4, 1), "1": (1,)}  # in float; launcher.h


def _arguments(operator: Operator, kernel: str, fields: str | None) -> str:
    """A kernel's arguments as a C literal. fields: as "x, y = z"; None for all."""
    of = _kernels().get(kernel, operator)
    tensors = [tensor.name for tensor in operator.tensors]
    known = [name for name in _field_names(operator) if name not in tensors]
    values = {name: name for name in known}
    if fields is None:
        values |= {name: name for name in tensors}
    for field in _split(fields or ""):
        name, _, value = field.partition(" = ")
        values[name] = value or name
    lists = {tensor.name: tensor.number for tensor in of.tensors} | {number.name: number.most for number in of.numbers}
    names = _field_names(of)
    assert set(values) - set(known) <= set(names), f"{kernel} takes {names}, not {list(values)}"
    literal = []
    for name in filter(values.get, names):
        value = values[name]
        if lists.get(name):
            value = f"{{{', '.join(f'{value}[{k}]' for k in range(_most(of, lists[name])))}}}"
        literal.append(f".{name} = {value}")
    return f"({_structure(of.name)}){{{', '.join(literal)}}}"

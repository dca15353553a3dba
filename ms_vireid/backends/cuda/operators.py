"""MindSpore operators that launch the kernels, as these declare them (declarations.py)."""

import ctypes
from collections.abc import Callable
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.signature import make_sig, sig_rw

from ms_vireid.backends.cuda import build, declarations
from ms_vireid.backends.cuda.declarations import ABSENT_SHAPE
from ms_vireid.command.errors import DeviceError

ABSENT = Tensor(np.zeros(ABSENT_SHAPE, np.int8))  # in the place of an input that is absent
_TYPES = {"float": ms.float32, "int": ms.int32, "bool": ms.bool_, "uint8": ms.uint8, "half": ms.float16}


def operator(name: str, **numbers: float | tuple) -> ops.Custom:
    """The operator with these numbers; in a graph, too. Not one that writes its inputs."""
    return _operator(name, tuple(numbers.keys()), tuple(numbers.values()))


@ops.constexpr
@cache
def _operator(name: str, names: tuple[str, ...], values: tuple) -> ops.Custom:
    if any(tensor.written for tensor in declarations.operators()[name].inputs):
        raise TypeError(f"{name} writes its inputs: call operator_like(INPLACE_LIKE, ...)")
    return made(name, dict(zip(names, values, strict=True)))


@ops.constexpr
@cache
def operator_like(like: ops.Primitive, name: str, names: tuple[str, ...], values: tuple) -> ops.Custom:
    """The operator with these numbers, returning a tuple. One that writes its inputs must be called where this is, as
    `operator_like(INPLACE_LIKE, ...)(...)`, others with PURE_LIKE."""
    return made(name, dict(zip(names, values, strict=True)), returns_tuple=True)


# MindSpore asks whether an operator writes before it evaluates the constexpr that makes it. With this attribute it
# takes the answer of the first argument instead: an operator that writes nothing, or one that does.
operator_like.add_prim_attr("side_effect_propagate", 1)
PURE_LIKE, INPLACE_LIKE = ops.ReLU(), ops.Assign()


def made(
    name: str, numbers: dict, shapes: Callable | None = None, types: Callable | None = None, returns_tuple: bool = False
) -> ops.Custom:
    """Make an operator; compiles what launches it.

    shapes, types: of the outputs, from those of the inputs; needed where the declaration does not say them.
    returns_tuple: even of one output.
    """
    declared = declarations.operators()[name]

    def declared_shapes(*inputs):
        results = tuple(declared.result_shapes(inputs, numbers))
        return results if returns_tuple or len(results) > 1 else results[0]

    def declared_types(*inputs):
        elements = [given.element_type() if isinstance(given, ms.TensorType) else given for given in inputs]
        results = declared.result_types(elements, numbers, ABSENT.dtype)
        results = tuple(_TYPES.get(result, result) for result in results)
        return results if returns_tuple or len(results) > 1 else results[0]

    slot = _slot(name, declared.flat(numbers))
    function = f"{build.launcher()}:operator_{slot:03}"
    primitive = ops.Custom(function, shapes or declared_shapes, types or declared_types, func_type="aot")
    if any(tensor.written for tensor in declared.inputs):  # MindSpore keeps the order of such operators
        primitive.add_prim_attr("side_effect_mem", True)
        inputs = declared.each(declared.inputs, numbers)
        uses = [sig_rw.RW_WRITE if tensor.written else sig_rw.RW_READ for _, tensor in inputs]
        primitive.set_signatures([make_sig(each, use) for (each, _), use in zip(inputs, uses, strict=True)])
    return primitive


def _slot(name: str, numbers: list[float]) -> int:
    """The number of the launcher's function that is this operator with these numbers."""
    library = ctypes.CDLL(str(build.launcher()))
    slot = library.declare(name.encode(), len(numbers), (ctypes.c_double * len(numbers))(*numbers))
    if slot < 0:
        raise DeviceError(f"no room for CUDA operator {name}: a process has at most 1000", "use backend graph")
    return slot


class Differentiable(nn.Cell):
    """The operator `name`, whose gradient is `name_gradient`. This takes inputs and outputs of the operator by their
    names, and as grad_NAME gradients of outputs, and gives gradients of inputs, as grad_NAME.

    Give parameters that the gradient takes by value. without: inputs of the gradient that are absent for it. passed: an
    input, and an output whose gradient it gets. duplicate: the first output is given again as the last, so that the
    gradients of two that take it come apart, as grad_NAME and grad_again: the operator's gradient adds them up.
    """

    def __init__(
        self, name: str, without: tuple[str, ...] = (), passed: tuple[str, str] | None = None, duplicate: bool = False
    ):
        super().__init__()
        self.operator, self.without, self.passed, self.duplicate = name, without, passed, duplicate
        self.like = (
            INPLACE_LIKE if any(tensor.written for tensor in declarations.operators()[name].inputs) else PURE_LIKE
        )

    def construct(self, inputs: tuple[Tensor, ...], names: tuple[str, ...], values: tuple) -> tuple[Tensor, ...]:
        """Returns all outputs. names, values: of the numbers."""
        outputs = operator_like(self.like, self.operator, names, values)(*inputs)
        return outputs + outputs[:1] if self.duplicate else outputs

    def bprop(self, inputs, names, values, out, gradients):
        taken, results = _wiring(self.operator, self.without, self.passed, self.duplicate, names, values)
        tensors, given, grads = inputs + out + gradients + (ABSENT,), (), ()
        for place in taken:
            given += (tensors[place],)
        for tensor in inputs:
            tensors += (ops.zeros_like(tensor),)
        tensors += _gradient(self.operator, names, values)(*given)
        for place in results:
            grads += (tensors[place],)
        return grads, 0, 0


def differentiated(cell: Differentiable, *inputs: Tensor, **numbers: float | tuple) -> tuple[Tensor, ...]:
    """All outputs of a `Differentiable`."""
    return cell(inputs, tuple(numbers.keys()), tuple(numbers.values()))


@ops.constexpr
@cache
def _gradient(name: str, names: tuple[str, ...], values: tuple) -> ops.Custom:
    return made(f"{name}_gradient", _numbers_of_gradient(name, names, values), returns_tuple=True)


def _numbers_of_gradient(name: str, names: tuple[str, ...], values: tuple) -> dict:
    """Those of the operator's numbers that its gradient has as well."""
    taken = [number.name for number in declarations.operators()[f"{name}_gradient"].given]
    return {key: value for key, value in zip(names, values, strict=True) if key in taken}


@ops.constexpr
@cache
def _wiring(
    name: str,
    without: tuple[str, ...],
    passed: tuple[str, str] | None,
    duplicate: bool,
    names: tuple[str, ...],
    values: tuple,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where what the gradient takes, and where the gradients of the inputs are, among inputs, outputs, gradients of
    outputs, ABSENT, zeros like the inputs, and the gradient's results."""
    forward, backward = declarations.operators()[name], declarations.operators()[f"{name}_gradient"]
    numbers, fewer = dict(zip(names, values, strict=True)), _numbers_of_gradient(name, names, values)
    inputs, outputs = ([each for each, _ in forward.each(of, numbers)] for of in (forward.inputs, forward.outputs))
    taken, results = ([each for each, _ in backward.each(of, fewer)] for of in (backward.inputs, backward.outputs))
    outputs += ["again"] * duplicate
    tensors = [*inputs, *outputs, *(f"grad_{output}" for output in outputs), "absent"]
    given = tuple(tensors.index(each if each in tensors and each not in without else "absent") for each in taken)
    zeros = len(tensors)
    tensors += [*inputs, *results]
    wanted = [f"grad_{passed[1] if passed and each == passed[0] else each}" for each in inputs]
    return given, tuple(tensors.index(each) if each in tensors else zeros + i for i, each in enumerate(wanted))

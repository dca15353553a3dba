"""MindSpore operators that launch the kernels, and the shapes of their results."""

import math
from collections.abc import Callable, Collection
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops.signature import make_sig, sig_rw

from ms_vireid.programs.cuda import build

PARTS, _ROWS = build.constant("PARTS"), build.constant("ROWS")
_LAUNCHER = build.launcher()


def operator(name: str, shapes: Callable, types: Callable) -> ops.Custom:
    """shapes, types: of the outputs, from those of the inputs."""
    return ops.Custom(f"{_LAUNCHER}:{name}", out_shape=shapes, out_dtype=types, func_type="aot")


def writing(name: str, written: Collection[int], inputs: int, shapes: Callable, types: Callable) -> ops.Custom:
    """An operator of so many inputs that writes those at the places `written`; MindSpore keeps the order of such
    operators."""
    made = operator(name, shapes, types)
    made.add_prim_attr("side_effect_mem", True)
    uses = [sig_rw.RW_WRITE if place in written else sig_rw.RW_READ for place in range(inputs)]
    made.set_signatures([make_sig(f"input{place}", use) for place, use in enumerate(uses)])
    return made


@ops.constexpr
@cache
def floats(*values: float) -> Tensor:
    """A constant input, float32 [number of values]."""
    return Tensor(np.array(values, np.float32))


def same(x, *_):
    return x


def with_sums(x):
    """Shapes of a gradient [..., C], the partial sums of its columns, and their sums."""
    return x, (min(PARTS, -(-math.prod(x[:-1]) // _ROWS)), x[-1]), (x[-1],)


def with_sums_types(x, *_):
    return x, ms.float32, x

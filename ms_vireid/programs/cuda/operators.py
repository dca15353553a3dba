"""MindSpore operators that launch the kernels, and the shapes of their results. Compiles the kernels at the import."""

import math
from collections.abc import Callable

import mindspore as ms
from mindspore import ops

from ms_vireid.programs.cuda import build

PARTS, _ROWS = build.constant("PARTS"), build.constant("ROWS")
build.use_kernels(build.kernel_source())
_LAUNCHER = build.launcher()


def operator(name: str, shapes: Callable, types: Callable) -> ops.Custom:
    """shapes, types: of the outputs, from those of the inputs."""
    return ops.Custom(f"{_LAUNCHER}:{name}", out_shape=shapes, out_dtype=types, func_type="aot")


def same(x, *_):
    return x


def with_sums(x):
    """Shapes of a gradient [..., C], the partial sums of its columns, and their sums."""
    return x, (min(PARTS, -(-math.prod(x[:-1]) // _ROWS)), x[-1]), (x[-1],)


def with_sums_types(x, *_):
    return x, ms.float32, x

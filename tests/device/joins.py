"""Calls of functions that join and split tensors, of a [2, 3] and b [4, 3]; the backend `cuda` computes them otherwise.

Of 150 tensors a launch takes 140.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

CALLS = (
    "ops.cat((a, b))",
    "ops.cat([a, b])",
    "ops.cat((a, b), -2)",
    "ops.cat((a, b), axis=-2)",
    "ops.cat((a, b), 2)",
    "ops.cat((a, b), -3)",
    "ops.cat((a,))",
    "ops.cat([b], axis=-1)",
    "ops.cat((a, b), 1)",  # of other lengths
    "ops.cat((a, b[0]))",
    "ops.cat((ops.stop_gradient(a[:0]), b))",
    "ops.cat((a[:0], b[:0]))",
    "ops.cat((a, b) * 75)",
    "ops.cat([a] * 150, 1)",
    "ops.cat((a.astype(ms.int32), b.astype(ms.int32)))",
    "ops.cat((a > 0, b > 0))",
    "ops.cat((a, b.astype(ms.float16)))",
    "ops.cat((a.astype(ms.int32), b))",
    "ops.cat((a[0, 0], b[0, 0]))",
    "ops.cat((a[a > 0], b[0]))",
    "ops.stack((a, b[:2]))",
    "ops.stack([a, b[:2]], axis=1)",
    "ops.stack((a, b[:2]), -1)",
    "ops.stack((a, b[:2]), axis=-3)",
    "ops.stack((a, b[:2]), 3)",
    "ops.stack((a, b[:2]), -4)",
    "ops.stack((a,), 1)",
    "ops.stack((a[0, 0], b[0, 0]))",
    "ops.stack((a, b))",  # of other shapes
    "ops.stack((a[:0], b[:0]))",
    "ops.stack((a.astype(ms.int32), b[:2].astype(ms.int32)))",
    "ops.stack((a, b[:2].astype(ms.float16)))",
    "ops.stack([a] * 150, 1)",
    "ops.cat(mun.in_parts(b, 2)[::-1])",
    "ops.cat(mun.in_parts(b, 3)[::-1])",  # unequal
    "mun.in_parts(b, 4)[0]",
    "mun.in_parts(a, 3)[0]",  # less than a part
    "mun.in_parts(b.astype(ms.int32), 2)[1]",
    "ops.cat(base.by_modality(b, 2)[::-1])",
    "ops.cat(base.by_modality(b[:3], 3)[::-1])",
    "base.by_modality(b.astype(ms.int32), 2)[1]",
    "base.by_modality(b[:3], 2)[1]",  # unequal
)
HEAD = "import mindspore as ms\nfrom mindspore import ops\nfrom ms_vireid.models import base, mun\n"


def functions(folder: Path) -> dict[str, Callable]:
    """Functions of a module in this folder, by call: MindSpore's compiler does not tell lambdas of one line apart."""
    file = folder / "joining_calls.py"
    file.write_text(HEAD + "".join(f"\n\ndef call_{i}(a, b):\n    return {call}\n" for i, call in enumerate(CALLS)))
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return {call: getattr(module, f"call_{i}") for i, call in enumerate(CALLS)}

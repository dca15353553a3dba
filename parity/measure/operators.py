"""Errors and speed of MindSpore's product and convolution on the device. Import it after `runtime.set_up`."""

import time
from functools import partial

import mindspore as ms
import numpy as np
import torch
from mindspore import ops

from parity.measure import print_row

# Of an operator's result, relative to its largest entry. float32: 4e-7 seen on a CPU; room for Winograd's convolutions,
# and a sixth of what inputs rounded to TF32's ten bits give (3e-4). float16: its 11 bits round a result by up to 5e-4.
OPERATOR_LIMITS = {"float32": 5e-5, "float16": 2e-3}


def check(quick: bool) -> bool:
    """Print the errors of product and convolution against PyTorch's float64 on the CPU, then their speed. Return
    whether an error is over its limit."""
    kernels = {
        "product": (ops.matmul, torch.matmul, (256, 768), (768, 512)),
        "convolution": (
            partial(ops.conv2d, pad_mode="pad", padding=1),
            partial(torch.conv2d, padding=1),
            (4, 64, 36, 18),
            (64, 64, 3, 3),
        ),
    }
    random = np.random.default_rng(0)
    wrong = False
    for name, (ours, theirs, *shapes) in kernels.items():
        for precision, limit in OPERATOR_LIMITS.items():
            arrays = [random.standard_normal(shape).astype(precision) for shape in shapes]
            doubles = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
            expected = theirs(*doubles)
            upstream = random.standard_normal(expected.shape).astype(precision)
            gradients = torch.autograd.grad((expected * torch.tensor(upstream)).sum(), doubles)
            tensors, weight = list(map(ms.Tensor, arrays)), ms.Tensor(upstream.astype(np.float32))
            weighted = ms.grad(lambda a, b, f=ours, w=weight: (f(a, b).astype(ms.float32) * w).sum(), (0, 1))
            results = ours(*tensors), *weighted(*tensors)
            for what, result, exact in zip(
                ("forward", "gradient of 1st", "gradient of 2nd"), results, (expected, *gradients), strict=True
            ):
                exact = exact.detach().numpy()
                error = float(np.abs(result.asnumpy().astype(np.float64) - exact).max() / np.abs(exact).max())
                wrong |= not error <= limit
                over = "" if error <= limit else " OVER"
                print_row(name, precision, what, f"error {error:.1e}", f"{limit:.0e}{over}")
    for precision in OPERATOR_LIMITS:
        print_speeds(precision, precision, quick)
    return wrong


def print_speeds(precision: str, dtype: str, quick: bool) -> None:
    side, images, channels, repeats = (128, 1, 32, 2) if quick else (4096, 32, 256, 20)
    conv = partial(ops.conv2d, pad_mode="pad", padding=1)
    works = {
        f"product {side}^3": (ops.matmul, (side, side), (side, side), 2 * side**3),
        f"convolution 3x3, {images}x{channels}x64x32": (
            conv,
            (images, channels, 64, 32),
            (channels, channels, 3, 3),
            2 * 9 * images * channels**2 * 64 * 32,
        ),
    }
    for name, (function, first, second, operations) in works.items():
        inputs = ops.ones(first, getattr(ms, dtype)), ops.ones(second, getattr(ms, dtype))
        for count in (2, repeats):  # the first is not measured
            ms.runtime.synchronize()
            started_at = time.perf_counter()
            for _ in range(count):
                function(*inputs)
            ms.runtime.synchronize()
        seconds = (time.perf_counter() - started_at) / repeats
        print_row(name, precision, "speed", f"{operations / seconds / 1e12:.3g} TFLOP/s", "-")

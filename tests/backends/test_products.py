"""The CPU kernels' convolutions by vectors of any processor, against NumPy's sums of products."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import llvmlite.binding as llvm
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import ms_vireid.files.kernel_cache  # starts Numba, which asks for the features as well

of_this_processor = llvm.get_host_cpu_features
llvm.get_host_cpu_features = lambda: dict.fromkeys(sys.argv[1].split(","), True)
from ms_vireid.backends.numba.products import Finish, convolve, convolve_by_tiles, multiply, offset_by, to_rows
from ms_vireid.backends.numba.vectors import COLUMNS, LANES, ROWS

llvm.get_host_cpu_features = of_this_processor

print(LANES, ROWS, COLUMNS)
rng = np.random.default_rng(0)


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def expected(x, weight, stride, border):
    # A negative border cuts.
    x = x if border >= 0 else x[..., -border:border, -border:border]
    sides = ((0, 0), (0, 0), *((max(border, 0),) * 2,) * 2)
    windows = sliding_window_view(np.pad(x.astype(np.float64), sides), weight.shape[2:], (2, 3))
    return np.einsum("cnhwij,dcij->dnhw", windows[:, :, ::stride, ::stride], weight, optimize=True)


def check(found, right, what):
    assert found.shape == right.shape, (what, found.shape, right.shape)
    error = np.abs(found - right).max() / max(1.0, np.abs(right).max())
    assert error < 1e-5, (what, error)


for channels, outputs, kernel, stride, border, sides in [
    (3, 5, 7, 2, 3, (29, 17)),
    (5, 9, 1, 1, 0, (7, 9)),
    (70, 66, 1, 1, 0, (18, 9)),  # more than one panel of rows and columns
    (6, 7, 1, 2, 0, (9, 6)),
    (6, 7, 3, 2, 1, (9, 70)),
    (6, 7, 3, 1, 1, (3, 60)),
    (4, 6, 3, 3, 0, (11, 10)),
    (4, 6, 2, 5, 4, (3, 2)),
    (4, 6, 1, 1, 2, (2, 3)),
    (4, 6, 2, 1, -1, (6, 7)),
    (1, 1, 1, 1, 0, (1, 1)),
]:
    for count in (1, 3):
        x, weight = values(channels, count, *sides), values(outputs, channels, kernel, kernel)
        right = expected(x, weight, stride, border)
        slope, offset, added = values(outputs), values(outputs), values(*right.shape)
        finish = Finish(to_rows(slope), to_rows(offset), added.reshape(-1), True, np.float32(0))
        what = channels, outputs, kernel, stride, border, sides, count
        check(convolve(x, weight, stride, border, offset_by(offset)), right + offset.reshape(-1, 1, 1, 1), what)
        finished = right * slope.reshape(-1, 1, 1, 1) + offset.reshape(-1, 1, 1, 1) + added
        check(convolve(x, weight, stride, border, finish), np.maximum(finished, 0), what)

for channels, outputs, sides in [(1, 1, (1, 1)), (5, 9, (7, 9)), (64, 66, (5, 4)), (7, 64, (18, 9)), (3, 4, (2, 75))]:
    for count in (1, 3):
        x, weight, offset = values(channels, count, *sides), values(outputs, channels, 3, 3), values(outputs)
        right = expected(x, weight, 1, 1) + offset.reshape(-1, 1, 1, 1)
        finish = offset_by(offset)._replace(floor=np.float32(0))
        check(convolve_by_tiles(x, weight, finish), np.maximum(right, 0), (channels, outputs, sides, count))
        mirrored = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
        gradient, none = values(outputs, count, *sides), offset_by(np.zeros(channels, np.float32))
        found = convolve_by_tiles(gradient, weight, none, transposed=True)
        check(found, expected(gradient, mirrored, 1, 1), (channels, outputs, sides, count, "transposed"))

left, right = values(50, 70), values(70, 130)
check(multiply(left, right), left.astype(np.float64) @ right, "matrices")
none = convolve(np.full((2, 1, 1, 3), np.nan, np.float32), values(3, 2, 1, 1), 1, 0, offset_by(values(3)))
assert np.isnan(none).all()
"""


@pytest.mark.parametrize(
    ("features", "tile"),
    [("", "4 8 12"), ("sse2", "4 4 12"), ("sse2,avx", "8 4 24"), ("sse2,avx,avx512f", "16 8 48")],
    ids=["other", "SSE", "AVX", "AVX-512"],
)
def test_a_convolution_is_the_sum_of_products(features, tile, tmp_path):
    command = [sys.executable, "-c", SCRIPT, features]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (tile, 0), done.stderr[-2000:]

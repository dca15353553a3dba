"""Convolutions of feature maps in memory as matrix products, of a weight and of windows or of Winograd's tiles.

Windows are gathered some columns at a time, which stay in the cache, and multiplied tile by tile of the result, which
stays in registers (Goto & van de Geijn 2008). What follows a convolution is computed on each tile before it is written:
a slope and an offset of each channel, an addition, ReLU. Each number is a sum in one order, whatever the number of
threads or pictures.
"""

from typing import NamedTuple

import numpy as np

from ms_vireid.backends.numba.base import STRICT, f32, room, threaded
from ms_vireid.backends.numba.vectors import COLUMNS, LANES, ROWS, copy, filters, pixels, tile, tiles, untile
from ms_vireid.files.kernel_cache import njit

_CACHED = 48 << 10  # numbers of the right matrix
_NONE = f32(-np.inf)  # no floor


class Finish(NamedTuple):
    """What follows a convolution: y * slope + offset + added, at least `floor`. slope, offset: [D], longer by up to
    ROWS."""

    slope: np.ndarray
    offset: np.ndarray
    added: np.ndarray
    adds: bool
    floor: np.float32


class Windows(NamedTuple):
    """Windows of maps [C, N, H, W]: their side, stride, border, rows and columns."""

    maps: np.ndarray
    kernel: int
    stride: int
    border: int
    rows: int
    columns: int


@njit(**STRICT)
def _aligned(size):
    """Uninitialised numbers, aligned to a cache line."""
    numbers = np.empty(size + 16, np.float32)
    first = (-numbers.ctypes.data % 64) // 4
    return numbers[first : first + size]


@threaded(**STRICT)
def _filter_panels(start, stop, weight, transposed, out):
    """G w G': [D, C, 3, 3] -> [16, panels, C, ROWS], or of the transposed, mirrored weight [16, panels, D, ROWS]."""
    outputs, inputs = weight.shape[:2]
    if transposed:
        outputs, inputs = inputs, outputs
    flat, panels, apart = weight.reshape(-1), out.reshape(-1), out[0].size
    for p in range(start, stop):
        for c in range(inputs):
            row, to, last = p * ROWS, (p * inputs + c) * ROWS, outputs - 1 - p * ROWS
            if transposed:
                filters(flat, (c * outputs + row) * 9 + 8, -1, 9, last, panels, to, apart)
            else:
                filters(flat, (row * inputs + c) * 9, 1, 9 * inputs, last, panels, to, apart)


@njit(**STRICT)
def _runs(first, count, rows, columns):
    """Windows `first` to `first + count`, by those in one row and one panel of COLUMNS: (place, number, n, r, q)."""
    runs = np.empty((count, 5), np.int64)
    found, done = 0, 0
    while done < count:
        row, q = divmod(first + done, columns)
        run = min(columns - q, COLUMNS - done % COLUMNS, count - done)
        runs[found] = done, run, row // rows, row % rows, q
        found, done = found + 1, done + run
    return runs[:found]


@njit(**STRICT)
def _gather(windows, first, count, block, panel):
    """Windows, from the first on: block [panels, panel], each of lines [C * k * k, COLUMNS]. What lies beyond a run's
    end is written too, before what belongs there."""
    maps, kernel, stride, border, rows, columns = windows
    channels, pictures, height, width = maps.shape
    flat, runs = maps.reshape(-1), _runs(first, count, rows, columns)
    if (kernel, stride, border) == (1, 1, 0):
        for c in range(channels):
            for q in range(0, count, COLUMNS):
                at, to = c * width + first + q, q // COLUMNS * panel + c * COLUMNS
                if q + COLUMNS <= count:
                    for s in range(0, COLUMNS, LANES):
                        copy(flat, at + s, block, to + s)
                else:
                    for s in range(count - q):
                        block[to + s] = flat[at + s]
        return
    for c in range(channels):
        for i in range(kernel):
            for j in range(kernel):
                line = ((c * kernel + i) * kernel + j) * COLUMNS
                for k in range(len(runs)):
                    done, run, n, r, q = runs[k]
                    row, start = r * stride + i - border, q * stride + j - border
                    at, inside = ((c * pictures + n) * height + row) * width, 0 <= row < height
                    to = done // COLUMNS * panel + line + done % COLUMNS
                    if stride <= 2:
                        for s in range(0, run, LANES):
                            pixels(flat, at, width, start + s * stride, stride == 2, inside, block, to + s)
                    else:
                        for s in range(run):
                            place = start + s * stride
                            block[to + s] = flat[at + place] if inside and 0 <= place < width else f32(0)


@threaded(**STRICT)
def _multiply(start, stop, by_rows, left, windows, finish, result):
    """Convolve: result [D, L], the rows or the columns of some panels, by a weight [D * C * k * k]."""
    outputs, total = result.shape
    depth, out = len(windows.maps) * windows.kernel**2, result.reshape(-1)
    slope, offset, added, adds, floor = finish
    rows = (start, stop) if by_rows else (0, (outputs + ROWS - 1) // ROWS)
    begin, end = (0, total) if by_rows else (start * COLUMNS, min(stop * COLUMNS, total))
    size, last = (depth + 1) * COLUMNS, outputs - 1
    width = max(1, min(8, _CACHED // size)) * COLUMNS
    block, edge = _aligned(width // COLUMNS * size), _aligned(ROWS * COLUMNS)
    for first in range(begin, end, width):
        columns = min(width, end - first)
        _gather(windows, first, columns, block, size)
        for j in range(0, columns, COLUMNS):
            panel = j // COLUMNS * size
            for p in range(rows[0], rows[1]):
                d, at = p * ROWS, p * ROWS * total + first + j
                whole = d + ROWS <= outputs and j + COLUMNS <= columns
                more, least = adds and whole, floor if whole else _NONE
                y, to, step = (out, at, total) if whole else (edge, 0, COLUMNS)
                tile(left, depth, 1, last, block, panel, depth, slope, offset, d, added, more, least, y, to, step)
                if whole:
                    continue
                for m in range(min(ROWS, outputs - d)):
                    for n in range(min(COLUMNS, columns - j)):
                        value, place = edge[m * COLUMNS + n], at + m * total + n
                        if adds:
                            value += added[place]
                        out[place] = floor if value < floor else value


@threaded(**STRICT)
def _multiply_tiles(start, stop, by_rows, panels, x, finish, y):
    """Convolve [C, N, H, W] by tiles: y [D, N, H, W], the rows or the columns of some panels."""
    channels, pictures, height, width = x.shape
    outputs, count = len(y), panels.shape[1]
    flat, left, out = x.reshape(-1), panels.reshape(-1), y.reshape(-1)
    down, across = (height + 1) // 2, (width + 1) // 2
    total, area = pictures * down * across, height * width
    rows = (start, stop) if by_rows else (0, count)
    begin, end = (0, total) if by_rows else (start * COLUMNS, min(stop * COLUMNS, total))
    right, apart = _aligned(16 * (channels + 1) * COLUMNS), (channels + 1) * COLUMNS
    products, size = _aligned((rows[1] - rows[0]) * 16 * ROWS * COLUMNS), ROWS * COLUMNS
    one, none = np.ones(ROWS, np.float32), np.zeros(ROWS, np.float32)
    pair, double = _aligned(4 * COLUMNS + 2 * LANES), 2 * COLUMNS
    slope, offset, _, _, floor = finish
    for first in range(begin, end, COLUMNS):
        columns = min(COLUMNS, end - first)
        runs = _runs(first, columns, down, across)
        for c in range(channels):
            for k in range(len(runs)):
                done, run, n, r, q = runs[k]
                at, to = (c * pictures + n) * area, c * COLUMNS + done
                for s in range(0, run, LANES):
                    tiles(flat, at, height, width, 2 * r - 1, 2 * (q + s) - 1, right, to + s, apart)
        for t in range(16):
            for p in range(rows[0], rows[1]):
                panel, at = left[(t * count + p) * channels * ROWS :], t * apart
                to, step = ((p - rows[0]) * 16 + t) * size, COLUMNS
                tile(panel, 1, ROWS, ROWS, right, at, channels, one, none, 0, one, False, _NONE, products, to, step)
        for d in range(rows[0] * ROWS, min(rows[1] * ROWS, outputs)):
            at = (d // ROWS - rows[0]) * 16 * size + d % ROWS * COLUMNS
            for s in range(0, columns, LANES):
                untile(products, at + s, size, slope, offset, d, floor, pair, 2 * s, double)
            for k in range(len(runs)):
                done, run, n, r, q = runs[k]
                used = min(2 * run, width - 2 * q)
                for i in range(min(2, height - 2 * r)):
                    start, to = i * double + 2 * done, ((d * pictures + n) * height + 2 * r + i) * width + 2 * q
                    whole = used // LANES * LANES
                    for s in range(0, whole, LANES):
                        copy(pair, start + s, out, to + s)
                    for s in range(whole, used):
                        out[to + s] = pair[start + s]


def count_windows(x: np.ndarray, kernel: int, stride: int, border: int) -> tuple[int, ...]:
    """The number of rows and columns of windows in x [C, N, H, W]."""
    return tuple((side + 2 * border - kernel) // stride + 1 for side in x.shape[2:])


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, border: int, finish: Finish | None = None) -> np.ndarray:
    """[C, N, H, W], padded with zeros, by a weight [D, C, k, k] -> [D, N, h, w]."""
    outputs, inputs, kernel, _ = weight.shape
    _check_channels(x, inputs)
    sides = count_windows(x, kernel, stride, border)
    y = room((outputs, x.shape[1], *sides))
    rows = y.reshape(outputs, -1)
    if (kernel, stride, border) == (1, 1, 0):
        x, sides = x.reshape(len(x), 1, 1, -1), (1, rows.shape[1])
    left = weight.reshape(-1)  # of a transposed weight a copy: strides would cost a third
    panels, columns = -(-outputs // ROWS), -(-rows.shape[1] // COLUMNS)
    windows = Windows(x, kernel, stride, border, *sides)
    _multiply(max(panels, columns), panels > columns, left, windows, finish or _nothing(outputs), rows)
    return y


def convolve_by_tiles(
    x: np.ndarray, weight: np.ndarray, finish: Finish | None = None, transposed: bool = False
) -> np.ndarray:
    """As `convolve` with 3x3 windows, a stride and a border of 1, by Winograd's tiles; without an addition. transposed:
    the gradient of its x by that of its result."""
    outputs, inputs = weight.shape[:2] if not transposed else weight.shape[1::-1]
    _check_channels(x, inputs)
    panels = -(-outputs // ROWS)
    left = room((16, panels, len(x), ROWS))
    _filter_panels(panels, weight, transposed, left)
    y = room((outputs, *x.shape[1:]))
    columns = -(-x.shape[1] * ((x.shape[2] + 1) // 2) * ((x.shape[3] + 1) // 2) // COLUMNS)
    _multiply_tiles(max(panels, columns), panels > columns, left, x, finish or _nothing(outputs), y)
    return y


def _check_channels(x, channels):
    if len(x) != channels:
        raise ValueError(f"maps must have {channels} channels, not {len(x)}")


def to_rows(numbers: np.ndarray) -> np.ndarray:
    """Lengthen [D] with zeros to a multiple of ROWS."""
    return np.concatenate((numbers, np.zeros(-len(numbers) % ROWS, np.float32)))


def offset_by(offset: np.ndarray) -> Finish:
    """The offset [D] alone."""
    offset = to_rows(offset)
    return Finish(np.ones_like(offset), offset, offset, False, _NONE)


def _nothing(outputs):
    return offset_by(np.zeros(outputs, np.float32))


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[M, K] x [K, N] -> [M, N]."""
    y = convolve(np.ascontiguousarray(right)[:, None, None], left[:, :, None, None], 1, 0)
    return y.reshape(len(left), -1)

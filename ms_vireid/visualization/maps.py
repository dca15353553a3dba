"""Feature maps inside a model: what a cell gives, and its map over the picture."""

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
from mindspore import Tensor, nn

from ms_vireid.command.errors import InputError
from ms_vireid.models.base import ReIDModel


@contextmanager
def hooked(cell: nn.Cell, hook: Callable):
    """With `hook(cell, inputs, output)` after each call of the cell; what it returns, if not None, is the output."""
    handle = cell.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def output_of(cell: nn.Cell, run: Callable[[], object]) -> Tensor:
    """The output of `cell` within `run()`."""
    held = []
    with hooked(cell, lambda _cell, _inputs, output: held.append(output)):
        run()
    return held[-1]


def at_pixels(model: ReIDModel, cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [rows, columns] at every pixel, float [H, W], bilinearly between the cells' centres."""
    starts, steps = model.cells_in_picture(size, cells.shape)
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        centres = start + step * np.arange(cells.shape[axis])
        wanted = np.arange(size[axis]) + 0.5
        cells = np.apply_along_axis(lambda line, c=centres, w=wanted: np.interp(w, c, line), axis, cells)
    return cells


def require_finite(values: np.ndarray, name: str) -> None:
    """Raise InputError unless the values to draw are finite."""
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the values to draw are not finite; check the checkpoint and the picture")

"""Feature maps inside a model: which cell gives them, and where their cells lie in the picture."""

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
from mindspore import Tensor, nn

from ms_vireid.errors import InputError
from ms_vireid.models import AGW, MUN, PMT
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
    """What `cell` gives within `run()`."""
    held = []
    with hooked(cell, lambda _cell, _inputs, output: held.append(output)):
        run()
    return held[-1]


def last_map(model: ReIDModel) -> nn.Cell:
    """What Grad-CAM weighs: a ResNet's last feature map; the tokens that a ViT's last attention sees (of its last
    block's output only the CLS token is used)."""
    if isinstance(model, PMT):
        return model.base.blocks[-1].norm1
    return model.shared if isinstance(model, MUN) else model.shared[-1]


def first_map(model: ReIDModel, modality: str) -> nn.Cell:
    """The end of the first stage: of the modality's own in MUN, `layer1` in AGW, the first block in a ViT."""
    if isinstance(model, PMT):
        return model.base.blocks[0]
    if isinstance(model, AGW):
        return model.base.layer1[-1]
    return model.visible_stage if modality == "visible" else model.infrared_stage


def as_maps(model: ReIDModel, output: np.ndarray) -> np.ndarray:
    """[N, C, rows, columns] of such a cell's output: a ViT's tokens [N, 1 + L, C], without CLS, back on the grid."""
    if output.ndim == 4:
        return output
    rows, columns = model.base.patch_embed.grid_size  # 21x10 for 256x128 pixels
    return output[:, 1:].transpose(0, 2, 1).reshape(len(output), -1, rows, columns)


def at_pixels(model: ReIDModel, cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [rows, columns] at every pixel, float [H, W], bilinearly between the cells' centres."""
    if isinstance(model, PMT):
        projection = model.base.patch_embed.proj
        first, steps = projection.patch_size / 2, (projection.stride, projection.stride)
        starts = (first, first)  # centre of the first patch, in pixels
    else:
        steps = tuple(pixels / count for pixels, count in zip(size, cells.shape, strict=True))
        starts = tuple(step / 2 for step in steps)
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        centres = start + step * np.arange(cells.shape[axis])
        wanted = np.arange(size[axis]) + 0.5
        cells = np.apply_along_axis(lambda line, c=centres, w=wanted: np.interp(w, c, line), axis, cells)
    return cells


def require_finite(values: np.ndarray, name: str) -> None:
    """Raise InputError unless what is to be drawn is finite."""
    if not np.isfinite(values).all():
        raise InputError(f"{name}: what is to be drawn is not finite; check the checkpoint and the picture")

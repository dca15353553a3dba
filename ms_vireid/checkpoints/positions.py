"""The grid of patches of a ViT's position embedding, of which a file stores the positions in one row."""

import math
from collections.abc import Mapping

import numpy as np

from ms_vireid.checkpoints.state_dict import StateDict
from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import note

Grid = tuple[int, int]  # rows and columns of patches
KEY = "model.pretrained_grid"


def source_grid(
    saved: StateDict, weights: Mapping[str, np.ndarray], name: str, model: Grid, stated: Grid | None
) -> Grid | None:
    """Return the grid of a file's position embedding `name`; None for weights that are none.

    It is the one that the user states, or else that of the configuration which a file of this project carries, or else
    the model's own or a square, whichever has as many positions.

    Args:
        weights: the file's, by this project's names. model: the model's own grid. stated: the user's; None: not stated.

    Raises:
        InputError: the stated grid has another number of positions; no other grid has that number, or two have it.
    """
    embedding, patches = weights.get(name), weights.get("patch_embed.proj.weight")
    if embedding is None or patches is None or embedding.ndim != 3 or len(embedding) != 1 or patches.ndim != 4:
        return None
    positions = embedding.shape[1] - 1  # without the CLS token's
    if stated is not None:
        if math.prod(stated) != positions:
            problem = f"{KEY}: {_text(stated)} are {math.prod(stated)} patches, it has {positions} positions"
            raise InputError(f"{saved.path}: {problem}")
        return stated
    carried = _carried(saved)
    if carried is not None and math.prod(carried) == positions:
        return carried
    side = math.isqrt(max(positions, 0))
    fitting = [grid for grid in dict.fromkeys((model, (side, side))) if side and math.prod(grid) == positions]
    if len(fitting) != 1:
        known = " or ".join(map(_text, fitting))
        which = f"may be {known} patches" if known else f"are neither the model's {_text(model)} patches nor a square"
        raise InputError(f"{saved.path}: its {positions} positions {which}: set {KEY}=[ROWS,COLUMNS]")
    if fitting[0] != model:
        note(saved.path, f"its {positions} positions are taken as {_text(fitting[0])} patches; {KEY} overrides this")
    return fitting[0]


def _carried(saved: StateDict) -> Grid | None:
    """The grid of the configuration that a file carries; None without one."""
    try:
        config = saved.meta["config"]
        patch, stride = (config["model"][key] for key in ("patch_size", "stride"))
        height, width = ((side - patch) // stride + 1 for side in config["data"]["image_size"])
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None
    return height, width


def _text(grid: Grid) -> str:
    return "x".join(map(str, grid))

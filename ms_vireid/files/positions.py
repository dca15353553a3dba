"""The grid of patches of a ViT's position embedding, of which a file stores the positions in one row."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import read_bytes, read_text
from ms_vireid.files.origin import note

Grid = tuple[int, int]  # rows and columns of patches
KEY = "model.pretrained_grid"
_MAX_CONFIG_BYTES = 1_000_000
_PAIR = r"['\"]?[\[(] *(\d{1,5}), *(\d{1,5}) *[\])]"  # as YAML or Python writes it


def grid_of(size: Any, patch: int, stride: int) -> Grid:
    """Rows and columns of patches of a picture of (H, W) pixels; raises ValueError if they are no sizes."""
    height, width = size
    if any(type(number) is not int or number < 1 for number in (height, width, patch, stride)):
        raise ValueError(f"no sizes: {size}, {patch}, {stride}")
    return max(height - patch, 0) // stride + 1, max(width - patch, 0) // stride + 1


# The field's pictures of people, in pixels, the usual ones first; patches of 16 pixels.
_SIZES = (
    *((256, 128), (384, 128), (288, 128), (288, 144), (384, 192), (224, 112), (192, 96), (128, 64), (256, 64)),
    *((256, 96), (320, 128), (320, 160), (160, 80), (160, 64), (192, 64), (384, 96), (320, 80), (224, 80), (128, 48)),
)
_PEOPLE = tuple(dict.fromkeys(grid_of(size, 16, stride) for stride in (16, 12, 8) for size in _SIZES))


def source_grid(
    path: Path, positions: int, model: Grid, patch_size: int, stated: Grid | None, carried: Mapping[str, Any]
) -> Grid:
    """Return the grid of a file's position embedding, without the CLS token's.

    It is the one that the user states, or else of the configuration that the file carries, of one beside it, the
    model's own, a square, or the only one of people's pictures; the last three are guesses where another would do as
    well, and one line is logged.

    Args:
        path: of the file. positions: how many. model: the model's own grid. patch_size: of the file's patches, pixels.
        stated: the user's; None: nothing stated. carried: the file's own configuration, {} without one.

    Raises:
        InputError: the stated grid has another number of positions, or none can be told.
    """
    if stated is not None:
        if math.prod(stated) != positions:
            shape = "x".join(map(str, stated))
            raise InputError(f"{path}: {KEY}: {shape} are {math.prod(stated)} patches, it has {positions} positions")
        return stated
    told = [grid for grid in (_carried(carried), *_beside(path, patch_size)) if grid and math.prod(grid) == positions]
    if told:
        return told[0]
    side = math.isqrt(max(positions, 0))
    square = [(side, side)] if side and side * side == positions else []
    likely = [*square, *(grid for grid in _PEOPLE if math.prod(grid) == positions)]
    own = [model] if math.prod(model) == positions else []
    if not own and not square and len(likely) != 1:
        which = f"may be {_list(likely)} patches" if likely else "are of no grid that is known"
        raise InputError(f"{path}: its {positions} positions {which}: say {KEY}=[ROWS,COLUMNS]")
    taken = (own or likely)[0]
    if others := [grid for grid in likely if grid != taken]:
        reason = "the model's" if own else "a square"
        note(path, f"its {positions} positions are taken as {_list([taken])} patches, {reason}, for {_say(others)}")
    elif not own and not square:
        note(path, f"its {positions} positions are taken as {_list([taken])} patches; {KEY}=[ROWS,COLUMNS] says others")
    return taken


def _list(grids: list[Grid]) -> str:
    return " or ".join("x".join(map(str, grid)) for grid in grids)


def _say(others: list[Grid]) -> str:
    rows, columns = others[0]
    return f"which {_list(others)} would do as well; {KEY}=[{rows},{columns}] says so"


def _carried(config: Mapping[str, Any]) -> Grid | None:
    """The grid of a configuration of this project; None without one."""
    try:
        model = config["model"]
        return grid_of(config["data"]["image_size"], model["patch_size"], model["stride"])
    except (LookupError, TypeError, ValueError):
        return None


def _beside(path: Path, patch_size: int) -> list[Grid]:
    """The grids of the configurations beside a file: timm's and the transformers library's, TransReID's and
    fast-reid's."""
    grids = []
    for name, read in (("config.json", _of_json), ("config.yaml", _of_yaml), ("config.yml", _of_yaml)):
        try:
            size, stride = read(path.with_name(name))
            height, width = (size, size) if isinstance(size, int) else size
            grids.append(grid_of((height, width), patch_size, stride or patch_size))
        except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # missing, or another program's
    return grids


def _of_json(path: Path) -> tuple[Any, int]:
    """The size of the pictures, and no stride: these libraries' patches do not overlap."""
    try:
        tree = json.loads(read_bytes(path, "file", _MAX_CONFIG_BYTES))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "image_size" in tree:
        return tree["image_size"], 0
    size = (tree.get("model_args") or {}).get("img_size") or tree["pretrained_cfg"]["input_size"][1:]
    return size, 0


def _of_yaml(path: Path) -> tuple[tuple[int, int], int]:
    """The size of the pictures and the stride of the patches."""
    text = read_text(path, "file", _MAX_CONFIG_BYTES)
    size, stride = (re.search(rf"^\s*{key}: *{_PAIR}", text, re.MULTILINE) for key in ("SIZE_TRAIN", "STRIDE_SIZE"))
    return (int(size[1]), int(size[2])), int(stride[1]) if stride else 0

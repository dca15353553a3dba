"""Which set of weights is taken from a file of PyTorch's, which may hold several."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ms_vireid.checkpoints.pytorch_checkpoint import SAVE, Foreign, kind_of, plain_array
from ms_vireid.command.errors import InputError, first_few
from ms_vireid.files.checks import check_count, check_growth

# Keys of a dict that contains the plain state dict.
WRAPPERS = ("state_dict", "model", "net", "model_state", "model_state_dict", "network", "module", "weights")
CHOOSE = "name one: --weights NAME of convert.py, or model.pretrained_weights=NAME"


class Pickled(NamedTuple):
    """A set of weights in a file, by name. sets: names of all sets, this one's first; "" is the whole file.
    others: further values of the file, plain ones as they are."""

    arrays: dict[str, np.ndarray]
    sets: tuple[str, ...]
    others: dict[str, Any]


def choose_set(path: Path, loaded: Any, choice: str | None) -> Pickled:
    """Take the set called `choice`, else the plain one, from what `read_pth` returns; bfloat16 becomes float32.

    A `choice` that is no set is the caller's to look for among the names. Raises InputError for what is no state dict,
    or if several sets could be meant.
    """
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {kind_of(loaded)}, not a state dict (tensors by name); {SAVE}")
    inside = {"": loaded} | {name: held for name, held in loaded.items() if name and type(name) is str}
    distinct = {id(held): held for held in inside.values()}  # a pickle may use one value many times
    are_sets = {number: _is_set(held) for number, held in distinct.items()}
    sets = [name for name, held in inside.items() if are_sets[id(held)]]
    plain = [name for name in sets if name in WRAPPERS] or [name for name in sets if not name]
    chosen = [choice] if choice in sets else sets if len(sets) == 1 else plain
    if sets and len(chosen) != 1:
        asked = f"no {choice!r} among its sets of weights" if choice else "several sets of weights"
        raise InputError(f"{path}: holds {asked} ({first_few(sets)}); {CHOOSE}")
    opaque = {name: loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Foreign)}
    if not sets or (opaque and chosen[0] not in (choice, *WRAPPERS)):
        kinds = dict.fromkeys(f"{name} is a {kind_of(value)}" for name, value in (opaque or loaded).items())
        problem = f"holds no plain state dict (tensors by name): {first_few(list(kinds)) or 'nothing'}"
        raise InputError(f"{path}: {problem}; {SAVE}")
    arrays = {name: value for name, value in inside[chosen[0]].items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in inside[chosen[0]].items() if name not in arrays}
    others |= {str(name): value for name, value in loaded.items() if chosen[0] and name != chosen[0]}
    check_count(len(arrays))
    size = sum(array.size * max(array.itemsize, 4) for array in arrays.values())  # they may share numbers
    check_growth(path, size, "save a clone() of each tensor")
    arrays = {name: plain_array(value) for name, value in arrays.items()}
    return Pickled(arrays, (*chosen, *(name for name in sets if name not in chosen)), others)


def _is_set(held: Any) -> bool:
    """Whether a value is a dict of tensors by name."""
    has_tensors = isinstance(held, dict) and any(isinstance(one, np.ndarray) and one.ndim for one in held.values())
    return has_tensors and all(type(name) is str for name in held)

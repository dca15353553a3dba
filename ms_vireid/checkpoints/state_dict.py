"""Weights as somebody saved them, made plain: one set of a file, float32, without the prefix that all names share."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.checkpoints.layouts import CheckpointLayout, detect, torch_name
from ms_vireid.checkpoints.weight_sets import CHOOSE
from ms_vireid.checkpoints.weights import COUNTER, PER_DEVICE, STATES, is_square, read_checkpoint
from ms_vireid.command.errors import InputError, first_few, summary
from ms_vireid.files.checks import note

# What torch.compile, FSDP and checkpointed activations put into names, wherever a module is wrapped.
_WRAPPER = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
HEADS = ("head.", "heads.", "fc.", "classifier.")  # ImageNet's classifiers, which lie beside a backbone's prefix
_MINDSPORE_STATES = ("moments.", "moment1.", "moment2.", "adam_m.", "adam_v.", "accum.")  # of MindSpore's optimizers
_AVERAGE = re.compile(r"(?<![a-z])(k|key|ema|momentum|target|teacher)(?![a-z])", re.IGNORECASE)
_UNFIT = "of the same name", "without numbers", "that are no floats", "that are variances below 0"  # weights
_STATES = tuple(f"{key}." for keys in STATES.values() for key in keys)


@dataclass(frozen=True)
class StateDict:
    """What a file holds.

    weights: by plain names. names: the file's own, by plain names. types: of those that were not float32. states: the
    optimizer's, as KEY.NAME with the weight's name. meta: the record saved with them, {} for a foreign file.
    framework: whose names these are; None: the file does not say. beside: what else is there and is passed over, with
    its type or shape, and why.
    """

    path: Path
    weights: dict[str, np.ndarray]
    names: dict[str, str]
    types: dict[str, str] = field(default_factory=dict)
    states: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    framework: str | None = None
    beside: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_state_dict(path: Path, choice: str | None = None) -> StateDict:
    """Read a set of weights of a file, and log what was done to it.

    choice: name of the set, or the beginning of its names; None: the plain one. Half, bfloat16 and double become
    float32, and counts of batches int64; other types stay.

    Raises:
        InputError: as of `read_checkpoint`; the file holds no weights, or none that are called `choice`.
    """
    held = read_checkpoint(path, choice=choice)
    sets = {name.partition(".")[0] for name in held.sets[1:]}
    beside = {n: (kind, "another set of weights" if n in sets else "no weights") for n, kind in held.beside.items()}
    weights, states = {}, {}
    for name, array in held.arrays.items():
        if name.startswith(_STATES):
            states[name] = array
        elif name.startswith((f"{PER_DEVICE}.", *_MINDSPORE_STATES)):
            why = "of several processes" if name.startswith(PER_DEVICE) else "an optimizer's"
            beside[name] = str(list(array.shape)), why
        elif _is_count(name, array):
            beside[name] = str(list(array.shape)), "no weights"
        else:
            weights[name] = array
    if len(held.sets) > 1:
        others = first_few([other or "the whole file" for other in held.sets[1:]])
        note(path, f"of its sets of weights {held.sets[0] or 'the plain one'} is taken, not {others} ({CHOOSE})")
    names, _ = plain_names(weights)
    for own in [own for name, own in names.items() if _is_count(name, weights[own])]:
        beside[own] = str(list(weights.pop(own).shape)), "no weights"
    names, removed = plain_names(weights)
    if choice is not None and choice not in held.sets:
        start = f"{choice}."
        names = {plain: own for plain, own in names.items() if plain.startswith(start) or own.startswith(start)}
        if not names:
            groups = Counter(name.split(".")[0] for name in weights)
            asked = ", ".join(filter(None, held.sets)) or f"names that begin with {first_few(list(groups))}"
            raise InputError(f"{path}: holds no weights called {choice!r}, but {asked}; {CHOOSE}")
        names, removed = plain_names(names.values())
    if not names:
        raise InputError(f"{path}: holds no weights")
    if removed:
        note(path, f"{removed} is cut from its names")
    if passed := [f"{name}: {kind}" for name, kind in held.beside.items() if name not in sets]:
        note(path, f"skipped beside its weights: {summary(passed)}")
    plain, types = {}, {}
    for name, own in names.items():
        plain[name] = _plain_type(name, weights[own])
        if plain[name].dtype != weights[own].dtype:
            types[name] = str(weights[own].dtype)
    for kind, count in Counter(types.values()).items():
        target = "int64" if kind == "float32" else "float32"  # counts, or else weights
        note(path, f"{count} of its {len(names)} arrays are {kind} and become {target}")
    return StateDict(path, plain, names, types, states, held.meta, held.framework, beside)


def recognise(saved: StateDict) -> tuple[StateDict, CheckpointLayout | None]:
    """The file's layout, and the file with what is one weight here joined, as a ViT's query, key and value. Logs what
    differs in a layout's network; raises InputError if it is another one."""
    own = "config" in saved.meta and "parts" not in saved.meta  # a model's of this project, or made from it
    layout = None if own else detect(saved.weights)
    if layout and layout.refusal:
        raise InputError(f"{saved.path}: is {layout.title}: {layout.refusal}")
    if layout and layout.difference:
        note(saved.path, f"is {layout.title}: {layout.difference}")
    weights, names = dict(saved.weights), dict(saved.names)
    for whole, parts in layout.joined.items() if layout else ():
        for name in saved.weights:
            before, first, last = name.rpartition(f".{parts[0]}.")
            sources = [f"{before}.{part}.{last}" for part in parts]
            if not first or len({weights[n].shape if n in weights else None for n in sources} - {()}) != 1:
                continue
            joined = f"{before}.{whole}.{last}"
            names[joined] = names[name].replace(first, f".{{{','.join(parts)}}}.")
            weights[joined] = np.concatenate([weights.pop(source) for source in sources])
    return replace(saved, weights=weights, names=names), layout


def renamed(saved: StateDict, layout: CheckpointLayout | None) -> tuple[dict[str, str], dict[str, str]]:
    """The file's plain names by this project's, in either framework's, and the names of what the layout leaves out,
    with the reason. No other program computes with the weights before: raises InputError, naming all, for two names
    that become one, and for what is no weight: of no or an empty dimension, no floats, a variance or a second moment
    below 0."""
    held: dict[str, str] = {}
    whose: dict[str, str] = {}
    dropped = {}
    kinds: dict[str, list[str]] = {key: [] for key in _UNFIT}
    for name in saved.weights:
        new, reason = layout.target(name) if layout else (name, "")
        if new is None:
            dropped[name] = reason
            continue
        own = saved.names[name]
        if (first := whose.setdefault(torch_name(new), own)) != own:
            kinds[_UNFIT[0]].append(f"{first} and {own} are both {torch_name(new)}")
        held[new] = name
    numbers = {saved.names[name]: (new, saved.weights[name]) for new, name in held.items()}
    numbers |= {name: (name, state) for name, state in saved.states.items()}
    for own, (new, array) in numbers.items():
        if new.endswith(COUNTER):
            continue
        if not array.size or not array.ndim:
            kinds[_UNFIT[1]].append(f"{own} is {list(array.shape)}")
        elif array.dtype != np.float32:
            kinds[_UNFIT[2]].append(f"{own} is {array.dtype}")
        elif is_square(new) and (array < 0).any():
            kinds[_UNFIT[3]].append(own)
    problems = [f"{what}: {summary(names)}" for what, names in kinds.items() if names]
    if problems:
        raise InputError(f"{saved.path}: holds weights {'; '.join(problems)}; save a whole state dict")
    return held, dropped


def plain_names(names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Take wrappers off the names, and the prefix that all share but an ImageNet head's.

    Returns the names by plain names, and what was taken off, in words ("" if nothing).
    """
    plain = {name: name for name in names}
    removed = []
    wrappers = {found[1] for name in plain for found in _WRAPPER.finditer(name)}
    if wrappers:
        plain = {name: _WRAPPER.sub("", name) for name in plain}
        removed += [f"{wrapper}." for wrapper in sorted(wrappers)]
    while prefix := _shared([name for name in plain.values() if not name.startswith(HEADS)]):
        plain = {own: name.removeprefix(prefix) for own, name in plain.items()}
        removed.append(prefix)
    if len(set(plain.values())) < len(plain):  # two would become one
        return {name: name for name in plain}, ""
    return {name: own for own, name in plain.items()}, " and ".join(removed)


def _is_count(name: str, array: np.ndarray) -> bool:
    """Whether it is a step, a rate, AveragedModel's n_averaged or MoCo's queue_ptr."""
    return "." not in name and (not array.ndim or (array.size == 1 and array.dtype.kind in "iu"))


def _shared(names: list[str]) -> str:
    """The first part of all names, which more than one weight has, or ""."""
    first = names[0].partition(".")[0] + "." if len(names) > 1 and "." in names[0] else ""
    return first if first and all(name.startswith(first) for name in names) else ""


def _plain_type(name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith(COUNTER):
        is_whole = array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all()
        return array.astype(np.int64) if is_whole else array
    if array.dtype in (np.float16, np.float64):
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            return array.astype(np.float32)
    return array


def mismatch(held: Iterable[str], wanted: Iterable[str]) -> str:
    """Which part of the names fits if it is chosen, as the beginning of an error; "" if there is none. A moving
    average of another part, as MoCo's encoder_k, comes last."""
    wanted = set(wanted)
    extra = set(held) - wanted
    starts = {name.split(".")[0] for name in extra}
    for start in sorted(starts, key=lambda name: (bool(_AVERAGE.search(name)), name)):
        fitting = sum(name.removeprefix(f"{start}.") in wanted for name in extra)
        if 2 * fitting > len(wanted):
            remedy = f"give model.pretrained_weights={start}, or convert.py --weights {start}"
            return f"{fitting} weights of {start!r} do: {remedy}; "
    return "" if 2 * len(wanted.intersection(held)) > len(wanted) else "these are the weights of another network; "

"""From one checkpoint file to another: what becomes of every key, and the reasons to refuse a file."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, apply_override, check_config, dump_config, load_config, require_fitting
from ms_vireid.files.writing import check_output
from ms_vireid.models import build_model
from ms_vireid.models.vit import resize_position_embedding
from parity.files import WRITTEN, Contents, read, write_ckpt, write_safetensors
from parity.layouts import LAYOUTS, Layout, detect, without_prefix
from parity.mapping import STATES, STEP, Twin, counters, differences, twins, with_step
from torch_ref.engine.checkpoint import save_checkpoint
from torch_ref.engine.optimizer import build_optimizer as build_torch_optimizer
from torch_ref.models import build_model as build_torch_model

TRAINING = (STEP, "data_checksum", "best")  # what a checkpoint to resume from holds besides


@dataclass(frozen=True)
class Row:
    """One line of the table: a key of the source, of the target, and what becomes of it."""

    source: str
    source_shape: tuple[int, ...] | str
    target: str
    target_shape: tuple[int, ...] | str
    fate: str

    def cells(self) -> tuple[str, ...]:
        shapes = [s if isinstance(s, str) else str(list(s)) for s in (self.source_shape, self.target_shape)]
        return self.source, shapes[0], self.target, shapes[1], self.fate


@dataclass(frozen=True)
class Network:
    """The configured network, or the part of it that a backbone file holds, by either framework's names."""

    config: Config
    pairs: list[Twin]
    parts: tuple[str, ...]
    grid: tuple[int, int] | None  # of a ViT's patches

    @property
    def title(self) -> str:
        return f"{self.config.model.name}'s {' and '.join(self.parts) or 'network'}"


@dataclass(frozen=True)
class Matched:
    """A source's keys by the network's, in the naming of the source, MindSpore's or PyTorch's.

    by_name: the network's parameters. held: the source's name of each key. dropped: its names that are left out, with
    the reason. values: the weights to write. resized: what became of those that changed. counts: of
    batches, by PyTorch's names.
    """

    by_name: dict[str, Twin]
    held: dict[str, str]
    dropped: dict[str, str]
    values: dict[str, torch.Tensor]
    resized: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Conversion:
    """Everything to write, by PyTorch's names and in its shapes, and the table that says so."""

    network: Network
    weights: dict[str, torch.Tensor]
    counts: dict[str, int]
    states: dict[str, torch.Tensor]
    meta: dict
    learning_rates: list[float] | None
    rows: list[Row]

    def count_line(self) -> str:
        fates = Counter(row.fate.split(":")[0].split(" ")[0] for row in self.rows)
        return f"{len(self.rows)} keys: {', '.join(f'{count} {fate}' for fate, count in fates.items())}"

    def table(self) -> str:
        lines = [("source", "shape", "target", "shape", "what becomes of it"), *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line[:4], widths, strict=True)), line[4]])
            for line in lines
        )


def check_target(target: Path, source: Path, overwrite: bool) -> None:
    """Raise InputError unless `target` has a known format and can be written."""
    if target.suffix not in WRITTEN:
        raise InputError(f"{target}: its suffix is none of {', '.join(WRITTEN)}")
    check_output(target, "DST")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: is the file to convert; choose another name")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: is there already; choose another name, or give --overwrite")


def prepare(source: Path, target: Path, config_file: Path | None, overrides: list[str]) -> Conversion:
    """Read `source` and work out everything to write.

    Raises:
        InputError: the file cannot be read; its layout is not known; another model is asked for than it was made
            with; or keys are missing, extra, misshapen, not float32 or not finite, all listed.
    """
    contents = read(source)
    plain = without_prefix(contents.weights)
    layout = detect(plain.values())
    if "config" in contents.meta:
        config = _carried_configuration(source, contents.meta["config"], config_file, overrides)
        if "parts" not in contents.meta:
            require_fitting(source, config.model, sum(value.numel() for value in contents.weights.values()))
        _require_fitting_model(source, layout, config)
    else:
        config = _foreign_configuration(source, contents, plain, layout, config_file, overrides)
    network = _network(source, config, contents.meta.get("parts", list(layout.parts) if layout else []), plain.values())
    matched = _match(source, contents, plain, layout, network)
    return _conversion(target.suffix, contents, matched, network)


def _carried_configuration(source: Path, carried: Any, config_file: Path | None, overrides: list[str]) -> Config:
    """The source's own, with the command line's values; neither these nor the file may be of another model."""
    own = check_config(carried, str(source))
    tree = dump_config(own)
    for override in overrides:
        apply_override(tree, override)
    config = check_config(tree, "command line")
    _require_same_model(source, own, config, "than the command line asks for")
    if config_file is not None:
        _require_same_model(source, own, load_config(config_file, overrides), f"than {config_file}")
    return config


def _foreign_configuration(
    source: Path,
    contents: Contents,
    plain: Mapping[str, str],
    layout: Layout | None,
    config_file: Path | None,
    overrides: list[str],
) -> Config:
    """The file's, or else the layout's; sizes that nobody asks for are those of the source's weights."""
    file = config_file or (layout.config if layout else None)
    if file is None:
        names, titles = ", ".join(list(plain.values())[:3]), "; ".join(known.title for known in LAYOUTS)
        raise InputError(
            f"{source}: carries no configuration, and its names ({names}, ...) are of no known layout ({titles}); "
            "give the --config of its model"
        )
    config = load_config(file, overrides)
    _require_fitting_model(source, layout, config)
    shapes = {layout.target(plain[name])[0]: value.shape for name, value in contents.weights.items()} if layout else {}
    sizes = layout.sizes.items() if layout else ()
    found = [f"{key}={shapes[name][axis]}" for key, (name, axis) in sizes if len(shapes.get(name, ())) > axis]
    return load_config(file, [*found, *overrides])


def _require_fitting_model(source: Path, layout: Layout | None, config: Config) -> None:
    if layout is not None and config.model.name not in layout.models:
        raise InputError(
            f"{source}: is in the layout of {layout.title}, the configuration's model is {config.model.name}; "
            "give the --config of its model"
        )


def _require_same_model(source: Path, carried: Config, asked: Config, other: str) -> None:
    """Raise InputError if `asked` is another network than `carried`; the number of classes may be left open."""
    ours, theirs = (
        {f"model.{key}": value for key, value in config.model.model_dump(exclude={"pretrained"}).items()}
        for config in (carried, asked)
    )
    if theirs["model.num_classes"] is None:
        del theirs["model.num_classes"]
    if changed := [key for key, value in theirs.items() if ours.get(key) != value]:
        raise InputError(f"{source}: was made with another {', '.join(changed)} {other}; leave that out")


def from_scratch(config: Config) -> Config:
    """The same network without ImageNet weights; a backbone may leave the number of classes open."""
    fresh = {"pretrained": "none", "num_classes": config.num_classes or 1}
    return config.model_copy(update={"model": config.model.model_copy(update=fresh)})


def _network(source: Path, config: Config, parts: list[str], names: Collection[str]) -> Network:
    """The configured network, without the parts that only training needs if the source's `names` have none of these."""
    if config.num_classes is None and not parts:
        raise InputError(f"model.num_classes is not known for data.name={config.data.name}; give model.num_classes=N")
    cell = build_model(from_scratch(config))
    if cell.TRAINING_ONLY and not any(name.startswith(cell.TRAINING_ONLY) for name in names):
        cell = build_model(from_scratch(config), inference=True)
    inside = dict(cell.name_cells())
    if not isinstance(parts, list) or not all(part in inside for part in parts):
        raise InputError(
            f"{source}: holds the parts {parts}, {config.model.name} does not have all of them; use another copy"
        )
    pairs = [twin for part in parts for twin in twins(inside[part])] if parts else twins(cell)
    embedding = getattr(getattr(cell, "base", None), "patch_embed", None)
    return Network(config, pairs, tuple(parts), getattr(embedding, "grid_size", None))


def _match(
    source: Path, contents: Contents, plain: Mapping[str, str], layout: Layout | None, network: Network
) -> Matched:
    """The source's keys by the network's; raises InputError unless every key fits, is float32 and is finite."""
    pairs = network.pairs
    held, dropped, problems = _renamed(contents.weights, plain, layout)
    # A .safetensors may be in either naming: the one that more of its names belong to.
    ours = sum(twin.name in held for twin in pairs) > sum(twin.torch_name in held for twin in pairs)
    by_name = {twin.name if ours else twin.torch_name: twin for twin in pairs}
    shapes = {name: twin.shape if ours else twin.torch_shape for name, twin in by_name.items()}
    values = {name: contents.weights[held[name]] for name in by_name if name in held}
    _require_float32(source, {held[name]: value for name, value in values.items()} | contents.states)
    resized = {}
    if layout and layout.resized in values:
        values[layout.resized], resized = _resized(layout.resized, values[layout.resized], shapes, network.grid)
    counts, wrong_counts = _counts(held, contents.weights, counters(pairs))
    unknown = [held[name] for name in held if name not in by_name and name not in counters(pairs)]
    found = values | {name: contents.weights[name] for name in unknown}
    keys = STATES[network.config.optimizer.name] if STEP in contents.meta else ()
    trained = {name: shapes[name] for name, twin in by_name.items() if twin.parameter.requires_grad}
    problems += [
        *wrong_counts,
        *differences(_shapes(found), shapes, "network"),
        *differences(
            _shapes(contents.states), {f"{key}.{name}": trained[name] for key in keys for name in trained}, "optimizer"
        ),
    ]
    if problems:
        raise InputError(
            f"{source}: does not fit {network.title}: {len(problems)} ({', '.join(problems)}); nothing was written"
        )
    _require_finite(source, {held[name]: value for name, value in values.items()} | contents.states)
    return Matched(by_name, held, dropped, values, resized, counts)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _conversion(suffix: str, contents: Contents, matched: Matched, network: Network) -> Conversion:
    """What to write for a target with that suffix, and the table."""
    held, in_torch, weights_only = matched.held, suffix != ".ckpt", suffix == ".safetensors"
    rows = []
    for name, twin in matched.by_name.items():
        target = twin.torch_name if in_torch else twin.name
        fate = matched.resized.get(name) or ("copied" if held[name] == target else "renamed")
        shape = tuple(contents.weights[held[name]].shape)
        rows.append(Row(held[name], shape, target, twin.torch_shape if in_torch else twin.shape, fate))
    wanted = counters(network.pairs)
    rows += [_count_row(name, held.get(name), in_torch) for name in wanted if in_torch or name in held]
    for name, reason in matched.dropped.items():
        rows.append(Row(name, tuple(contents.weights[name].shape), "", "", f"dropped: {reason}"))
    rows += [Row(name, kind, "", "", "dropped: no weights") for name, kind in contents.beside.items()]
    states = {}
    for name, value in contents.states.items():
        key, _, weight = name.partition(".")
        twin = matched.by_name[weight]
        states[f"{key}.{twin.torch_name}"] = value.reshape(twin.torch_shape)
        target = f"{key}.{twin.torch_name if in_torch else twin.name}"
        shape = twin.torch_shape if in_torch else twin.shape
        fate = "copied" if name == target else "renamed"
        if weights_only:
            target, shape, fate = "", "", "dropped: a .safetensors holds weights only"
        rows.append(Row(name, tuple(value.shape), target, shape, fate))
    meta = contents.meta | {"config": dump_config(network.config)} | ({"parts": network.parts} if network.parts else {})
    return Conversion(
        network,
        weights={t.torch_name: matched.values[name].reshape(t.torch_shape) for name, t in matched.by_name.items()},
        counts={name: matched.counts.get(name, 0) for name in wanted},
        states={} if weights_only else states,
        meta={key: value for key, value in meta.items() if not weights_only or key not in TRAINING},
        learning_rates=contents.learning_rates,
        rows=rows,
    )


def _renamed(
    weights: Mapping[str, torch.Tensor], plain: Mapping[str, str], layout: Layout | None
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The source's names by this project's, those left out with the reason, and names that become one, in words."""
    held: dict[str, str] = {}
    dropped = {}
    problems = []
    for name in weights:
        new, reason = layout.target(plain[name]) if layout else (plain[name], "")
        if new is None:
            dropped[name] = reason
        elif new in held:
            problems.append(f"{held[new]} and {name} are both {new}")
        else:
            held[new] = name
    return held, dropped, problems


def _resized(
    name: str, value: torch.Tensor, shapes: Mapping[str, tuple[int, ...]], grid: tuple[int, int]
) -> tuple[torch.Tensor, dict[str, str]]:
    """A square grid's position embedding resized to the model's grid, with a note; any other tensor unchanged."""
    side = math.isqrt(max(value.shape[1] - 1, 0)) if value.ndim == 3 else 0
    if tuple(value.shape) == shapes[name] or not side or side * side + 1 != value.shape[1]:
        return value, {}
    new = torch.from_numpy(resize_position_embedding(value.numpy(), grid))
    return new, {name: f"resized {side}x{side} -> {grid[0]}x{grid[1]}"}


def _counts(
    held: Mapping[str, str], weights: Mapping[str, torch.Tensor], wanted: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """The source's counters of batches, as PyTorch has them, and those that are not whole numbers, in words."""
    counts, problems = {}, []
    for name in wanted:
        if name in held:
            value = weights[held[name]]
            if value.ndim == 0 and value.dtype == torch.int64:
                counts[name] = int(value)
            else:
                problems.append(f"{held[name]} is {_dtype_name(value)} {list(value.shape)}, not one int64")
    return counts, problems


def _count_row(name: str, origin: str | None, in_torch: bool) -> Row:
    if not in_torch:
        return Row(origin, (), "", "", "kept: in the file's JSON, as MindSpore has none")
    if origin is None:
        return Row("", "", name, (), "filled: 0")
    return Row(origin, (), name, (), "copied" if origin == name else "renamed")


def _require_float32(source: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    wrong = [f"{name} is {_dtype_name(value)}" for name, value in tensors.items() if value.dtype != torch.float32]
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} keys are not float32 ({', '.join(wrong)}); convert to float32 first: "
            "torch.save({name: value.float() for name, value in state_dict.items()}, path)"
        )


def _require_finite(source: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    wrong = []
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            counts = {"NaN": int(value.isnan().sum()), "infinite": int(value.isinf().sum())}
            wrong.append(f"{name} has {' and '.join(f'{n} {what}' for what, n in counts.items() if n)}")
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} keys have values that are not finite ({', '.join(wrong)}); use an earlier file"
        )


def _dtype_name(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def write(conversion: Conversion, target: Path) -> None:
    """Write the file, whole or not at all; raises InputError if it cannot be written."""
    network, meta = conversion.network, conversion.meta
    if target.suffix == ".ckpt":
        parameters = {twin.name: conversion.weights[twin.torch_name].reshape(twin.shape) for twin in network.pairs}
        by_torch_name = {twin.torch_name: twin for twin in network.pairs}
        for name, value in conversion.states.items():
            key, _, weight = name.partition(".")
            twin = by_torch_name[weight]
            parameters[f"{key}.{twin.name}"] = value.reshape(twin.shape)
        write_ckpt(target, parameters, meta, conversion.counts, conversion.learning_rates)
        return
    weights = conversion.weights | {name: torch.tensor(count) for name, count in conversion.counts.items()}
    if target.suffix == ".safetensors":
        write_safetensors(target, weights, meta)
    else:
        save_checkpoint(target, weights, meta, _optimizer_state_dict(conversion) if conversion.states else None)


def _optimizer_state_dict(conversion: Conversion) -> dict:
    """The state dict of torch_ref's optimizer; its learning rates are 0 as when it is made, unless they are known."""
    with torch.device("meta"):
        model = build_torch_model(from_scratch(conversion.network.config))
        state_dict = build_torch_optimizer(model, conversion.network.config).state_dict()
    groups = state_dict["param_groups"]
    rates = conversion.learning_rates or []
    for group, rate in zip(groups, rates if len(rates) == len(groups) else [0.0] * len(groups), strict=True):
        group["lr"] = rate
        for index, name in zip(group["params"], group["param_names"], strict=True):
            keys = STATES[conversion.network.config.optimizer.name]
            state = {key: conversion.states[f"{key}.{name}"] for key in keys}
            state_dict["state"][index] = with_step(state, conversion.meta[STEP])
    return state_dict

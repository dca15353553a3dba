"""Convert one checkpoint file to another: every key's target, and the reasons to refuse a file."""

import argparse
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.checkpoints.layouts import LAYOUTS, CheckpointLayout
from ms_vireid.checkpoints.positions import source_grid
from ms_vireid.checkpoints.pretrained import OF_FILE
from ms_vireid.checkpoints.pytorch_checkpoint import PICKLED
from ms_vireid.checkpoints.state_dict import StateDict, mismatch, read_state_dict, recognise, renamed
from ms_vireid.checkpoints.weights import STATES, TRAINING
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import FRAMEWORKS, MINDSPORE, TORCH, WRITTEN
from ms_vireid.command.printing import say
from ms_vireid.config import (
    Config,
    apply_override,
    check_config,
    dump_config,
    load_config,
    other_sizes,
    require_fitting,
)
from ms_vireid.models import build_model
from ms_vireid.models.vit import resize_position_embedding
from parity.files import write
from parity.mapping import Twin, counters, differences, twins


@dataclass(frozen=True)
class Row:
    """A line of the table: a source key, its target key, and the change."""

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

    def names(self, framework: str) -> list[str]:
        """The parameters' names in a framework."""
        return [twin.name if framework == MINDSPORE else twin.torch_name for twin in self.pairs]


@dataclass(frozen=True)
class Matched:
    """A source's keys, all of which fit the network, by the network's names in `framework`.

    held: the source's own names. dropped: its names that are left out, with the reason. weights: to be written.
    resized: what became of those that are not as they were. counts: of batches, by PyTorch's names.
    """

    framework: str
    held: dict[str, str]
    dropped: dict[str, str]
    weights: dict[str, np.ndarray]
    resized: dict[str, str]
    counts: dict[str, np.ndarray]


@dataclass(frozen=True)
class Conversion:
    """What is to be written: arrays by the names of `framework`, the record, and the table that says so."""

    arrays: dict[str, np.ndarray]
    meta: dict
    framework: str
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


def main(arguments: argparse.Namespace) -> None:
    target = arguments.target
    saved = read_state_dict(arguments.source, arguments.weights)
    conversion = prepare(saved, target.suffix, arguments.to, arguments.config, arguments.overrides)
    if arguments.dry_run:
        say(*conversion.table().split("\n"))
    else:
        write(target, conversion.arrays, conversion.meta, conversion.framework)
    say(conversion.count_line())
    say(f"dry run: {target} was not written" if arguments.dry_run else f"wrote {target}")


def prepare(
    saved: StateDict, suffix: str, framework: str | None, config_file: Path | None, overrides: list[str]
) -> Conversion:
    """Work out everything that is to be written to a file of that suffix.

    framework: whose names a .safetensors gets; None: those of the one that the source's names are not of.

    Raises:
        InputError: the layout is not known; another model is asked for than the file was made with; or keys are
            missing, extra, misshapen, no floats or not finite, all listed.
    """
    saved, layout = recognise(saved)
    held, dropped = renamed(saved, layout)
    source = saved.path
    if "config" in saved.meta:
        if config_file is not None:
            raise InputError(f"--config {config_file}: {source} carries its recipe; leave it out")
        config = _carried_configuration(source, saved.meta["config"], overrides)
        if "parts" not in saved.meta:
            require_fitting(source, config.model, sum(value.size for value in saved.weights.values()))
        _require_fitting_model(source, layout, config)
    else:
        config = _foreign_configuration(saved, layout, config_file, overrides)
    network = _network(source, config, saved.meta.get("parts"), layout, saved.weights)
    matched = _match(saved, layout, held, dropped, network)
    other = TORCH if matched.framework == MINDSPORE else MINDSPORE
    return _convert(suffix, WRITTEN[suffix] or framework or other, saved, matched, network)


def _carried_configuration(source: Path, carried: Any, overrides: list[str]) -> Config:
    """The source's own, with the command line's values, which may not be of another model."""
    own = check_config(carried, str(source))
    tree = dump_config(own)
    for override in overrides:
        apply_override(tree, override)
    config = check_config(tree, "command line")
    _require_same_model(source, own, config)
    return config


def _foreign_configuration(
    saved: StateDict, layout: CheckpointLayout | None, config_file: Path | None, overrides: list[str]
) -> Config:
    """The file's, or else the layout's; sizes that nobody asks for are those of the source's weights."""
    file = config_file or (layout.config if layout else None)
    if file is None:
        names, titles = ", ".join(list(saved.names.values())[:3]), "; ".join(known.title for known in LAYOUTS)
        raise InputError(
            f"{saved.path}: carries no configuration, and its names ({names}, ...) are of no known layout ({titles}); "
            "give the --config of its model"
        )
    config = load_config(file, overrides)
    _require_fitting_model(saved.path, layout, config)
    shapes = {layout.target(name)[0]: value.shape for name, value in saved.weights.items()} if layout else {}
    sizes = layout.sizes.items() if layout else ()
    found = [f"{key}={shapes[name][axis]}" for key, (name, axis) in sizes if len(shapes.get(name, ())) > axis]
    return load_config(file, [*found, *overrides])


def _require_fitting_model(source: Path, layout: CheckpointLayout | None, config: Config) -> None:
    if layout is not None and not layout.fits(config.model.name, config.model.backbone):
        raise InputError(
            f"{source}: is in the layout of {layout.title}, the configuration's model is {config.model.name}; "
            "give the --config of its model"
        )


def _require_same_model(source: Path, carried: Config, asked: Config) -> None:
    """Raise InputError if `asked` is another network than `carried`; the number of classes may be left open."""
    ours, theirs = (
        {f"model.{key}": value for key, value in config.model.model_dump(exclude=set(OF_FILE)).items()}
        for config in (carried, asked)
    )
    if theirs["model.num_classes"] is None:
        del theirs["model.num_classes"]
    if changed := [key for key, value in theirs.items() if ours.get(key) != value]:
        raise InputError(
            f"{source}: was made with another {', '.join(changed)} than the command line asks for; leave that out"
        )


def from_scratch(config: Config) -> Config:
    """The same network without ImageNet weights; a backbone may leave the number of classes open."""
    fresh = {"pretrained": "none", "num_classes": config.num_classes or 1}
    return config.model_copy(update={"model": config.model.model_copy(update=fresh)})


def _network(
    source: Path, config: Config, parts: list[str] | None, layout: CheckpointLayout | None, names: Collection[str]
) -> Network:
    """The configured network, without the parts that only training needs if the source's `names` have none of these; of
    a backbone's file the `parts` that it says it holds, or the model's own."""
    is_backbone = parts or (layout and layout.backbone)
    if config.num_classes is None and not is_backbone:
        raise InputError(f"model.num_classes is not known for data.name={config.data.name}; give model.num_classes=N")
    cell = build_model(from_scratch(config))
    if cell.TRAINING_ONLY and not any(name.startswith(cell.TRAINING_ONLY) for name in names):
        cell = build_model(from_scratch(config), inference=True)
    inside = dict(cell.name_cells())
    if parts is None:
        parts = list(cell.BACKBONE) if is_backbone else []
    if not isinstance(parts, list) or not all(part in inside for part in parts):
        raise InputError(
            f"{source}: holds the parts {parts}, {config.model.name} does not have all of them; use another copy"
        )
    pairs = [twin for part in parts for twin in twins(inside[part])] if parts else twins(cell)
    embedding = getattr(getattr(cell, "base", None), "patch_embed", None)
    return Network(config, pairs, tuple(parts), getattr(embedding, "grid_size", None))


def _match(
    saved: StateDict, layout: CheckpointLayout | None, held: dict[str, str], dropped: dict[str, str], network: Network
) -> Matched:
    """The source's keys by the network's; raises InputError unless every key fits, is float32 and is finite."""
    fitting = {framework: sum(name in held for name in network.names(framework)) for framework in FRAMEWORKS}
    framework = saved.framework if "config" in saved.meta else None  # a stranger's names need not be its container's
    framework = framework or max(fitting, key=fitting.get)
    parameters = [twin.parameter for twin in network.pairs]
    wanted = dict(zip(network.names(framework), parameters, strict=True))
    weights = {name: saved.weights[plain] for name, plain in held.items()}
    counts = {name: weights.pop(name) for name in counters(network.pairs) if name in weights}
    checked = {saved.names[held[name]]: value for name, value in weights.items() if name in wanted} | saved.states
    resized = {}
    if layout and (name := layout.resized) in weights and name in wanted:
        weights[name], resized = _resized(saved, name, weights, network)
    keys = STATES[network.config.optimizer.name] if "step" in saved.meta else ()
    states = {f"{key}.{name}": weight for key in keys for name, weight in wanted.items() if weight.requires_grad}
    problems = [
        *(
            f"{saved.names[held[name]]} is {value.dtype} {list(value.shape)}, not one int64"
            for name, value in counts.items()
            if (value.ndim, value.dtype) != (0, np.int64)
        ),
        *differences(weights, wanted, "network"),
        *differences(saved.states, states, "optimizer"),
    ]
    if problems:
        title = f"{network.config.model.name}'s {' and '.join(network.parts) or 'network'}"
        reason = other_sizes(weights, wanted) or mismatch(weights, wanted)
        listed = ", ".join(problems)
        raise InputError(f"{saved.path}: does not fit {title}: {reason}{len(problems)} ({listed}); nothing was written")
    if wrong := [name for name, value in checked.items() if not np.isfinite(value).all()]:
        problem = f"{len(wrong)} keys have values that are not finite ({', '.join(wrong)})"
        raise InputError(f"{saved.path}: {problem}; use an earlier file")
    return Matched(framework, held, dropped, weights, resized, counts)


def _convert(suffix: str, into: str, saved: StateDict, matched: Matched, network: Network) -> Conversion:
    """What is to be written to a file of that suffix, by the names of `into`."""
    arrays, rows = {}, []

    def put(own: str, held: np.ndarray, value: np.ndarray, target: str, fate: str = "") -> None:
        arrays[target] = value
        fate = fate or ("copied" if own == target else "renamed")
        rows.append(Row(own, tuple(held.shape), target, tuple(value.shape), fate))

    renamed = dict(zip(network.names(matched.framework), network.names(into), strict=True))
    for name, target in renamed.items():
        plain = matched.held[name]
        put(saved.names[plain], saved.weights[plain], matched.weights[name], target, matched.resized.get(name, ""))
    for name in counters(network.pairs):
        count, own = matched.counts.get(name), saved.names.get(matched.held.get(name, ""), "")
        if count is None:
            if into == TORCH:
                arrays[name] = np.array(0)
                rows.append(Row(own, "", name, (), "filled: 0"))
        elif count or into == TORCH:
            arrays[name] = count
            rows.append(Row(own, (), name, (), "copied" if own == name else "renamed"))
        else:
            rows.append(Row(own, (), "", "", "dropped: 0, which the way back fills in"))
    dropped = [(saved.names[name], saved.weights[name].shape, reason) for name, reason in matched.dropped.items()]
    dropped += [(name, *what) for name, what in saved.beside.items()]
    config = dump_config(network.config)
    if network.parts:  # the positions have the model's grid from now on
        config["model"].pop("pretrained_grid", None)
    meta = saved.meta | {"config": config} | ({"parts": network.parts} if network.parts else {})
    if suffix in PICKLED:
        dropped += [(name, value.shape, f"a {suffix} holds weights only") for name, value in saved.states.items()]
        meta = {key: value for key, value in meta.items() if key not in TRAINING}
    else:
        for name, state in saved.states.items():
            key, _, weight = name.partition(".")
            put(name, state, state, f"{key}.{renamed[weight]}")
    rows += [Row(name, kind, "", "", f"dropped: {reason}") for name, kind, reason in dropped]
    return Conversion(arrays, meta, into, rows)


def _resized(
    saved: StateDict, name: str, weights: Mapping[str, np.ndarray], network: Network
) -> tuple[np.ndarray, dict[str, str]]:
    """The position embedding `name` resized to the model's grid, with a note; any other array unchanged."""
    source, grid = source_grid(saved, weights, name, network.grid, network.config.model.grid), network.grid
    if source in (None, grid):
        return weights[name], {}
    (height, width), (rows, columns) = source, grid
    resized = resize_position_embedding(weights[name], grid, source)
    return resized, {name: f"resized {height}x{width} -> {rows}x{columns}"}

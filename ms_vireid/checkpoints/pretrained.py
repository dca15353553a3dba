"""What `model.pretrained` starts from: an ImageNet backbone, or a re-identification model of any people."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.checkpoints.layouts import CheckpointLayout, torch_name
from ms_vireid.checkpoints.positions import KEY, source_grid
from ms_vireid.checkpoints.state_dict import HEADS, StateDict, mismatch, read_state_dict, recognise, renamed
from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.command.errors import InputError, first_few
from ms_vireid.files.checks import note

OF_FILE = ("pretrained", "pretrained_weights", "pretrained_grid")  # of a model's configuration: which weights, and how
_FREE = ("num_classes", *OF_FILE)  # what an identical network may differ in


@dataclass(frozen=True)
class Pretrained:
    """A file's weights by PyTorch's names of this project. grid: which its user states, (rows, columns) of a ViT's
    patches."""

    saved: StateDict
    layout: CheckpointLayout | None
    weights: dict[str, np.ndarray]
    grid: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        return self.saved.path

    @property
    def is_model(self) -> bool:
        """Whether the file is a whole re-identification model, not a backbone."""
        if "config" in self.saved.meta:
            return "parts" not in self.saved.meta
        return self.layout is not None and not self.layout.backbone

    def source_grid(self, model: tuple[int, int]) -> tuple[int, int] | None:
        """The grid of its position embedding, as `positions.source_grid` tells it; None for weights that are none.
        model: the model's own. Raises InputError if no grid can be told."""
        return source_grid(self.saved, self.weights, "pos_embed", model, self.grid)

    def _configured(self, section: str) -> dict[str, Any]:
        """A section of the configuration that the file carries; {} without one."""
        config = self.saved.meta.get("config", {})
        return config[section] if isinstance(config.get(section), dict) else {}

    def require(self, network: str, targets: Mapping[str, Iterable[int]], advice: str = "") -> None:
        """Raise InputError unless there are float32 and finite weights for all targets, shapes by name, and no others.
        network: in words. advice: begins the reason, if there is one."""
        shapes = {name: tuple(shape) for name, shape in targets.items()}
        problems = [f"{name} is missing" for name in shapes if name not in self.weights]
        problems += [f"{name} is not in the model" for name in self.weights if name not in shapes]
        for name, weight in self.weights.items():
            if name not in shapes:
                continue
            if weight.shape != shapes[name]:
                problems.append(f"{name} is {weight.shape}, the model's {shapes[name]}")
            elif weight.dtype != np.float32:
                problems.append(f"{name} is {weight.dtype}")
            elif not np.isfinite(weight).all():
                problems.append(f"{name} is not finite")
        if problems:
            reason = advice or mismatch(self.weights, shapes)
            listed = first_few(sorted(problems))
            raise InputError(f"{self.path}: does not fit the {network}: {reason}{len(problems)} ({listed})")

    def for_model(
        self,
        model: Mapping[str, Any],
        targets: Mapping[str, Iterable[int]],
        of_identities: tuple[str, ...],
        training_only: tuple[str, ...],
    ) -> dict[str, np.ndarray]:
        """The weights of a whole model to start from; one line is logged that lists what is left out.

        model: its section of the configuration, as plain values. targets: shapes by name. of_identities: beginnings of
        the names that belong to the people trained on. training_only: of those that a file for inference lacks.

        Raises:
            InputError: the file is of another architecture, or its weights do not fit or are not finite.
        """
        own = self._configured("model")
        names = (own["name"],) if isinstance(own.get("name"), str) else (self.layout.model,) if self.layout else ()
        if not names:
            raise InputError(f"{self.path}: its configuration names no model, nor do its weights; use another copy")
        if model["name"] not in names:
            kind = self.layout.title if self.layout else names[0]
            raise InputError(
                f"{self.path}: is of {kind}, model.name is {model['name']}; give a --config of {' or '.join(names)}"
            )
        loaded = {name: w for name, w in self.weights.items() if not name.startswith(of_identities)}
        loaded = {name: w for name, w in loaded.items() if name in targets or not name.startswith(training_only)}
        fresh = [name for name in targets if name.startswith(of_identities)]
        fresh += [name for name in targets if name not in (*loaded, *fresh) and name.startswith(training_only)]
        differing = [
            f"model.{key}={json.dumps(own[key])}" for key in own if key not in _FREE and own[key] != model.get(key)
        ]
        positions = loaded.get("base.pos_embed")
        if positions is not None and positions.shape != tuple(targets.get("base.pos_embed", ())):
            size = self._configured("data").get("image_size")
            differing.append("data.image_size=" + json.dumps(size) if size else "pictures of another size")
        advice = f"it was trained with {first_few(differing)}; " if differing else ""
        wanted = {name: shape for name, shape in targets.items() if name not in fresh}
        Pretrained(self.saved, self.layout, loaded).require(model["name"], wanted, advice)
        left = [name for name in self.weights if name not in loaded]
        kind = self.layout.title if self.layout else model["name"]
        said = f"starts from this model ({kind}), {len(loaded)} weights"
        note(self.path, f"{said}; left out, of other people or for training only: {first_few(sorted({*left, *fresh}))}")
        return loaded


def read_pretrained(
    path: Path, source: str = "", choice: str | None = None, grid: tuple[int, int] | None = None
) -> Pretrained:
    """Read the file, or the folder of a run, of `model.pretrained`.

    Of a stranger's file in no known layout, ImageNet's classifier is left out. source: where ImageNet weights are to be
    had. choice: as `read_state_dict` takes it. grid: as of `Pretrained`. Raises InputError as `read_state_dict` does;
    for a missing file; for a whole model's grid.
    """
    if not path.exists():
        where = f"{source}; or set" if source else "give another, or set"
        raise InputError(f"model.pretrained: no such file {path}; {where} model.pretrained=none")
    saved, layout = recognise(read_state_dict(weight_file(path), choice))
    held, _ = renamed(saved, layout)
    weights = {torch_name(new): saved.weights[name] for new, name in held.items() if not new.endswith(COUNTER)}
    is_foreign = layout is None and "config" not in saved.meta
    if heads := [name for name in weights if is_foreign and name.startswith(HEADS)]:
        note(path, f"left out, as ImageNet's classifier: {first_few(heads)}")
        weights = {name: weight for name, weight in weights.items() if name not in heads}
    file = Pretrained(saved, layout, weights, grid)
    if grid is not None and file.is_model:
        raise InputError(f"{file.path}: is a whole model, whose positions must be the model's; leave {KEY} out")
    return file

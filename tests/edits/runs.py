"""Two training steps and the features after them, of small models, by a backend."""

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mindspore as ms
import numpy as np

from ms_vireid.backends.backend import Backend, Step
from ms_vireid.backends.choosing import backend_named
from ms_vireid.backends.reading import code_of_method
from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.models.base import ReIDModel
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.optimizers.groups import GroupOptimizer
from ms_vireid.search.features import FeatureExtractor
from tests.edits import own_models
from tests.edits.sites import Edit, applied_to_code, apply_to_cells

SIZE = (48, 24)  # of the pictures, (H, W) in pixels
LABELS = np.array([0, 0, 1, 1] * 2, np.int32)
_RESNET = ["model.layers=[1,2,1,1]", "model.width=8"]
_VIT = [
    *("model.patch_size=8", "model.stride=6", "model.embed_dim=16", "model.num_heads=2", "model.depth=2"),
    *("model.dropout=0.1", "model.drop_path=0.2"),
]
_MUN = [*_RESNET, "model.ratios=[2,3]"]
RUNS = {  # recipe, its stage, and what makes it small
    "PMT": ("pmt/sysu.yaml", -1, _VIT),
    "PMT stage 1": ("pmt/sysu.yaml", 0, _VIT),
    "AGW": ("agw/sysu.yaml", 0, [*_RESNET, "model.non_local=[0,1,0,0]"]),
    "MUN": ("mun/sysu.yaml", 0, _MUN),
    "PMT cosine": ("pmt/sysu.yaml", -1, [*_VIT, "stages.1.losses.msel.distance=cosine", "optimizer.clip_norm=0.5"]),
    "AGW wide": (
        "agw/sysu.yaml",
        0,
        [
            *(*_RESNET, "model.non_local=[0,1,0,0]", "model.non_local_width=4", "stages.0.losses.wrt=null"),
            *("stages.0.losses.esd={}", "stages.0.losses.hct.margin=0.3", "stages.0.losses.id.over=modalities"),
        ],
    ),
    "MUN each": (
        "mun/sysu.yaml",
        0,
        [
            *(*_MUN, "model.batch_norm=each", "model.pooling_learned=true", "model.memory=identity"),
            "stages.0.losses.id_a={}",
        ],
    ),
    "MUN X": ("mun/sysu.yaml", 0, [*_MUN, "model.intermediate=X"]),
    "MUN mixed": ("mun/sysu.yaml", 0, [*_MUN, "model.intermediate=mixed"]),
    "MUN syncretic": ("mun/sysu.yaml", 0, [*_MUN, "model.intermediate=syncretic"]),
}
RATE = 2e-4  # AdamW's first steps make a rounding of a small gradient a step of this size
TOLERANCE = 1e-3  # of losses and features: that of the ladder's trajectories


def configuration(run: str, amp: str = "") -> tuple[Config, int]:
    recipe, stage, options = RUNS[run]
    common = ["model.num_classes=3", "train.num_identities=2", "train.num_instances=2", "augmentation.crop_padding=0"]
    common += ["model.pretrained=none"] + [f"train.amp={amp}"] * bool(amp)
    return load_config(CONFIG_ROOT / recipe, [f"data.image_size={list(SIZE)}", *options, *common]), stage


def images() -> np.ndarray:
    """Large blotches, different in each picture."""
    rng = np.random.default_rng(0)
    blotches = rng.normal(size=(len(LABELS), 3, 6, 3)).repeat(8, 2).repeat(8, 3)
    return (blotches + 0.1 * rng.normal(size=blotches.shape)).astype(np.float32)


@cache
def reached(run: str) -> set[str]:
    """Names of the functions and classes that a run reaches."""
    config, stage = configuration(run)
    model = build_model(config)
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances, config.augmentation.parts)
    names = set()
    for cell, method in ((model, "construct"), (loss, "construct"), (optimizer, "construct"), (optimizer, "clip")):
        code = code_of_method(cell, method)
        names |= code.functions.keys() | {name for of in code.parts.values() for name in of}
    return names | {"optimizers.adamw.AdamW.scalars", "optimizers.sgd.SGD.scalars"}


def outcome(run: str, backend: str, edit: Edit | None = None, amp: str = "") -> dict:
    """Train two steps and compute features by a backend, with an edit. Returns losses [2, terms], features, and the
    lines that say what runs as it is written; or {"refused": line}."""
    with TemporaryDirectory() as folder:
        try:
            with nullcontext() if edit is None else applied_to_code(edit, Path(folder)):
                return _outcome(run, backend, edit, amp, Path(folder))
        except InputError as error:
            return {"refused": str(error)}


def _outcome(run: str, backend: str, edit: Edit | None, amp: str, folder: Path) -> dict:
    config, stage = configuration(run if run in RUNS else "AGW", amp)
    ms.set_seed(1)
    model = (build_model(config) if run in RUNS else own_models.MODELS[run]()).set_train()
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances, config.augmentation.parts)
    on_cells = edit is not None and edit.kind in ("subclass", "hook", "evaluation", "frozen")
    cells = [cell for part in (model, loss) for _, cell in part.cells_and_names()]
    early = on_cells and edit.kind == "frozen"
    if early and not apply_to_cells(edit, cells, folder):
        return {"without": "no such cell"}
    optimizer = build_optimizer(model, config)
    if on_cells and not early and not apply_to_cells(edit, [*cells, optimizer], folder):
        return {"without": "no such cell"}
    named = backend_named(backend, amp)
    step = build_step(model, loss, optimizer, named, config.optimizer.clip_norm, loss_scaler(amp))
    return _trained(named, model, optimizer, step)


def _trained(named: Backend, model: ReIDModel, optimizer: GroupOptimizer, step: Step) -> dict:
    """Two steps, and features of a batch."""
    rates = [RATE * group.lr_factor for group in optimizer.groups]
    losses = []
    for number in (1, 2):
        scalars = optimizer.scalars(number, rates)
        losses.append(step(images(), LABELS, 12345 + number, 0.5, scalars).asnumpy())
    extractor = FeatureExtractor(model.set_train(False), named, SIZE, len(LABELS) // 2)
    halves = images()[:4], images()[4:]
    features = [extractor.queue(half, of).read() for half, of in zip(halves, ("visible", "infrared"), strict=True)]
    return {"losses": np.array(losses), "features": np.concatenate(features), "left": list(named.notes)}


def distance(one: dict, other: dict) -> float:
    """The largest difference of losses relative to their scale, or that of the features as vectors relative to their
    length if it is more; infinite where one alone is finite. Of single entries of features, one that depends on the
    sign of a gradient next to zero, which AdamW makes a whole step, would be 1.2e-3 apart."""
    worst = 0.0
    for name in ("losses", "features"):
        a, b = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        finite = [np.isfinite(of).all(axis=1) for of in (a, b)]
        if finite[0].all() != finite[1].all():
            return float("inf")
        # An edit may make NaN, which operators of one device pass on within a step or a picture and of another do not.
        a, b = (of[finite[0] & finite[1]] for of in (a, b))
        if not len(a):
            continue
        if name == "features":
            apart = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-6)
        else:
            apart = (np.abs(a - b) / np.maximum(np.abs(b), 1e-2 * np.abs(b).max() + 1e-6)).max()
        worst = max(worst, float(apart))
    return worst


OF_MODULE = {  # the run of what a model is built with, which no step calls
    **dict.fromkeys(("models.resnet", "models.agw", "optimizers.sgd"), "AGW"),
    **dict.fromkeys(("models.mun", "models.auxiliary_generator", "models.prototypes", "losses.alignment"), "MUN"),
    "models.intermediate": "MUN X",
    "losses.mmd": "MUN",
    "losses.enhanced": "AGW wide",
}
NO_EFFECT = 1e-6  # an edit that changes less is no edit of what is computed


def run_of(edit: Edit) -> str:
    """A run that reaches the edited code."""
    return next((run for run in RUNS if edit.place in reached(run)), OF_MODULE.get(edit.module, "PMT"))


def judge(run: str, edit: Edit | None, backends: list[str]) -> dict:
    """What each backend makes of an edit, or of a model of one's own, beside `eager`: "as edited", "refused: ...",
    "IGNORED ..." or "WRONG ..." with the distance."""
    reference, row = _tried(run, "eager", edit), {"run": run}
    if "error" in reference:  # an edit that no training survives: by no backend
        made = {backend: _tried(run, backend, edit) for backend in backends}
        return row | {name: "as edited" if "losses" not in by else "TRAINS" for name, by in made.items()}
    if "losses" not in reference:
        return row | reference
    if edit is not None:
        row["effect"] = distance(reference, plain(run))
        if row["effect"] < NO_EFFECT:
            return row
    for backend in backends:
        by = _tried(run, backend, edit)
        row[backend] = _verdict(by, reference, None if edit is None else plain(run))
        row[f"{backend}: as written"] = by.get("left", [])
    return row


def _tried(run: str, backend: str, edit: Edit | None) -> dict:
    """As `outcome`, or {"error": line}."""
    try:
        return outcome(run, backend, edit)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


@cache
def plain(run: str) -> dict:
    return outcome(run, "eager")


def _verdict(by: dict, reference: dict, unedited: dict | None) -> str:
    if "refused" in by:
        return f"refused: {by['refused']}"
    if "error" in by:
        return f"FAILS {by['error']}"
    if (apart := distance(by, reference)) <= TOLERANCE:
        return "as edited"
    ignored = unedited is not None and distance(by, unedited) <= TOLERANCE
    return f"{'IGNORED' if ignored else 'WRONG'} {apart:.1e}"

"""What `ms_vireid` offers to programs; docs/python.md shows how. Imports MindSpore once a device is set up."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import (
    FALSE_MATCH_RATE,
    SIMILARITY,
    as_path,
    number_within,
    plain,
    require,
    require_switch,
)
from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.running import in_one_line, project_version
from ms_vireid.config import Config, check_config, dump_config, list_models, load_config
from ms_vireid.data.records import ReIDData
from ms_vireid.evaluation.evaluating import evaluate_corrupted, evaluate_model, threshold_of_others
from ms_vireid.evaluation.protocol import OF_THRESHOLD, ProtocolResult, evaluated, require_choices
from ms_vireid.search.searcher import Searcher
from ms_vireid.search.start import begin, load_trained

if TYPE_CHECKING:
    from ms_vireid.models.base import ReIDModel
    from ms_vireid.search.trained_model import TrainedModel

__all__ = ["InputError", "Searcher", "__version__", "create_model", "evaluate", "list_models"]
__version__ = project_version()
RECIPES = (".yaml", ".yml")
OPTIONS = ("mode", "shots", "direction", "trials", "frost")  # of the protocol and the corruptions
SWITCHES = ("flip", "renormalise", "rerank")


@in_one_line()
def create_model(
    name: str | Path | Config | None = None,
    num_classes: int | None = None,
    pretrained: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    **overrides,
) -> "ReIDModel":
    """Build a model, or load a trained one, on a device. Call it before anything else imports mindspore.

    name: one of `ms_vireid.list_models()`, a recipe's file such as "configs/pmt/sysu.yaml", or a `Config`.
    num_classes: the size of the classifier; a recipe for a public data set knows it.
    pretrained: a file or run folder to start from, as `model.pretrained` takes it; by default weights are random.
    checkpoint: a run folder or weight file of this project, in place of all the above: its model in evaluation mode,
        without the parts that only training needs.
    device: "auto", "CPU", "GPU" or "Ascend".
    overrides: other keys of the configuration's section `model`, and for a model by name also `image_size`, `batch` and
        `parts`, as `ms_vireid.models.create_model` takes them.

    Raises InputError, with one line that says what is wrong, where, and what to do.
    """
    if pretrained is True:
        raise InputError("pretrained True: no weights come with this project; give a file (docs/training.md)")
    if pretrained is not None and pretrained is not False:  # timm's default
        overrides["pretrained"] = pretrained
    if checkpoint is not None:
        if name is not None or num_classes is not None or overrides:
            raise InputError("checkpoint: names the model already; give nothing else but device")
        checkpoint = as_path("checkpoint", checkpoint)
        _, backend = begin(device, "eager", checkpoint)
        (trained,) = load_trained([checkpoint], backend)
        return trained.model
    config = _recipe(name, num_classes, overrides)
    _, backend = begin(device, "eager")
    from ms_vireid.models import build  # imports mindspore: after the device is set up

    model = build.build_model(config) if config else build.create_model(name, num_classes, **overrides)
    backend.accelerate(model)
    return model


def _recipe(name: str | Path | Config | None, num_classes: int | None, overrides: dict) -> Config | None:
    """The configuration that `name` is or names, with the keys of its model that are given; None for a model's name."""
    if isinstance(name, str) and name in list_models():
        return None
    if isinstance(name, str | Path) and Path(name).suffix in RECIPES:
        name, source = load_config(as_path("name", name)), str(name)
    elif isinstance(name, Config):
        source = "name"
    else:
        known = f"one of {', '.join(list_models())}, a recipe's .yaml, or a Config"
        raise InputError(f"name {shown(name)}: must be {known}; give a trained model as checkpoint")
    given = overrides | ({} if num_classes is None else {"num_classes": num_classes})
    tree = dump_config(name)
    return check_config(tree | {"model": tree["model"] | {key: plain(value) for key, value in given.items()}}, source)


@in_one_line()
def evaluate(
    checkpoint: str | Path,
    data_root: str | Path | None = None,
    *,
    data: str | Sequence[str] = (),
    layout: str | None = None,
    device: str = "auto",
    backend: str = "auto",
    tf32: bool = False,
    corrupted: bool = False,
    threshold: float | None = None,
    fmr: float | None = None,
    **options: str | int | bool,
) -> ProtocolResult:
    """Evaluate a checkpoint as the command does.

    data: the name of another set to test on, or that and `data.key=value` for it, as --data takes them.
    layout: how the pictures of one's own folders lie, as --layout (default: the run's).
    threshold, fmr: one of them, as --threshold and --fmr; adds "recall", "precision", "fmr", "dir" and "fpir" (see
    `ms_vireid.evaluation.threshold`).
    options: mode, shots, direction, trials, flip, renormalise, rerank, frost, as on the command line (default: the
    run's).
    Returns `mean` and `std` by metric ("rank1" ... "rank20", "map", "minp"), fractions, the `trials`, and what was
    `evaluated`. Raises InputError for what the command refuses, and TypeError for another option.
    """
    if unknown := sorted(options.keys() - {*OPTIONS, *SWITCHES}):
        raise TypeError(f"evaluate() has no option {', '.join(unknown)}; there are {', '.join(OPTIONS + SWITCHES)}")
    checkpoint = as_path("checkpoint", checkpoint)
    root = None if data_root is None else str(as_path("data_root", data_root))
    another = [data] if isinstance(data, str) else data
    texts = isinstance(another, Sequence) and all(isinstance(word, str) for word in another)
    require(texts, "data", data, "a text or several")
    require(layout is None or isinstance(layout, str), "layout", layout, "a text")
    require_switch("corrupted", corrupted)
    require_switch("tf32", tf32)
    threshold, fmr = (
        value if value is None else number_within(name, value, bounds)
        for name, value, bounds in (("threshold", threshold, SIMILARITY), ("fmr", fmr, FALSE_MATCH_RATE))
    )
    options = {name: plain(value) for name, value in options.items()}
    require(threshold is None or fmr is None, "fmr", fmr, "left out where threshold is given")
    if options.get("frost") is not None:
        options["frost"] = str(as_path("frost", options["frost"]))
        require(corrupted, "corrupted", corrupted, "True where frost is given")
    _, backend = begin(device, backend, checkpoint, tf32=tf32)
    (trained,) = load_trained([checkpoint], backend)
    return Evaluation(trained, root, another, layout, corrupted, threshold, fmr, **options).result()


class Evaluation:
    """A model, and how and on what it is evaluated."""

    def __init__(
        self,
        trained: "TrainedModel",
        data_root: str | None,
        another: Sequence[str],
        layout: str | None,
        corrupted: bool,
        threshold: float | None,
        fmr: float | None,
        **options,
    ):
        """Read the data set to test the model on (see `read_test_set`), and apply the options that are not None. Raises
        InputError for an option that would change nothing, and as `_require_similarities` and `_require_others`."""
        config, data, trained_on = trained.test_set(data_root, another, layout)
        options = {name: value for name, value in options.items() if value is not None}
        tree = dump_config(config)
        tree["evaluation"] |= options
        self.trained, self.data, self.config = trained, data, check_config(tree, "options")
        self.corrupted, self.threshold, self.fmr = corrupted, threshold, fmr
        if corrupted and "trials" in options:
            problem = "corrupted pictures are searched only in the protocol's first trial; leave it out"
            raise InputError(f"--trials: {problem}")
        require_choices(options, data, "--")
        if threshold is not None or fmr is not None:
            _require_similarities(self.config)
        if fmr is not None:
            _require_others(data, trained_on)

    def protocol(self) -> dict:
        """What is evaluated, in the words of a result."""
        return evaluated(self.config, self.data.protocol, self.corrupted, self.trained.config.data.name)

    def result(self) -> ProtocolResult:
        evaluate = evaluate_corrupted if self.corrupted else evaluate_model
        inputs, threshold = (self.trained.extractor, self.data, self.config.evaluation), self.threshold
        accepted = {} if threshold is None else {"threshold": threshold}
        if self.fmr is not None:
            chosen = threshold_of_others(*inputs, self.fmr)
            threshold = chosen.threshold
            values = threshold, self.fmr, chosen.people, chosen.pairs, chosen.accepted
            accepted = dict(zip(OF_THRESHOLD, values, strict=True))
        result = evaluate(*inputs, threshold=threshold)
        return dataclasses.replace(result, evaluated=self.protocol() | accepted)


def _require_similarities(config: Config) -> None:
    """Raise InputError unless pictures are ranked by the cosines that a threshold is of."""
    if config.evaluation.rerank:
        raise InputError("--threshold, --fmr: need cosine similarities; --rerank replaces them; leave one of them out")
    if config.evaluation.flip and not config.evaluation.renormalise:
        raise InputError("--threshold, --fmr: need cosine similarities; with --flip give --renormalise as well")


def _require_others(data: ReIDData, trained_on: bool) -> None:
    """Raise InputError unless the set has people who are not tested on, and on whom the model was not trained."""
    if trained_on:
        problem = f"the model was trained on all people of {data.root} but those that it is tested on"
        remedy = "choose it on another set, --data NAME --data-root D, and give the number here with --threshold"
        raise InputError(f"--fmr: {problem}, and a threshold is chosen on neither; {remedy}")
    if not len(data.train):
        problem = f"all people of {data.root} are in the test set, but a threshold is chosen on others"
        raise InputError(f"--fmr: {problem}; keep half of them for it, --data {data.name} data.test_fraction=0.5")

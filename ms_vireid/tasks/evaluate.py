"""The evaluation of checkpoints, from the command line and as `ms_vireid.evaluate(...)` from Python."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ms_vireid.command.arguments import (
    FALSE_MATCH_RATE,
    SIMILARITY,
    as_path,
    number_within,
    plain,
    require,
    require_switch,
)
from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import in_one_line
from ms_vireid.config import Config, check_config, dump_config
from ms_vireid.data.corruptions import corruption_sheet
from ms_vireid.data.digests import record
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.run_folder import RunFolder, check_outside_data
from ms_vireid.evaluation.evaluating import evaluate_corrupted, evaluate_model, frost_photographs, threshold_of_others
from ms_vireid.evaluation.metrics_table import AT_THRESHOLD, format_table
from ms_vireid.evaluation.protocol import OF_THRESHOLD, ProtocolResult, evaluated, require_choices
from ms_vireid.evaluation.ranking import mean_and_deviation
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import atomic_write, check_output, write_json
from ms_vireid.search.start import begin, checkpoint_file, files_read, load_trained, start_inference

if TYPE_CHECKING:
    from ms_vireid.backends.backend import Backend
    from ms_vireid.search.trained_model import TrainedModel

MEAN = "mean"
OPTIONS = ("mode", "shots", "direction", "trials", "frost")  # of the protocol and the corruptions
SWITCHES = ("flip", "renormalise", "rerank")


class Acceptance(NamedTuple):
    """The similarity from which on a pair is accepted, or the false-match rate to choose it for, or neither."""

    threshold: float | None = None
    fmr: float | None = None


class Evaluation(NamedTuple):
    """A model, and how and on what it is evaluated."""

    trained: "TrainedModel"
    config: Config
    data: ReIDData
    corrupted: bool
    acceptance: Acceptance

    def protocol(self) -> dict:
        """What is evaluated, in the words of a result."""
        return evaluated(self.config, self.data.protocol, self.corrupted, self.trained.config.data.name)

    def result(self) -> ProtocolResult:
        evaluate = evaluate_corrupted if self.corrupted else evaluate_model
        inputs = self.trained.extractor, self.data, self.config.evaluation
        threshold, fmr = self.acceptance
        accepted = {} if threshold is None else {"threshold": threshold}
        if fmr is not None:
            chosen = threshold_of_others(*inputs, fmr)
            threshold = chosen.threshold
            values = threshold, fmr, chosen.people, chosen.pairs, chosen.accepted
            accepted = dict(zip(OF_THRESHOLD, values, strict=True))
        result = evaluate(*inputs, threshold=threshold)
        return dataclasses.replace(result, evaluated=self.protocol() | accepted)


def main(arguments: argparse.Namespace) -> None:
    checkpoints = arguments.checkpoint
    files = [checkpoint_file(path).resolve() for path in checkpoints]
    if twice := next((path for path, file in zip(checkpoints, files, strict=True) if files.count(file) > 1), None):
        raise InputError(f"--checkpoint {twice}: is given twice; give each once")
    backend = start_inference(arguments, *checkpoints)
    options = {name: getattr(arguments, name) for name in OPTIONS}
    options |= {name: True for name in SWITCHES if getattr(arguments, name)}
    where = arguments.data_root, arguments.data, arguments.layout
    acceptance = Acceptance(arguments.threshold, arguments.fmr)
    how = options, arguments.corrupted, acceptance
    evaluations = [_prepare(path, backend, *where, *how) for path in checkpoints]
    _require_alike(checkpoints, evaluations)
    trained_roots = [one.trained.trained_root for one in evaluations]
    reads = [*files_read(*checkpoints), *(one.config.evaluation.frost for one in evaluations)]
    for option, output in (("--json", arguments.json), ("--corruption-sheet", arguments.corruption_sheet)):
        check_output(output, option, reads=reads)
        for one in evaluations:
            check_outside_data(output, option, one.data, *(RunFolder(file.parent) for file in files))
        reads.append(output)
    if arguments.corruption_sheet:
        _draw_corruptions(evaluations[0], arguments.corruption_sheet)
    names = [checkpoints[0].stem] if len(checkpoints) == 1 else list(map(str, checkpoints))
    results = {}
    for name, one in zip(names, evaluations, strict=True):
        try:
            results[name] = _announced_result(one)
        except KeyboardInterrupt:
            done = f"{len(results)} of {len(names)} were evaluated" if results else "nothing was evaluated"
            say(f"stopped; {done}", error=True)
            raise
    if any(result.evaluated["rerank"] for result in results.values()):
        say("note: re-ranked: not to be compared with the papers' tables")
    rows = {name: result.mean for name, result in results.items()}
    deviations = {name: result.std for name, result in results.items() if len(result.trials) > 1}
    if len(results) > 1:
        rows[MEAN], deviations[MEAN] = mean_and_deviation(list(rows.values()))
        say(f"mean: over the {len(results)} checkpoints, ± standard deviation")
    say(*format_table(rows, deviations).split("\n"))
    if acceptance != Acceptance():
        say(*format_table(rows, deviations, AT_THRESHOLD).split("\n"))
    if arguments.json:
        runs = [
            {
                "checkpoint": str(path),
                "sha256": file_checksum(one.trained.path),
                "data_root": str(one.data.root.resolve()),
                "trained_root": trained_root,
            }
            | result.as_dict()
            for path, result, one, trained_root in zip(
                checkpoints, results.values(), evaluations, trained_roots, strict=True
            )
        ]
        several = {"mean": rows[MEAN], "std": deviations[MEAN], "runs": runs} if len(runs) > 1 else None
        write_json(arguments.json, several or runs[0])


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
    """Evaluate a checkpoint as the command does; called as `ms_vireid.evaluate(...)`.

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
    return _prepare(checkpoint, backend, root, another, layout, options, corrupted, Acceptance(threshold, fmr)).result()


def _prepare(
    checkpoint: Path,
    backend: "Backend",
    data_root: str | None,
    another: Sequence[str],
    layout: str | None,
    options: dict,
    corrupted: bool,
    acceptance: Acceptance,
) -> Evaluation:
    """Load the model, read the data set to test it on (see `read_test_set`), and apply the options that are not None.
    Raises InputError for an option that would change nothing, and as `_require_similarities` and `_require_others`."""
    (trained,) = load_trained([checkpoint], backend)
    options = {name: value for name, value in options.items() if value is not None}
    config, data, trained_on = trained.test_set(data_root, another, layout)
    tree = dump_config(config)
    tree["evaluation"] |= options
    config = check_config(tree, "options")
    if corrupted and "trials" in options:
        raise InputError("--trials: corrupted pictures are searched only in the protocol's first trial; leave it out")
    require_choices(options, data, "--")
    if acceptance != Acceptance():
        _require_similarities(config)
    if acceptance.fmr is not None:
        _require_others(data, trained_on)
    return Evaluation(trained, config, data, corrupted, acceptance)


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


def _require_alike(checkpoints: Sequence[Path], evaluations: Sequence[Evaluation]) -> None:
    """Raise InputError unless all are evaluated in the same way and on the same pictures, except for RegDB's split:
    otherwise they have no mean."""
    first, *others = (one.protocol() for one in evaluations)
    for path, other in zip(checkpoints[1:], others, strict=True):
        keys = sorted((first.keys() | other.keys()) - {"split"})
        if differing := [key for key in keys if first.get(key) != other.get(key)]:
            shown = ", ".join(f"{key} {first.get(key, 'none')} and {other.get(key, 'none')}" for key in differing)
            raise InputError(
                f"{checkpoints[0]} and {path}: were evaluated differently ({shown}); give the option, or one alone"
            )
    pictures: dict[object, tuple[Path, str]] = {}  # by split: the first checkpoint's
    for path, one in zip(checkpoints, evaluations, strict=True) if len(evaluations) > 1 else ():
        digests = record(one.data.test.paths)
        other, expected = pictures.setdefault(one.protocol().get("split"), (path, digests))
        if digests != expected:
            problem = "are tested on different pictures, so they have no mean"
            raise InputError(f"{other} and {path}: {problem}; give --data-root for both, or each alone")


def _announced_result(evaluation: Evaluation) -> ProtocolResult:
    """Evaluate, and print what was left out of the checkpoint, what was evaluated, and on how much."""
    if left_out := evaluation.trained.left_out:
        parts = ", ".join(sorted({name.partition(".")[0] for name in left_out}))
        say(f"note: {len(left_out)} parameters that only training needs are left out ({parts})")
    result = evaluation.result()
    if evaluation.data.name == "folder":
        say(evaluation.data.tested_on())
    words = (f"{key.replace('_', ' ')} {_word(value)}" for key, value in result.evaluated.items())
    say(f"evaluated: {', '.join(words)}")
    sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
    trials = f"{len(result.trials)} trial{'s' if len(result.trials) > 1 else ''}"
    say(f"{sizes} in {trials}; checksum of what was drawn {result.checksum}")
    return result


def _draw_corruptions(evaluation: Evaluation, path: Path) -> None:
    """Draw the first visible test picture in every corruption."""
    test = evaluation.data.test
    shown = evaluation.trained.load_image(test, int(test.infrared.argmin()))
    frost = frost_photographs(evaluation.config.evaluation)
    sheet = corruption_sheet(shown, counter_generator("corruption", 0), frost)
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

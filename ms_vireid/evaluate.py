"""Evaluate checkpoints under their data set's protocol: every metric as mean and deviation over the trials, and over
several checkpoints, of other seeds or of RegDB's splits, as mean and deviation over them."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import as_path, require, require_switch
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import DIRECTIONS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, in_one_line, run
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import check_output, whole, write_json

if TYPE_CHECKING:
    from ms_vireid.config import Config
    from ms_vireid.data.records import ReIDData
    from ms_vireid.evaluation.protocol import ProtocolResult
    from ms_vireid.inference.trained import TrainedModel

SWITCHES = ("flip", "renormalise", "rerank")
MEAN = "mean"
OPTIONS = ("mode", "shots", "direction", "trials", "frost")  # of the protocol and the corruptions


def main() -> None:
    parser = Parser(__doc__)
    add_checkpoint(parser, "; several: also their mean and deviation", nargs="+")
    add_inference(parser)
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")
    parser.add_argument("--mode", choices=("all", "indoor"), help="SYSU-MM01's search mode (default: the run's)")
    parser.add_argument("--shots", type=int, choices=(1, 10), help="SYSU-MM01's gallery images per identity and camera")
    parser.add_argument("--direction", choices=DIRECTIONS, help="which modality queries (default: the run's)")
    parser.add_number("evaluate --trials", help="SYSU-MM01's and LLCM's galleries (default: the run's)")
    parser.add_argument(
        "--corrupted", action="store_true", help="corrupt the visible pictures (SYSU-MM01-C, RegDB-C): ten evaluations"
    )
    parser.add_argument("--frost", metavar="D", help="photographs of frost for corrupted pictures (default: drawn)")
    parser.add_argument("--flip", action="store_true", help="add the features of each picture's mirror image")
    parser.add_argument("--renormalise", action="store_true", help="scale the sums of --flip to unit length again")
    parser.add_argument(
        "--rerank", action="store_true", help="re-rank by k-reciprocal encoding, which is not in the papers' tables"
    )
    parser.add_argument(
        "--corruption-sheet",
        type=Path,
        metavar="F",
        help="also draw a visible test picture in every corruption, as .png",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    arguments = parser.parse_args()
    check_output(arguments.json, "--json")
    check_output(arguments.corruption_sheet, "--corruption-sheet", (".png",))

    if arguments.frost and not (arguments.corrupted or arguments.corruption_sheet):
        raise InputError("--frost: only with --corrupted or --corruption-sheet")
    from ms_vireid.engine.run_folder import RunFolder, check_apart_from_data
    from ms_vireid.evaluation.protocol import mean_and_deviation
    from ms_vireid.evaluation.table import format_table
    from ms_vireid.inference import checkpoint_file, files_read, start_inference

    given = arguments.checkpoint
    files = [checkpoint_file(path).resolve() for path in given]
    if twice := next((path for path, file in zip(given, files, strict=True) if files.count(file) > 1), None):
        raise InputError(f"--checkpoint {twice}: is given twice; give each once")
    program = start_inference(arguments, *given)
    options = {name: getattr(arguments, name) for name in OPTIONS}
    options |= {name: True for name in SWITCHES if getattr(arguments, name)}
    prepared = [_prepared(path, program, arguments.data_root, options, arguments.corrupted) for path in given]
    _require_alike(given, prepared, arguments.corrupted)
    reads = [*files_read(*given), *(config.evaluation.frost for _, config, _ in prepared)]
    for option, output in (("--json", arguments.json), ("--corruption-sheet", arguments.corruption_sheet)):
        check_output(output, option, reads=reads)
        for _, _, data in prepared:
            check_apart_from_data(output, option, data, *(RunFolder(file.parent) for file in files))
        reads.append(output)
    if arguments.corruption_sheet:
        _draw_corruptions(*prepared[0][1:], arguments.corruption_sheet)
    names = [given[0].stem] if len(given) == 1 else list(map(str, given))
    results = {}
    for name, (trained, config, data) in zip(names, prepared, strict=True):
        if trained.left_out:
            parts = ", ".join(sorted({left.partition(".")[0] for left in trained.left_out}))
            say(f"note: {len(trained.left_out)} parameters that only training needs are left out ({parts})")
        try:
            results[name] = result = _result(trained, config, data, arguments.corrupted)
        except KeyboardInterrupt:
            done = f"{len(results)} of {len(names)} were evaluated" if results else "nothing was evaluated"
            say(f"stopped; {done}", error=True)
            raise
        say(f"evaluated: {', '.join(f'{key} {_word(value)}' for key, value in result.evaluated.items())}")
        sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
        trials = f"{len(result.trials)} trial{'s' if len(result.trials) > 1 else ''}"
        say(f"{sizes} in {trials}; checksum of what was drawn {result.checksum}")
    if result.evaluated["rerank"]:
        say("note: re-ranked: not to be compared with the papers' tables")
    rows = {name: result.mean for name, result in results.items()}
    deviations = {name: result.std for name, result in results.items() if len(result.trials) > 1}
    if len(results) > 1:
        mean, std = mean_and_deviation(list(rows.values()))
        rows[MEAN], deviations[MEAN] = mean, std
        say(f"mean: over the {len(results)} checkpoints, ± standard deviation")
    say(*format_table(rows, deviations).split("\n"))
    if arguments.json:
        sums = [file_checksum(trained.path) for trained, *_ in prepared]
        runs = [
            {"checkpoint": name, "sha256": digest} | result.as_dict()
            for (name, result), digest in zip(results.items(), sums, strict=True)
        ]
        several = {"mean": rows[MEAN], "std": deviations[MEAN], "runs": runs} if len(runs) > 1 else None
        write_json(arguments.json, several or runs[0])


@in_one_line()
def evaluate(
    checkpoint: str | Path,
    data_root: str | Path | None = None,
    *,
    device: str = "auto",
    program: str = "auto",
    tf32: bool = False,
    corrupted: bool = False,
    **options: str | int | bool,
) -> "ProtocolResult":
    """What the command of this name computes, `ms_vireid.evaluate(...)` from Python.

    options: mode, shots, direction, trials, flip, renormalise, rerank, frost, as on the command line; others are as in
    the run.
    Returns `mean` and `std` by metric ("rank1" ... "rank20", "map", "minp"), fractions, the `trials`, and what was
    `evaluated`. Raises InputError for what the command refuses, and TypeError for another option.
    """
    if unknown := sorted(options.keys() - {*OPTIONS, *SWITCHES}):
        raise TypeError(f"evaluate() has no option {', '.join(unknown)}; there are {', '.join(OPTIONS + SWITCHES)}")
    from ms_vireid.inference import begin

    checkpoint = as_path("checkpoint", checkpoint)
    root = None if data_root is None else str(as_path("data_root", data_root))
    require_switch("corrupted", corrupted)
    require_switch("tf32", tf32)
    if options.get("frost") is not None:
        options["frost"] = str(as_path("frost", options["frost"]))
        require(corrupted, "corrupted", corrupted, "True where frost is given")
    _, program = begin(device, program, checkpoint, tf32=tf32)
    return _result(*_prepared(checkpoint, program, root, options, corrupted), corrupted)


def _require_alike(given: Sequence[Path], prepared: "Sequence[tuple]", corrupted: bool) -> None:
    """Raise InputError unless all are evaluated in one way, RegDB's split aside: they have no mean otherwise."""
    from ms_vireid.evaluation.protocol import evaluated

    first, *others = (evaluated(config, data.protocol, corrupted) for _, config, data in prepared)
    for path, other in zip(given[1:], others, strict=True):
        if differing := [
            key for key in first.keys() | other.keys() if key != "split" and first.get(key) != other.get(key)
        ]:
            shown = ", ".join(
                f"{key} {first.get(key, 'none')} and {other.get(key, 'none')}" for key in sorted(differing)
            )
            raise InputError(
                f"{given[0]} and {path}: are evaluated in two ways ({shown}); give the option, or one alone"
            )


def _prepared(
    checkpoint: Path, program: str, data_root: str | None, options: dict, corrupted: bool
) -> "tuple[TrainedModel, Config, ReIDData]":
    """The model, its configuration with the options that are not None, and the data set; refuses idle options."""
    from ms_vireid.config import check_config, dump_config
    from ms_vireid.evaluation.protocol import require_choices
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([checkpoint], program)
    given = {name: value for name, value in options.items() if value is not None}
    tree = dump_config(trained.config)
    tree["evaluation"] |= given
    config = check_config(tree, "options")
    data = trained.read_data(data_root)
    if corrupted and "trials" in given:
        raise InputError("--trials: corrupted pictures are searched in the protocol's first trial alone; leave it out")
    require_choices(given, data, "--")
    return trained, config, data


def _result(trained: "TrainedModel", config: "Config", data: "ReIDData", corrupted: bool) -> "ProtocolResult":
    from ms_vireid.evaluation.protocol import evaluated
    from ms_vireid.inference.evaluating import evaluate_corrupted, evaluate_model

    result = (evaluate_corrupted if corrupted else evaluate_model)(trained.extractor, data, config.evaluation)
    return dataclasses.replace(result, evaluated=evaluated(config, data.protocol, corrupted))


def _draw_corruptions(config: "Config", data: "ReIDData", path: Path) -> None:
    from ms_vireid.data.corruptions import corruption_sheet
    from ms_vireid.data.randomness import counter_generator
    from ms_vireid.data.transforms import load_image
    from ms_vireid.inference.evaluating import frost_photographs

    shown = load_image(data.test.paths[data.test.infrared.argmin()], config.data.image_size)
    sheet = corruption_sheet(shown, counter_generator("corruption", 0), frost_photographs(config.evaluation))
    with whole(path) as temporary:
        sheet.save(temporary, "PNG")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


class _Callable(ModuleType):
    """This module, so that `ms_vireid.evaluate` is the command's module and the function, in whichever order both are
    asked for."""

    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    run(main)

"""Evaluate checkpoints under their data set's protocol, and print every metric's mean and deviation over the trials.
For several checkpoints, such as seeds or RegDB's splits, also print mean and deviation over them."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.command.arguments import FALSE_MATCH_RATE, SIMILARITY, Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import DIRECTIONS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, run
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import atomic_write, check_output, write_json

if TYPE_CHECKING:
    from ms_vireid.api import Evaluation
    from ms_vireid.evaluation.protocol import ProtocolResult


def main() -> None:
    parser = Parser(__doc__)
    add_checkpoint(parser, "; for several, also mean and deviation", nargs="+")
    add_inference(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar=("NAME", "data.key=value"),
        help="test on another set, under its protocol: sysu_mm01, regdb, llcm, synthetic or folder (everybody, unless "
        "the model was trained on them), with its data.trial, data.test_fraction, data.layout or data.synthetic.*",
    )
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")
    parser.add_argument(
        "--layout", metavar="L", help="how the paths in your own folders say who is in the pictures, as data.layout"
    )
    parser.add_argument("--mode", choices=("all", "indoor"), help="SYSU-MM01's search mode (default: the run's)")
    parser.add_argument("--shots", type=int, choices=(1, 10), help="SYSU-MM01's gallery images per identity and camera")
    parser.add_argument("--direction", choices=DIRECTIONS, help="which modality is searched with (default: the run's)")
    parser.add_number(
        "--trials",
        Bounds(1, 1000, "as evaluation.trials; SYSU-MM01's protocol has 10"),
        help="how many galleries SYSU-MM01 and LLCM draw (default: the run's)",
    )
    parser.add_argument(
        "--corrupted", action="store_true", help="corrupt the visible pictures (SYSU-MM01-C, RegDB-C): ten evaluations"
    )
    parser.add_argument(
        "--frost", metavar="D", help="folder of photographs of frost, for corrupted pictures (default: frost is drawn)"
    )
    parser.add_argument("--flip", action="store_true", help="add the features of each picture's mirror image")
    parser.add_argument("--renormalise", action="store_true", help="scale the sums of --flip to unit length again")
    parser.add_argument(
        "--rerank", action="store_true", help="re-rank by k-reciprocal encoding, which is not in the papers' tables"
    )
    parser.add_number(
        "--threshold",
        SIMILARITY,
        metavar="T",
        help="also measure a search that accepts similarities of T or more: recall, precision, false-match rate (FMR), "
        "and open-set identification (DIR, FPIR)",
    )
    parser.add_number(
        "--fmr",
        FALSE_MATCH_RATE,
        metavar="R",
        help="the same, at the threshold for this false-match rate, chosen on the training people of --data, which "
        "must not be the model's own set",
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
    if arguments.threshold is not None and arguments.fmr is not None:
        raise InputError("--fmr: chooses a threshold, and --threshold gives one; leave one of them out")
    _evaluate(arguments)


def _evaluate(arguments: Namespace) -> None:
    evaluations = _load(arguments)
    from ms_vireid.data.digests import pictures_checksum

    _require_alike(evaluations)
    _check_outputs(arguments, evaluations.values())
    described = [
        {"checkpoint": str(path), "sha256": file_checksum(one.trained.path), "data_root": str(one.data.root.resolve())}
        | {"trained_root": one.trained.trained_root, "pictures": pictures_checksum(one.data.test)}
        for path, one in evaluations.items()
    ]
    if arguments.corruption_sheet:
        _draw_corruptions(next(iter(evaluations.values())), arguments.corruption_sheet)
    results = _results(evaluations)
    mean, deviation = _print_table(results, with_threshold=(arguments.threshold, arguments.fmr) != (None, None))
    if arguments.json:
        runs = [about | result.as_dict() for about, result in zip(described, results.values(), strict=True)]
        write_json(arguments.json, {"mean": mean, "std": deviation, "runs": runs} if len(runs) > 1 else runs[0])


def _load(arguments: Namespace) -> "dict[Path, Evaluation]":
    """Load the models and read their test sets; by checkpoint, each of which must be another file."""
    with at_once():
        from ms_vireid.api import OPTIONS, SWITCHES, Evaluation
        from ms_vireid.search.start import start_inference

    checkpoints = arguments.checkpoint
    files = [weight_file(path).resolve() for path in checkpoints]
    if twice := next((path for path, file in zip(checkpoints, files, strict=True) if files.count(file) > 1), None):
        raise InputError(f"--checkpoint {twice}: is given twice; give each once")
    options = {name: getattr(arguments, name) for name in OPTIONS}
    options |= {name: True for name in SWITCHES if getattr(arguments, name)}
    tested_on = arguments.data_root, arguments.data, arguments.layout
    measured = arguments.corrupted, arguments.threshold, arguments.fmr
    models = zip(checkpoints, start_inference(arguments, *checkpoints), strict=True)
    return {path: Evaluation(trained, *tested_on, *measured, **options) for path, trained in models}


def _require_alike(evaluations: "dict[Path, Evaluation]") -> None:
    """Raise InputError unless all are evaluated in the same way and on the same pictures, except for RegDB's split:
    otherwise they have no mean."""
    if len(evaluations) == 1:
        return
    from ms_vireid.data.digests import pictures_checksum

    (first_path, first), *others = ((path, one.protocol()) for path, one in evaluations.items())
    for path, other in others:
        keys = sorted((first.keys() | other.keys()) - {"split"})
        if differing := [key for key in keys if first.get(key) != other.get(key)]:
            shown = ", ".join(f"{key} {first.get(key, 'none')} and {other.get(key, 'none')}" for key in differing)
            raise InputError(
                f"{first_path} and {path}: were evaluated differently ({shown}); give the option, or one alone"
            )
    pictures: dict[object, tuple[Path, str]] = {}  # by split: the first checkpoint's
    for path, one in evaluations.items():
        checksum = pictures_checksum(one.data.test)
        other, expected = pictures.setdefault(one.protocol().get("split"), (path, checksum))
        if checksum != expected:
            problem = "are tested on different pictures, so they have no mean"
            raise InputError(f"{other} and {path}: {problem}; give --data-root for both, or each alone")


def _check_outputs(arguments: Namespace, evaluations: "Iterable[Evaluation]") -> None:
    """Raise InputError for an output that is read too, or is given twice."""
    from ms_vireid.engine.run_folder import RunFolder, check_outside_data
    from ms_vireid.search.start import files_read

    reads = [*files_read(*arguments.checkpoint), *(one.config.evaluation.frost for one in evaluations)]
    runs = [RunFolder(weight_file(path).resolve().parent) for path in arguments.checkpoint]
    for option, output in (("--json", arguments.json), ("--corruption-sheet", arguments.corruption_sheet)):
        check_output(output, option, reads=reads)
        for one in evaluations:
            check_outside_data(output, option, one.data, *runs)
        reads.append(output)


def _results(evaluations: "dict[Path, Evaluation]") -> "dict[str, ProtocolResult]":
    """Evaluate in turn, and print what was evaluated; by the names of the table's rows."""
    results = {}
    for path, one in evaluations.items():
        try:
            results[str(path) if len(evaluations) > 1 else path.stem] = _announced_result(one)
        except KeyboardInterrupt:
            done = f"{len(results)} of {len(evaluations)} were evaluated" if results else "nothing was evaluated"
            say(f"stopped; {done}", error=True)
            raise
    if any(result.evaluated["rerank"] for result in results.values()):
        say("note: re-ranked: not to be compared with the papers' tables")
    return results


def _announced_result(evaluation: "Evaluation") -> "ProtocolResult":
    """Evaluate, and print what was left out of the checkpoint, what was evaluated, and on how much."""
    if left_out := evaluation.trained.left_out:
        parts = ", ".join(sorted({name.partition(".")[0] for name in left_out}))
        say(f"note: {len(left_out)} parameters that only training needs are left out ({parts})")
    result = evaluation.result()
    if evaluation.data.name == "folder":
        say(evaluation.data.tested_on())
    said = {name: {True: "yes", False: "no"}[v] if isinstance(v, bool) else v for name, v in result.evaluated.items()}
    say("evaluated: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items()))
    sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
    trials = f"{len(result.trials)} trial{'s' if len(result.trials) > 1 else ''}"
    say(f"{sizes} in {trials}; checksum of what was drawn {result.checksum}")
    return result


def _print_table(results: "dict[str, ProtocolResult]", with_threshold: bool) -> tuple[dict, dict]:
    """Print a row for each result, and for several their mean. Returns mean and deviation over the results."""
    from ms_vireid.evaluation.metrics_table import AT_THRESHOLD, COLUMNS, format_table
    from ms_vireid.evaluation.ranking import mean_and_deviation

    rows = {name: result.mean for name, result in results.items()}
    deviations = {name: result.std for name, result in results.items() if len(result.trials) > 1}
    mean, deviation = mean_and_deviation(list(rows.values()))
    if len(results) > 1:
        rows["mean"], deviations["mean"] = mean, deviation
        say(f"mean: over the {len(results)} checkpoints, ± standard deviation")
    for columns in (COLUMNS, AT_THRESHOLD) if with_threshold else (COLUMNS,):
        say(*format_table(rows, deviations, columns).split("\n"))
    return mean, deviation


def _draw_corruptions(evaluation: "Evaluation", path: Path) -> None:
    """Draw the first visible test picture in every corruption."""
    from ms_vireid.data.corruptions import corruption_sheet, read_photographs
    from ms_vireid.data.randomness import counter_generator

    test = evaluation.data.test
    shown = evaluation.trained.load_image(test, int(test.infrared.argmin()))
    frost = read_photographs(evaluation.config.evaluation.frost)
    sheet = corruption_sheet(shown, counter_generator("corruption", 0), frost)
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


if __name__ == "__main__":
    run(main)

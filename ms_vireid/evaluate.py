"""Evaluate checkpoints under their data set's protocol, and print every metric's mean and deviation over the trials.
For several checkpoints, such as seeds or RegDB's splits, also print mean and deviation over them."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import FALSE_MATCH_RATE, SIMILARITY, Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import DIRECTIONS
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, run, work
from ms_vireid.files.writing import check_output

if TYPE_CHECKING:
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
    work("ms_vireid.tasks.evaluate").main(arguments)


class _Callable(ModuleType):
    """This module, which is also a function: `ms_vireid.evaluate` may mean either, whichever is imported first."""

    def __call__(self, *arguments, **options) -> "ProtocolResult":
        """As `ms_vireid.tasks.evaluate.evaluate`."""
        return work("ms_vireid.tasks.evaluate").evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    run(main)

"""Write one HTML page about a run: result, curves, similarities, best and worst queries, Grad-CAM, recipe.

The page is self-contained and opens offline. Needs `pip install -e '.[viz]'`. From results of evaluate.py --json, write
one table instead: what each model was trained on, and its metrics on each data set that it was tested on.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_inference, require_extra, run, work
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    what = "run folder of train.py, or the .json files of evaluate.py --json"
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help=what)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="the .html file to write (default: RUN/report.html), or the table's .md",
    )
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: where the run had it)")
    parser.add_number(
        "--queries",
        Bounds(0, 50, "a page shows twice as many, and a browser must open it"),
        default=3,
        help="how many of the best and of the worst queries to show, with Grad-CAM of two each; 0: no pictures of "
        "people",
    )
    add_inference(parser)
    arguments = parser.parse_args()

    if all(path.suffix.lower() == ".json" for path in arguments.run):
        work("ms_vireid.ablations.across").main(arguments)
        return
    if len(arguments.run) > 1:
        raise InputError(f"{arguments.run[1]}: give one run folder, or .json files of evaluate.py --json alone")
    (arguments.run,) = arguments.run
    require_extra("report.py", "viz", "jinja2", "matplotlib")
    check_output(arguments.output, suffixes=(".html",))
    work("ms_vireid.tasks.report").main(arguments)


if __name__ == "__main__":
    run(main)

"""Write one HTML page about a run: result, curves, similarities, best and worst queries, Grad-CAM, recipe.

The page is self-contained and opens offline. Needs `pip install -e '.[viz]'`. From results of evaluate.py --json, write
one table instead: what each model was trained on, and its metrics on each data set that it was tested on.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_inference, require_extra, run
from ms_vireid.files.writing import check_derived, check_output, write_text

if TYPE_CHECKING:
    from ms_vireid.visualization.page import RunView


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
        parser.refuse_others(arguments, "a table of results shows no pictures", "RUN", "--output", "--device")
        _tabulate(arguments)
        return
    if len(arguments.run) > 1:
        raise InputError(f"{arguments.run[1]}: give one run folder, or .json files of evaluate.py --json alone")
    (arguments.run,) = arguments.run
    require_extra("report.py", "viz", "jinja2", "matplotlib")
    check_output(arguments.output, suffixes=(".html",))
    _write_page(arguments)


def _tabulate(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.ablations.across import TITLE, across_sets
        from ms_vireid.evaluation.metrics_table import aligned, markdown

    check_output(arguments.output, suffixes=(".md",), reads=arguments.run)
    headings, rows = across_sets(arguments.run)
    say(TITLE, *aligned(headings, rows, left=2).split("\n"))
    if arguments.output:
        write_text(arguments.output, "\n".join([f"# {TITLE}", "", *markdown(headings, rows)]) + "\n")
        say(f"written: {arguments.output}")


def _write_page(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.engine.run_folder import RunFolder
        from ms_vireid.visualization.page import MARK, RunView, render

    view = RunView(RunFolder(arguments.run))
    output = arguments.output or arguments.run / PAGE
    check_output(output, suffixes=(".html",), reads=view.folder.files)
    if not arguments.output:
        check_derived(output, MARK, "remove it, or choose an --output")
    if unfinished := view.unfinished():
        say(f"note: {arguments.run} has no result yet ({unfinished}); the page shows what there is")
    try:
        findings, notes = _find(view, arguments, output)
        text = render(view, findings, notes)
    except KeyboardInterrupt:
        say("stopped; no page was written", error=True)
        raise
    write_text(output, text)
    say(f"written: {output} ({len(text.encode()) / 1e6:.2f} MB)")


def _find(view: "RunView", arguments: Namespace, output: Path) -> tuple[dict | None, list[str]]:
    """The model's searches of its test set, or None, and lines for the page about them."""
    from ms_vireid.data.readers import read_data
    from ms_vireid.data.validation import check_pictures
    from ms_vireid.engine.run_folder import check_outside_data, data_config
    from ms_vireid.search.start import start_inference

    if view.checkpoint is None:
        return _nothing(f"{view.folder.path} holds no checkpoint")
    try:
        data = read_data(data_config(view.config.data, view.folder, arguments.data_root))
        check_pictures(data.test)
    except InputError as error:
        if arguments.data_root is not None:
            raise
        return _nothing(f"{error}; --data-root D says where it is now")
    check_outside_data(output, "--output", data, view.folder)

    (trained,) = start_inference(arguments, view.checkpoint)
    from ms_vireid.visualization.findings import find  # imports mindspore: after the device is set up

    view.require_own(trained.record)
    notes = []
    if view.checkpoint.stem == view.folder.last.stem:
        notes.append(f"From {view.checkpoint.name}: training has not ended.")
    if not data.has_checksum(view.record.data.checksum):
        notes.append(f"The pictures under {data.root} are not those of the run: their checksum is {data.checksum}.")
    return find(trained, data, arguments.queries, view.name), notes


def _nothing(why: str) -> tuple[None, list[str]]:
    say(f"note: no pictures: {why}")
    return None, [f"Left out: {why}."]


if __name__ == "__main__":
    run(main)

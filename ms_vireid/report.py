"""One self-contained HTML page of a run: result, curves, similarities, best and worst queries, Grad-CAM, recipe.

It opens without a network. Needs `pip install -e '.[viz]'`.
"""

from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_inference, require_extra, run
from ms_vireid.files.writing import check_derived, check_output, write_text


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of train.py")
    parser.add_argument("--output", type=Path, metavar="F", help="the .html file to write (default: RUN/report.html)")
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: where the run had it)")
    parser.add_number(
        "report --queries",
        default=3,
        help="how many of the best and of the worst queries, with Grad-CAM of two each; 0: no pictures of people",
    )
    add_inference(parser)
    arguments = parser.parse_args()

    require_extra("report.py", "viz", "jinja2", "matplotlib")
    check_output(arguments.output, suffixes=(".html",))
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.visualization.page import MARK, RunView, render

    shown = RunView(RunFolder(arguments.run))
    output = arguments.output or arguments.run / PAGE
    check_output(output, suffixes=(".html",), reads=shown.folder.files)
    if not arguments.output:
        check_derived(output, MARK, "remove it, or choose an --output")
    if unfinished := shown.unfinished():
        say(f"note: {arguments.run} has no result yet ({unfinished}); the page shows what there is")
    try:
        findings, notes = _find(shown, arguments, output)
        text = render(shown, findings, notes)
    except KeyboardInterrupt:
        say("stopped; no page was written", error=True)
        raise
    write_text(output, text)
    say(f"written: {output} ({len(text.encode()) / 1e6:.2f} MB)")


def _find(shown, arguments, output: Path) -> tuple:
    """The model's searches of its test set, or None, and a line for the page that says why."""
    from ms_vireid.data.read import read_data
    from ms_vireid.data.validation import check_pictures
    from ms_vireid.engine.run_folder import check_apart_from_data, data_config
    from ms_vireid.inference import start_inference

    if shown.checkpoint is None:
        return _nothing(f"{shown.folder.path} holds no checkpoint")
    try:
        data = read_data(data_config(shown.config.data, shown.folder, arguments.data_root))
        check_pictures(data.test)
    except InputError as error:
        if arguments.data_root is not None:
            raise
        return _nothing(f"{error}; --data-root D says where it is now")
    check_apart_from_data(output, "--output", data, shown.folder)

    program = start_inference(arguments)
    from ms_vireid.inference.trained import load_trained
    from ms_vireid.visualization.findings import find

    (trained,) = load_trained([shown.checkpoint], program)
    shown.require_own(trained.record)
    notes = []
    if shown.checkpoint.stem == shown.folder.last.stem:
        notes.append(f"From {shown.checkpoint.name}: training has not ended.")
    if data.checksum != shown.record.data.checksum:
        notes.append(f"The pictures under {data.root} are not those of the run: their checksum is {data.checksum}.")
    return find(trained, data, arguments.queries, shown.name), notes


def _nothing(why: str) -> tuple[None, list[str]]:
    say(f"note: no pictures: {why}")
    return None, [f"Left out: {why}."]


if __name__ == "__main__":
    run(main)

"""The page of a run."""

import argparse
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.data.readers import read_data
from ms_vireid.data.validation import check_pictures
from ms_vireid.engine.run_folder import RunFolder, check_outside_data, data_config
from ms_vireid.files.writing import check_derived, check_output, write_text
from ms_vireid.search.start import load_trained, start_inference
from ms_vireid.visualization.page import MARK, RunView, render


def main(arguments: argparse.Namespace) -> None:
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


def _find(view: RunView, arguments: argparse.Namespace, output: Path) -> tuple[dict | None, list[str]]:
    """The model's searches of its test set, or None, and lines for the page about them."""
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

    backend = start_inference(arguments)
    (trained,) = load_trained([view.checkpoint], backend)
    from ms_vireid.visualization.findings import find  # imports mindspore: after the device is set up

    view.require_own(trained.record)
    notes = []
    if view.checkpoint.stem == view.folder.last.stem:
        notes.append(f"From {view.checkpoint.name}: training has not ended.")
    if data.checksum != view.record.data.checksum:
        notes.append(f"The pictures under {data.root} are not those of the run: their checksum is {data.checksum}.")
    return find(trained, data, arguments.queries, view.name), notes


def _nothing(why: str) -> tuple[None, list[str]]:
    say(f"note: no pictures: {why}")
    return None, [f"Left out: {why}."]

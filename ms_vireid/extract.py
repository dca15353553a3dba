"""Extract features of the pictures in any folder or list to one .npz file (its arrays are described in
ms_vireid/search/feature_files.py).

An interrupted run leaves F.npz.partial beside the output; the same command continues from there.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import dataclasses
import os
from argparse import Namespace
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError, one_line, refuse
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, add_layout, run
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    add_checkpoint(parser)
    parser.add_argument(
        "--images", type=Path, required=True, metavar="D", help="folder of pictures, searched with all its subfolders"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="F",
        help="the .npz file to write; for other programs a .csv file, or a new folder whose name has no dot, for a "
        ".npy file of each picture",
    )
    parser.add_argument(
        "--modality",
        choices=(*MODALITIES, "auto"),
        default="auto",
        help="modality of all pictures; auto: the folders say it (cam1 ... cam6, visible, infrared, Thermal, nir ...)",
    )
    add_layout(parser)
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="only these pictures: one path on each line, relative to D"
    )
    parser.add_number(
        "--batch-size",
        Bounds(1, 10_000, "as evaluation.batch_size: more pictures at a time only take memory"),
        help="pictures at a time (default: the run's)",
    )
    parser.add_number(
        "--workers",
        Bounds(0, 256, "as data.workers: each is a process"),
        help="processes that decode pictures (default: the run's)",
    )
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out pictures that cannot be decoded or are gone, and list them",
    )
    add_inference(parser)
    arguments = parser.parse_args()
    suffixes = (".npz", ".csv") if arguments.output.suffix else ()
    check_output(arguments.output, suffixes=suffixes, reads=[arguments.images, arguments.list])
    if not suffixes and os.path.lexists(arguments.output):
        raise InputError(f"--output {arguments.output}: already exists; name a new folder, or a .npz or .csv file")
    _extract(arguments)


def _extract(arguments: Namespace) -> None:
    with at_once():
        import numpy as np

        from ms_vireid.data.bit_depth import look_at, notes_on, refuse_unreadable
        from ms_vireid.data.folder_layout import find_layout
        from ms_vireid.data.picture_paths import find_pictures, read_layout
        from ms_vireid.files.checks import require_utf8
        from ms_vireid.search.extraction import PARTIAL, extract_resumably, partial_result
        from ms_vireid.search.feature_files import Pictures, check_feature_folder, write_features
        from ms_vireid.search.start import files_read, start_inference

    names = find_pictures(arguments.images, arguments.list, also_gone=arguments.skip_broken)
    if not arguments.output.suffix:
        outside = (str(name) for name in names if name.is_absolute() or ".." in name.parts)
        refuse(outside, f"{arguments.list}: pictures that do not lie below --images", "write a .npz or .csv file")
        check_feature_folder(arguments.output, names)
    layout = find_layout(arguments.images, names, arguments.layout, modality=arguments.modality)
    images, people = read_layout(arguments.images, names, layout, arguments.modality)
    pictures = Pictures(arguments.images.resolve(), tuple(names), images, people, layout)
    if arguments.output.suffix.lower() == ".npz":
        require_utf8(pictures.root, layout.top)
    check_output(arguments.output, reads=[*images.paths, *files_read(arguments.checkpoint)], beside=PARTIAL)
    (trained,) = start_inference(arguments, arguments.checkpoint)
    options = {"batch_size": arguments.batch_size, "workers": arguments.workers}
    changes = {name: value for name, value in options.items() if value is not None}
    extractor = dataclasses.replace(trained.extractor, **changes)
    say(f"{len(images)} pictures: {np.sum(~images.infrared)} visible, {np.sum(images.infrared)} infrared")
    problems, formats = look_at(images)
    if not arguments.skip_broken:
        refuse_unreadable(problems, ", or leave them out with --skip-broken")
    for note in notes_on(formats, extractor.value_ranges, arguments.images):
        say(one_line(f"note: {note}"))
    info = trained.feature_info()
    plan = {"format": info["format"], "version": info["version"], "checkpoint": info["checkpoint"]["sha256"]}
    with partial_result(arguments.output) as partial:
        try:
            features, broken = extract_resumably(extractor, images, partial, plan, arguments.skip_broken)
        except KeyboardInterrupt:
            say(f"stopped; run it again to continue from {partial}", error=True)
            raise
        skipped = {names[i].as_posix(): broken[i] for i in sorted(broken)}
        content = pictures.with_features(features, info | {"skipped": skipped})
        if broken:
            content = content.rows(np.setdiff1d(np.arange(len(images)), list(broken)))
        write_features(arguments.output, content)
    for problem in skipped.values():
        say(f"skipped {problem}")
    counted = f", {len(skipped)} broken pictures skipped" if arguments.skip_broken else ""
    say(f"{arguments.output}: {len(images) - len(skipped)} features of {features.shape[1]} dimensions{counted}")


if __name__ == "__main__":
    run(main)

"""Features of the pictures of any folder or list, in one .npz file (its arrays: ms_vireid/inference/feature_files.py).

An interrupted run leaves F.npz.partial beside the output; the same command goes on from there.
"""

import dataclasses
from pathlib import Path

from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, run
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    add_checkpoint(parser)
    parser.add_argument("--images", type=Path, required=True, metavar="D", help="folder of pictures, with its folders")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="the .npz file to write")
    parser.add_argument(
        "--modality",
        choices=(*MODALITIES, "auto"),
        default="auto",
        help="modality of all pictures; auto: as the folders say (cam1 ... cam6, visible, infrared, Thermal, nir ...)",
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="only these pictures: one path a line, relative to D")
    parser.add_number("extract --batch-size", help="pictures at a time (default: the run's)")
    parser.add_number("extract --workers", help="processes that decode pictures (default: the run's)")
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out pictures that cannot be decoded or are gone, and list them",
    )
    add_inference(parser)
    arguments = parser.parse_args()
    check_output(arguments.output, suffixes=(".npz",), reads=[arguments.images, arguments.list])

    import numpy as np

    from ms_vireid.data.layout import find_pictures, read_layout
    from ms_vireid.inference import files_read, start_inference
    from ms_vireid.inference.feature_files import Pictures, save_features

    names = find_pictures(arguments.images, arguments.list, also_gone=arguments.skip_broken)
    images, people = read_layout(arguments.images, names, arguments.modality)
    check_output(arguments.output, reads=[*images.paths, *files_read(arguments.checkpoint)])
    program = start_inference(arguments, arguments.checkpoint)
    from ms_vireid.inference.extraction import extract_resumably, partial_result
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([arguments.checkpoint], program)
    chosen = {"batch_size": arguments.batch_size, "workers": arguments.workers}
    given = {name: value for name, value in chosen.items() if value is not None}
    extractor = dataclasses.replace(trained.extractor, **given)
    say(f"{len(images)} pictures: {np.sum(~images.infrared)} visible, {np.sum(images.infrared)} infrared")
    info = trained.feature_info()
    plan = {"format": info["format"], "version": info["version"], "checkpoint": info["checkpoint"]["sha256"]}
    with partial_result(arguments.output) as partial:
        try:
            features, broken = extract_resumably(extractor, images, partial, plan, arguments.skip_broken)
        except KeyboardInterrupt:
            say(f"stopped; the same command goes on from {partial}", error=True)
            raise
        skipped = {names[i].as_posix(): broken[i] for i in sorted(broken)}
        pictures = Pictures(arguments.images.resolve(), tuple(names), images, people)
        content = pictures.with_features(features, info | {"skipped": skipped})
        if broken:
            content = content.rows(np.setdiff1d(np.arange(len(images)), list(broken)))
        save_features(arguments.output, content)
    for why in skipped.values():
        say(f"skipped {why}")
    counted = f", {len(skipped)} broken pictures skipped" if arguments.skip_broken else ""
    say(f"{arguments.output}: {len(images) - len(skipped)} features of {features.shape[1]} dimensions{counted}")


if __name__ == "__main__":
    run(main)

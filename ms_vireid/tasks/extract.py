"""Features of any pictures in one file."""

import argparse
import dataclasses

import numpy as np

from ms_vireid.command.errors import one_line, refuse
from ms_vireid.command.printing import say
from ms_vireid.data.bit_depth import look_at, notes_on, refuse_unreadable
from ms_vireid.data.folder_layout import find_layout
from ms_vireid.data.picture_paths import find_pictures, read_layout
from ms_vireid.files.writing import check_output
from ms_vireid.search.extraction import PARTIAL, extract_resumably, partial_result
from ms_vireid.search.feature_files import Pictures, check_feature_folder, write_features
from ms_vireid.search.start import files_read, load_trained, start_inference


def main(arguments: argparse.Namespace) -> None:
    names = find_pictures(arguments.images, arguments.list, also_gone=arguments.skip_broken)
    if not arguments.output.suffix:
        outside = (str(name) for name in names if name.is_absolute() or ".." in name.parts)
        refuse(outside, f"{arguments.list}: pictures that do not lie below --images", "write a .npz or .csv file")
        check_feature_folder(arguments.output, names)
    layout = find_layout(arguments.images, names, arguments.layout, modality=arguments.modality)
    images, people = read_layout(arguments.images, names, layout, arguments.modality)
    check_output(arguments.output, reads=[*images.paths, *files_read(arguments.checkpoint)], beside=PARTIAL)
    backend = start_inference(arguments, arguments.checkpoint)
    (trained,) = load_trained([arguments.checkpoint], backend)
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
        pictures = Pictures(arguments.images.resolve(), tuple(names), images, people, layout)
        content = pictures.with_features(features, info | {"skipped": skipped})
        if broken:
            content = content.rows(np.setdiff1d(np.arange(len(images)), list(broken)))
        write_features(arguments.output, content)
    for problem in skipped.values():
        say(f"skipped {problem}")
    counted = f", {len(skipped)} broken pictures skipped" if arguments.skip_broken else ""
    say(f"{arguments.output}: {len(images) - len(skipped)} features of {features.shape[1]} dimensions{counted}")

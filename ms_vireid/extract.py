"""Features of the pictures of any folder or list, in one .npz file (its arrays: ms_vireid/inference/feature_files.py).

An interrupted run leaves F.npz.partial beside the output; the same command goes on from there.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ms_vireid.command.running import Parser, add_inference, check_least, run
from ms_vireid.config import dump_config
from ms_vireid.data.layout import MODALITIES, find_pictures, read_layout
from ms_vireid.files.writing import check_output
from ms_vireid.inference.feature_files import FORMAT, Features, file_checksum, load_features, save_features
from ms_vireid.inference.starting import start_inference

__all__ = ["load_features", "main"]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="P", help="model.safetensors or last.safetensors of a run"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="D", help="folder of pictures, with its folders")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="the .npz file to write")
    parser.add_argument(
        "--modality",
        choices=(*MODALITIES, "auto"),
        default="auto",
        help="of all pictures; auto reads it from the folders (cam1 ... cam6, visible, infrared, Thermal, nir ...)",
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="only these pictures: one path a line, relative to D")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time (default: the run's)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode pictures (default: the run's)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out, list and count what cannot be decoded")
    add_inference(parser)
    arguments = parser.parse_args()
    check_output(arguments.output, suffixes=(".npz",))
    check_least(arguments, batch_size=1, workers=0)

    pictures = find_pictures(arguments.images, arguments.list)
    images = read_layout(arguments.images, pictures, arguments.modality)
    program = start_inference(arguments)
    from ms_vireid.inference.extraction import PartialResult, extract_resumably
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([arguments.checkpoint], program)
    config = trained.config
    sha256 = file_checksum(arguments.checkpoint)
    print(f"{len(images)} pictures: {np.sum(~images.infrared)} visible, {np.sum(images.infrared)} infrared")
    partial = PartialResult(arguments.output)
    plan = {"format": FORMAT, "version": version("ms_vireid"), "checkpoint": sha256}
    try:
        features, broken = extract_resumably(
            trained.model,
            images,
            trained.image_size,
            arguments.batch_size or config.evaluation.batch_size,
            config.data.workers if arguments.workers is None else arguments.workers,
            partial,
            plan,
            arguments.skip_broken,
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {partial.path}", file=sys.stderr)
        raise

    names = np.array([path.as_posix() for path in pictures])
    skipped = {names[i].item(): broken[i] for i in sorted(broken)}
    info = plan | {
        "checkpoint": {"file": arguments.checkpoint.name, "sha256": sha256, "epoch": trained.epoch},
        "config": dump_config(config),
        "images": str(arguments.images.resolve()),
        "skipped": skipped,
    }
    kept = np.setdiff1d(np.arange(len(images)), list(broken)) if broken else slice(None)
    modality = np.array(MODALITIES)[images.infrared.astype(int)]
    save_features(
        arguments.output,
        Features(features[kept], names[kept], modality[kept], images.identities[kept], images.cameras[kept], info),
    )
    partial.remove()
    for why in skipped.values():
        print(f"skipped {why}")
    counted = f", {len(skipped)} broken pictures skipped" if arguments.skip_broken else ""
    print(f"{arguments.output}: {len(images) - len(skipped)} features of {features.shape[1]} dimensions{counted}")


if __name__ == "__main__":
    run(main)

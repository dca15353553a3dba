"""Extract features of the pictures in any folder or list to one .npz file (its arrays are described in
ms_vireid/search/feature_files.py).

An interrupted run leaves F.npz.partial beside the output; the same command continues from there.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import os
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, add_layout, run, work
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
    work("ms_vireid.tasks.extract").main(arguments)


if __name__ == "__main__":
    run(main)

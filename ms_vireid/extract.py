"""Features of the pictures of any folder or list, in one .npz file (its arrays: ms_vireid/inference/feature_files.py).

An interrupted run leaves F.npz.partial beside the output; the same command goes on from there.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import os
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, add_layout, run, work
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    add_checkpoint(parser)
    parser.add_argument("--images", type=Path, required=True, metavar="D", help="folder of pictures, with its folders")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="F",
        help="the .npz file to write; for other programs a .csv file, or a new folder, of a name without a dot, with a "
        ".npy for each picture",
    )
    parser.add_argument(
        "--modality",
        choices=(*MODALITIES, "auto"),
        default="auto",
        help="modality of all pictures; auto: as the folders say (cam1 ... cam6, visible, infrared, Thermal, nir ...)",
    )
    add_layout(parser)
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
    suffixes = (".npz", ".csv") if arguments.output.suffix else ()
    check_output(arguments.output, suffixes=suffixes, reads=[arguments.images, arguments.list])
    if not suffixes and os.path.lexists(arguments.output):
        raise InputError(f"--output {arguments.output}: is there already; name a new folder, or a .npz or .csv file")
    work("ms_vireid.tasks.extract").main(arguments)


if __name__ == "__main__":
    run(main)

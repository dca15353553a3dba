"""Export the inference graph of a checkpoint, from pictures to L2-normalised features, to a file for other programs.

PMT gives one file; AGW and MUN, whose first layers differ by modality, give one for visible and one for infrared
pictures. F.json beside each says how to prepare pictures. Before a file gets its final name, it is loaded again and
compared with the checkpoint on different pictures, and on files prepared by F.json. All of this runs on the CPU.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import Parser, add_checkpoint, require_extra, run, work


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--format",
        choices=("mindir", "onnx"),
        required=True,
        help="onnx needs pip install -e '.[export]', mindir nothing more",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="file to write; if there are two, -visible and -infrared are put into its name (default: beside the "
        "checkpoint, under its name with the format's suffix)",
    )
    parser.add_argument("--modality", choices=MODALITIES, help="write only this one of AGW's and MUN's two files, as F")
    parser.add_number(
        "--batch-size",
        Bounds(1, 256, "the file is tried on a batch of that size, in memory"),
        help="fixed number of pictures for each call, which some devices need (default: any)",
    )
    arguments = parser.parse_args()
    if arguments.format == "onnx":
        require_extra("ms_vireid/export.py --format onnx", "export", "onnx", "onnxruntime")
    work("ms_vireid.tasks.export").main(arguments)


if __name__ == "__main__":
    run(main)

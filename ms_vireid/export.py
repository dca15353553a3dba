"""The inference graph of a checkpoint, pictures to L2-normalised features, in a file that other programs run.

PMT gives one file; AGW and MUN, whose first layers differ by modality, one for visible and one for infrared pictures.
The file also says how to prepare a picture (size, filter, mean ...). Before a file gets its name, it is loaded again
and compared with the checkpoint on different pictures. All of this runs on the CPU.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

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
        help="file to write, with -visible and -infrared put into its name if there are two; without it, the "
        "checkpoint's name with the format's suffix, beside it",
    )
    parser.add_argument(
        "--modality", choices=MODALITIES, help="of AGW's and MUN's two files write only this one, named F"
    )
    parser.add_number(
        "export --batch-size", help="fixed number of pictures a call, which some devices need (default: any)"
    )
    arguments = parser.parse_args()
    if arguments.format == "onnx":
        require_extra("ms_vireid/export.py --format onnx", "export", "onnx", "onnxruntime")
    work("ms_vireid.tasks.export").main(arguments)


if __name__ == "__main__":
    run(main)

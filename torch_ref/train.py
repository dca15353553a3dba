"""Train the configured method in PyTorch, on the same batches and with the same random numbers as ms_vireid."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.running import Parser, add_recipe, require_extra, run, work
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    add_recipe(parser)
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to train; auto takes cuda, else cpu"
    )
    parser.add_number(
        "--steps",
        Bounds(1, 10**9, "no recipe within the schema's bounds that ends has more"),
        help="batches to train on, from the first or from where --resume left off (default: all that the recipe has)",
    )
    parser.add_argument(
        "--resume", type=Path, metavar="F", help="go on from this file, of --output or parity/convert.py"
    )
    parser.add_argument(
        "--output", type=Path, metavar="F", help=".safetensors to write after the last step or on Ctrl-C, to go on from"
    )
    arguments = parser.parse_intermixed_args()
    require_extra("torch_ref/train.py", "parity", "torch")
    check_output(arguments.output, suffixes=(".safetensors",))
    work("torch_ref.engine.trainer").main(arguments)


if __name__ == "__main__":
    run(main)

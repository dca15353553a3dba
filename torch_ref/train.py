"""Train the configured method in PyTorch, on the same batches and with the same random numbers as ms_vireid."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_recipe, require_extra, run
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
    with at_once():
        from ms_vireid.config.reading import config_files, recipe
        from ms_vireid.engine.training_data import prepare_data
        from torch_ref.engine.checkpoint import load_checkpoint
        from torch_ref.engine.device import choose, in_words, round_products
        from torch_ref.engine.trainer import train

    config = recipe(arguments)
    device = choose(arguments.device)
    round_products(config.train.tf32)
    say(f"device: {in_words(device)}")
    checkpoint = load_checkpoint(arguments.resume) if arguments.resume else None
    data, config = prepare_data(config)
    reads = [config.model.pretrained, *config_files(arguments.config), data.root, *data.pictures]
    check_output(arguments.output, reads=reads)  # may be --resume's file, which it then replaces
    train(config, data, arguments.output, checkpoint, device, arguments.steps)


if __name__ == "__main__":
    run(main)

"""Evaluate a checkpoint with PyTorch's names under its data set's protocol, as ms_vireid.evaluate does."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, require_extra, run, work
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="F", help="file of torch_ref/train.py or convert.py"
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to compute; auto takes cuda, else cpu"
    )
    parser.add_argument("--tf32", action="store_true", help="let matrix products round to TF32 on a GPU")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar=("NAME", "data.key=value"),
        help="test on another set, as ms_vireid does",
    )
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    parser.add_argument("--report", type=Path, metavar="F.md", help="also write a dated table of one row to F.md")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="evaluation.key=value",
        help="values of the protocol, for example evaluation.mode=indoor",
    )
    arguments = parser.parse_intermixed_args()
    arguments.overrides += [word for word in arguments.data[1:] if word.startswith("evaluation.")]
    arguments.data = [word for word in arguments.data if word not in arguments.overrides]
    require_extra("torch_ref/evaluate.py", "parity", "torch")
    check_output(arguments.json, "--json")
    check_output(arguments.report, "--report")
    if foreign := next((word for word in arguments.overrides if not word.startswith("evaluation.")), None):
        raise InputError(
            f"{foreign}: a trained model's protocol alone can be chosen, evaluation.KEY=VALUE; leave it out"
        )
    work("torch_ref.evaluation.evaluating").main(arguments)


if __name__ == "__main__":
    run(main)

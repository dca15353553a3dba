"""Compare training with dropout and drop path with outside code, by the mean losses of a small PMT.

Five sides train: MindSpore with its three programs for a CPU, the PyTorch mirror with the same hashed noise, and
outside code: timm's ViT with its own dropout and drop path and a plain step of `torch.optim.AdamW`. For each seed all
sides start from the same weights and take the same batches, several times with other noise, so that a difference of a
hundredth of the loss shows. Each side, pair of rates and seed takes one core and writes one line to --output; what has
its line there is not trained again.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import argparse
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.running import Parser, require_extra, run, work
from ms_vireid.files.writing import check_output

SIDES = ("outside", "torch_ref", "numba", "eager", "graph")
RATES = ((0.2, 0.1), (0.2, 0.0), (0.03, 0.1), (0.03, 0.0), (0.0, 0.1))  # dropout and drop path
STEPS = 50  # that a mean is taken over

_REPEATS = Bounds(1, 1000, "each is measured anew, and beyond hundreds no median moves")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument(
        "--rates", nargs="+", type=_pair, default=RATES, metavar="DROPOUT,PATH", help="pairs as 0.03,0.1; default: five"
    )
    parser.add_number("--seeds", _REPEATS, default=5, help="of each side and pair of rates")
    parser.add_number(
        "--noises",
        Bounds(2, 1000, "each is a training; of one alone there is no standard error"),
        default=5,
        help="of each seed",
    )
    parser.add_number("--epochs", _REPEATS, default=4, help=f"of {STEPS} steps, all in grey")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where the synthetic set is made")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a process")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values, of all sides")
    arguments = parser.parse_intermixed_args()
    require_extra("dropout.py", "parity", "torch", "timm")
    check_output(arguments.output, reads=[arguments.data_root])
    work("parity.measure.dropout_runs").main(arguments)


def _pair(text: str) -> tuple[float, float]:
    try:
        dropout, drop_path = map(float, text.split(","))
        if not (0 <= dropout < 1 and 0 <= drop_path < 1):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not DROPOUT,PATH, both at least 0 and below 1, as 0.03,0.1"
        ) from None
    return dropout, drop_path


if __name__ == "__main__":
    run(main)

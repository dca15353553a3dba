"""Train a model, evaluate it under its data set's protocol, and print the table.

On several devices: msrun --worker_num=N --local_worker_num=N --join=True --log_dir=LOGS ms_vireid/train.py ...
Each of the N processes then trains on its own train.num_identities identities in each step.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_device, add_recipe, require_extra, run, work
from ms_vireid.devices import runtime


def main() -> None:
    parser = Parser(__doc__)
    add_recipe(parser)
    add_device(parser)
    parser.add_argument(
        "--output", type=Path, metavar="R", help="run folder (default: runs/METHOD-CONFIG, such as runs/pmt-sysu)"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="auto: continue from the run folder's last.safetensors if there is one; or name a file",
    )
    parser.add_argument("--open", action="store_true", help="at the end, show the run's page in a browser (report.py)")
    with runtime.print_once_per_machine():
        arguments = parser.parse_intermixed_args()
        if arguments.open:
            require_extra("--open", "viz", "jinja2", "matplotlib")
            if runtime.launched():
                raise InputError("--open: not with msrun; afterwards python -m ms_vireid.report R makes the page")
    work("ms_vireid.tasks.train").main(arguments)


if __name__ == "__main__":
    run(main)

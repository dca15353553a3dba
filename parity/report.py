"""Run the parity ladder, and print each case's worst error with each backend, where it is, and whether it is too large.

A backend is how MindSpore computes (`--backends` prints how they differ): by this project's CPU kernels (numba), by
MindSpore's operators one by one (eager), by a compiled graph of them (graph), or by one with CUDA kernels (cuda).
PyTorch's side is computed once for all.
Whatever depends on no backend (names, pictures, initial values, learning rates) runs once. Losses and other functions
have no kernels, so for them "numba" is the same as "eager".

With --stand-in, MindSpore's plugins for GPU and Ascend compute the small cases of rungs 2 to 5
without their devices (parity/stand_in): with the compiled backend, or with --backend eager operator by operator.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import argparse
from importlib.metadata import version

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import BACKENDS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, require_extra, run
from parity import processes, stand_in
from parity.versions import torch_build


def main() -> None:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument(
        "--stand-in",
        action="store_true",
        help="compute on the stand-in for --device GPU or Ascend; with --device auto, on both, beside the CPU",
    )
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=BACKENDS,
        help="how MindSpore computes (default: all that the device has, on a stand-in graph)",
    )
    parser.add_argument(
        "--rung", type=int, nargs="+", choices=range(1, 8), help="only these rungs (default: all seven)"
    )
    parser.add_argument("--match", metavar="TEXT", help="only cases whose name contains this")
    parser.add_argument("--small", action="store_true", help="leave out real widths and 20-step trainings")
    parser.add_argument(
        "--backends", action="store_true", help="instead of the ladder, print what each backend computes otherwise"
    )
    parser.add_argument(
        "--renew",
        action="store_true",
        help="write down what the backends' replacements stand for, if no case is over: after a change of a layer or a "
        "loss that its kernels compute as well",
    )
    parser.add_number(
        "--processes",
        Bounds(1, 256, "each holds both frameworks, a gigabyte and more"),
        help="processes that share the cases and the cores (default: 2, where there are two cores and memory for both)",
    )
    arguments = parser.parse_args()
    if arguments.backends:
        parser.refuse_others(arguments, "--backends computes no case", "--backends")
        with at_once():
            from parity import backends

        backends.main()
        return
    require_extra("parity/report.py", "parity", "torch", "torchvision", "timm")
    if arguments.renew and (arguments.match or arguments.rung):
        raise InputError("--renew: takes all cases as proof; leave --match and --rung out")
    say(f"MindSpore {version('mindspore')} beside PyTorch {torch_build()}")
    stand_ins = _build_stand_ins(arguments) if arguments.stand_in else []
    # Stand-ins compute in other processes: this one needs MindSpore on a CPU.
    device = processes.set_up_for_comparisons("CPU" if stand_ins else arguments.device)
    with at_once():
        from parity import ladder

    ladder.main(arguments, device, stand_ins)


def _build_stand_ins(arguments: argparse.Namespace) -> list[str]:
    """Build the stand-ins that are asked for, and return their devices; raises InputError where one cannot be built."""
    devices = list(stand_in.DEVICES) if arguments.device == "auto" else [arguments.device]
    for device in devices:
        if device not in stand_in.DEVICES:
            known = " and ".join(stand_in.DEVICES)
            raise InputError(f"--device {device}: stand-ins are for {known}; leave --stand-in out")
        stand_in.build(device)
    return devices


if __name__ == "__main__":
    run(main)

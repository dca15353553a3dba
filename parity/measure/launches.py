"""Count the calls of full-size training steps on stand-ins, each in its own process."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import runtime
from parity.measure.work import CLASSES, MODELS
from parity.stand_in import DEVICES, build

LIMIT_S = 1800.0  # of a row
AMP = "train.amp=float16"
RECOMPUTE = "train.recompute=true"
SWITCHES = {"": (), " amp": (AMP,), " recompute": (RECOMPUTE,), " amp recompute": (AMP, RECOMPUTE)}
COMPILED = {"GPU": "cuda", "Ascend": "graph"}  # the backend by default
# A device's modes: its default backend with all switches, and its others.
MODES = {
    device: {f"{backend}{name}": (f"train.backend={backend}", *switches) for name, switches in SWITCHES.items()}
    | {other: (f"train.backend={other}",) for other in ("graph", "eager") if other != backend}
    for device, backend in COMPILED.items()
}
# A device, a method, which the first word of a benchmark's row is, and a mode: the device, the model and the switches.
ROWS = {
    f"{device}: {model.split()[0]} {mode}": (device, model, switches)
    for device in DEVICES
    for model in MODELS
    for mode, switches in MODES[device].items()
}


def rows(names: Sequence[str], options: Namespace) -> Iterator[tuple[str, dict]]:
    """Yield rows of a warm step: launches, copies, waits, allocations, the host's ms, the peak of device memory, and
    the seconds of the first step, which compiles. Raises InputError if the stand-in cannot be built here, or if a row
    fails.
    """
    for name in names:
        device, model, switches = ROWS[name]
        config, others, stage = MODELS[model]
        arguments = device, config, str(stage), *others, *CLASSES, *options.overrides, *switches
        yield name, build(device).json_of(name, "parity.measure.launches", *arguments, limit_s=LIMIT_S, values=False)


def main() -> None:
    device, config, stage, *overrides = sys.argv[1:]
    config = load_config(CONFIG_ROOT / config, overrides)
    runtime.set_up(device)
    with at_once():
        from parity.measure.counted_steps import count_steps

    print(json.dumps(count_steps(device, config, int(stage))))


if __name__ == "__main__":
    run(main)

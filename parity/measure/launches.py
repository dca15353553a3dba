"""Count the calls of full-size training steps on stand-ins, each in its own process: beside PyTorch's eager mode
(`parity/benchmark.py --only launches`), by cost on an H100 (`--only costs`), and with and without each replacement of a
cell (`--only replacements`); and time their host (`--only host`)."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import zip_longest

from ms_vireid.command.running import run, work
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import runtime
from parity.measure import prices
from parity.measure.workers import CLASSES, MODELS
from parity.stand_in import DEVICES, build

LIMIT_S = 1800.0  # of a row
HOST = ("host_ms", "host_least_ms", "core_ms")
LEAST_MS = 0.1  # of a kind of call that has a line of its own
AMP = "train.amp=float16"
RECOMPUTE = "train.recompute=true"
SWITCHES = {"": (), " amp": (AMP,), " recompute": (RECOMPUTE,), " amp recompute": (AMP, RECOMPUTE)}
COMPILED = {"GPU": "cuda", "Ascend": "graph"}  # the program by default
# A device's modes: its default program with all switches, and its others.
MODES = {
    device: {f"{program}{name}": (f"train.program={program}", *switches) for name, switches in SWITCHES.items()}
    | {other: (f"train.program={other}",) for other in ("graph", "eager") if other != program}
    for device, program in COMPILED.items()
}
# A device, a method, which the first word of a benchmark's row is, and a mode: the device, the model and the switches.
ROWS = {
    f"{device}: {model.split()[0]} {mode}": (device, model, switches)
    for device in DEVICES
    for model in MODELS
    for mode, switches in MODES[device].items()
}
# Compiled steps, and inference.
IMAGES = 64
HOST_ROWS = {
    f"{device}: {model.split()[0]} {what}": (device, model, (f"train.program={program}", *switches))
    for device, program in COMPILED.items()
    for model in MODELS
    for what, switches in ((program, ()), (f"{program} amp", (AMP,)), ("inference", ()))
}
# Steps by what they cost: a method and a precision.
COST_ROWS = {
    f"{model.split()[0]} {precision}": (model, mode)
    for model in MODELS
    for precision, mode in (("float32", "cuda"), ("float16", "cuda amp"))
}
# What the tables of `programs/graph` replace, and the models that have it: PMT, AGW, MUN.
_ON_BOTH = {
    "cross_entropy": "PMT AGW MUN",
    "softplus": "AGW",
    "GeM": "AGW MUN",
    "AdamW": "PMT",
    "SGD": "AGW",
    "StageLoss": "PMT MUN",
}
_ON_BOTH |= {"safe_sqrt": "PMT", "ModalitySharedEnhancementLoss": "PMT", "Attention": "PMT"}
_REPLACED = {
    "GPU": _ON_BOTH | {"LayerNorm": "PMT", "scaled": "MUN", "ModalityPrototypes": "MUN", "cat": "MUN"},
    "Ascend": _ON_BOTH
    | {
        "VisionTransformer": "PMT",
        "Block": "PMT",
        "Dropout": "PMT",
        "DropPath": "PMT",
        "GELU": "PMT",
        "LayerNorm": "PMT",
        "Dense": "PMT AGW MUN",
        "Conv2d": "PMT AGW MUN",
        "Conv2dTranspose": "MUN",
        "ResidualDepthwise": "MUN",
    }
    | {"BatchNorm": "PMT AGW MUN", "MaxPool2d": "AGW MUN", "AvgPool2d": "MUN", "MUN": "MUN"},
}
REPLACEMENT_ROWS = {
    f"{device}: {model.split()[0]}, {cell}": (device, model, cell)
    for device, cells in _REPLACED.items()
    for model in MODELS
    for cell, methods in cells.items()
    if model.split()[0] in methods
}


def rows(names: Sequence[str], options: Namespace) -> Iterator[tuple[str, dict]]:
    """Yield rows of a warm step: launches, copies, waits, allocations, the host's ms, ms on an H100 by `prices` of the
    kernels and of the step with this host, the peak of device memory, and the seconds of the first step, which
    compiles; beside them PyTorch's operators, arithmetic and peak, in float32 or, with amp, under autocast.

    Raises:
        InputError: the stand-in cannot be built here, or a row has failed.
    """
    from parity.measure.torch_step import torch_step  # imports PyTorch, which a process on a stand-in has no use for

    for name in names:
        device, model, switches = ROWS[name]
        config, others, stage = MODELS[model]
        overrides = *others, *CLASSES, *options.overrides
        row = _row(name, device, model, (*overrides, *switches)) | torch_step(config, stage, overrides)
        own = tuple(switch for switch in switches if switch == AMP)
        yield name, row | {"torch_peak_gib": torch_step(config, stage, (*overrides, *own))["torch_peak_gib"]}


def costs(names: Sequence[str], options: Namespace) -> Iterator[tuple[str, dict]]:
    """Yield a step's total, then its kinds of calls by ms on an H100 as `prices` predicts, the shortest summed up.
    Beside them stand PyTorch's kinds of kernels as measured, also by ms: a line pairs ranks, not kernels. Raises as
    `rows`, and at once if there is nothing measured."""
    return _costs(names, options, prices.measured()["steps"])


def _costs(names: Sequence[str], options: Namespace, steps: Mapping[str, dict]) -> Iterator[tuple[str, dict]]:
    for name in names:
        calls = calls_of(name, options.overrides)
        kinds = [(kind, *cost) for kind, cost in prices.kinds(calls).items()]
        long = [kind for kind in kinds if kind[2] >= LEAST_MS]
        whole = _sum(f"all, of a step of {prices.step_ms(calls):.1f} ms", kinds)
        ours = [whole, *long, _sum("the rest", kinds[len(long) :])]
        torch = steps[name]["torch"]
        theirs = [(f"all, of a step of {torch['step_ms']:.1f} ms", torch["busy_ms"]), *torch["kinds"].items()]
        for place, (our, their) in enumerate(zip_longest(ours, theirs, fillvalue=(None, None, None))):
            (kind, made, ms), (torch_kind, torch_ms, *_) = our, their
            row = {"kind": kind, "calls": made, "ms": ms, "torch_kind": torch_kind, "torch_ms": torch_ms}
            yield f"{name}, {place}" if place else name, row


def calls_of(name: str, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Count the calls of one of `COST_ROWS` in a step on the stand-in GPU, by `counts.calls`' names."""
    model, mode = COST_ROWS[name]
    overrides = *MODELS[model][1], *CLASSES, *MODES["GPU"][mode], *overrides
    return _counted(f"GPU: {model.split()[0]} {mode}", "GPU", model, overrides)["calls"]


def _sum(name: str, kinds: Sequence[tuple[str, float, float]]) -> tuple[str, float, float]:
    """Sum calls and ms."""
    return name, sum(calls for _, calls, _ in kinds), sum(ms for _, _, ms in kinds)


def replacements(names: Sequence[str], options: Namespace) -> Iterator[tuple[str, dict]]:
    """Yield a compiled step without and with the replacement of a type of cell; raises as `rows`."""
    for name in names:
        device, model, cell = REPLACEMENT_ROWS[name]
        overrides = *MODELS[model][1], *CLASSES, *options.overrides, "train.program=graph"
        whole = _row(f"{device}: {model.split()[0]} graph", device, model, overrides)
        yield name, {"without": _row(name, device, model, overrides, cell), "whole": whole}


def host(names: Sequence[str], options: Namespace) -> Iterator[tuple[str, dict]]:
    """Yield the host's ms of a step in the queue as `counted_steps` times it, by MindSpore as it comes and as
    `runtime.set_up` sets it, and both again: of each the lower. Raises as `rows`."""
    for name in names:
        device, model, switches = HOST_ROWS[name]
        config, others, stage = MODELS[model]
        what = f"features {IMAGES}" if name.endswith("inference") else f"step {stage}"
        overrides = *others, *CLASSES, *options.overrides, *switches
        as_it_comes, as_set_up = dict.fromkeys(runtime.HOST_SWITCHES, "0"), {}
        given = (as_it_comes, as_set_up) * 2
        found = [_count(name, device, config, what, "", overrides, variables) for variables in given]
        without, whole = ({figure: min(row[figure] for row in found[i::2]) for figure in HOST} for i in range(2))
        figures = {"batch": found[1]["batch"], "launches": found[1]["launches"]}
        yield name, figures | {"without": without, "whole": whole, "ratio": whole["host_ms"] / without["host_ms"]}


def _row(name: str, device: str, model: str, overrides: tuple[str, ...], without: str = "") -> dict:
    """Drop the calls, and for a compiled step on a GPU price them; by `eager` a device waits for the host."""
    row = dict(_counted(name, device, model, overrides, without))
    calls = row.pop("calls")
    priced = device == "GPU" and "train.program=eager" not in overrides
    kernels, step = (prices.busy_ms(calls), prices.step_ms(calls, row["host_ms"])) if priced else (None, None)
    return row | {"h100_kernels_ms": kernels, "h100_ms": step}


@cache
def _counted(name: str, device: str, model: str, overrides: tuple[str, ...], without: str = "") -> dict:
    config, _, stage = MODELS[model]
    return _count(name, device, config, f"step {stage}", without, overrides, {})


def _count(
    name: str,
    device: str,
    config: str,
    what: str,
    without: str,
    overrides: tuple[str, ...],
    variables: Mapping[str, str],
) -> dict:
    """what: "step STAGE", or "features IMAGES"."""
    given = device, config, what, without, *overrides
    return build(device).json_of(
        name, "parity.measure.launches", *given, limit_s=LIMIT_S, variables=variables, values=False
    )


def main() -> None:
    device, config, what, without, *overrides = sys.argv[1:]
    config = load_config(CONFIG_ROOT / config, overrides)
    runtime.set_up(device)
    counted = work("parity.measure.counted_steps")
    kind, number = what.split()
    if kind == "step":
        found = counted.count_steps(device, config, int(number), without)
    else:
        found = counted.count_features(device, config, int(number))
    print(json.dumps(found))


if __name__ == "__main__":
    run(main)

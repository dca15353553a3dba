"""Which program computes a model: the CPU's kernels, MindSpore's operators one by one, or a compiled graph of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import mindspore as ms
from mindspore import nn

from ms_vireid.command.arguments import require_choice
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.command.names import PROGRAMS
from ms_vireid.command.printing import say
from ms_vireid.config import TrainConfig
from ms_vireid.devices import runtime
from ms_vireid.programs import graph, same_bits

COMPILED = ("graph", "cuda")  # the latter with this project's CUDA kernels in it
OF_DEVICE = {
    "CPU": ("kernels", "operators", "graph"),
    "GPU": ("operators", "graph", "cuda"),
    "Ascend": ("operators", "graph"),
}


def training_program(config: TrainConfig) -> str:
    """What `train.program` asks for on this device.

    auto compiles where work is queued to a device: operator by operator a GPU waits for Python. On a CPU the kernels,
    which compute in float32 alone, are faster. MindSpore's cache of compiled graphs is left off: from it a second
    process begins in 1 s instead of 17, and its loss is not a number (a small PMT, MindSpore 2.10, CPU).

    cuda, a graph with this project's CUDA kernels, is the fastest on a GPU (PMT on an H100: 192 ms a step for 269 in
    float32, 53 for 121 in float16), and has to be asked for: what is recomputed is not computed by them yet.

    Raises:
        InputError: kernels are asked for on another device, or with mixed precision; bfloat16 but not on an Ascend;
            cuda but not on a GPU, without a compiler for it, or with recomputation.
    """
    target = ms.get_context("device_target")
    on_cpu = target == "CPU"
    if config.amp == "bfloat16" and target != "Ascend":
        raise InputError(f"train.amp=bfloat16: MindSpore does not compute it on a {target}; give train.amp=float16")
    if config.program == "auto":
        return ("operators" if config.amp else "kernels") if on_cpu else "graph"
    if config.program == "kernels" and not (on_cpu and not config.amp):
        raise InputError("train.program=kernels: they compute on a CPU and without train.amp; leave it at auto")
    if config.program == "cuda":
        if config.recompute:
            raise InputError("train.program=cuda: cannot recompute yet; give train.recompute=false, or program graph")
        require_cuda("train.program=cuda")
    return config.program


def require_cuda(option: str) -> None:
    """Raise InputError unless the CUDA kernels can be compiled here for the device that is set."""
    if ms.get_context("device_target") != "GPU":
        raise InputError(f"{option}: this project's CUDA kernels compute on a GPU; leave it at auto")
    from ms_vireid.programs.cuda import build

    try:
        build.launcher()
    except DeviceError as problem:
        raise InputError(f"{option}: {problem}; {problem.remedy}, or use program graph") from None


def inference_program(program: str) -> str:
    """The same for a trained model. program: "auto", or one of `PROGRAMS`; raises InputError for another."""
    require_choice("program", program, ("auto", *PROGRAMS))
    on_cpu = ms.get_context("device_target") == "CPU"
    if program == "auto":
        return "kernels" if on_cpu else "graph"
    if program == "kernels" and not on_cpu:
        raise InputError("--program kernels: they compute on a CPU; leave it at auto")
    if program == "cuda":
        require_cuda("--program cuda")
    return program


def prepare(program: str, model: nn.Cell, *others: nn.Cell) -> None:
    """Have a model whose weights are in place, its loss and optimiser computed by a program; again after other weights.

    Their own code stays as it is: each cell that the program's table names by its type has its `construct` replaced,
    and an operator that a cell holds gives way to the table's cell. A cell that no table knows may say itself what
    replaces it: `replacements`, functions by program. An optimiser's weights are laid out, but for the kernels.
    """
    parts = [part for cell in (model, *others) for _, part in cell.cells_and_names()]
    if program == "kernels":
        from ms_vireid.programs.kernels import base, table  # Numba and its compiler: a second

        replacements = table.KERNELS
        for weight in model.get_parameters():  # an optimiser's states gain nothing by it
            base.align(weight)
    else:
        replacements = graph.replacements(program)
        if any(isinstance(part, nn.Conv2d) for part in parts):
            runtime.cap_convolutions()
    if ms.get_context("device_target") == "CPU":
        replacements = same_bits.CELLS | replacements
    if program == "operators":
        ms.runtime.launch_blocking()  # an error names its operator; from queued ones MindSpore 2.10 may crash instead
    if any(getattr(part, "recompute_blocks", False) for part in parts):
        replacements = {kind: made for kind, made in replacements.items() if kind not in graph.NOT_RECOMPUTED}
    for part in parts:
        if program != "kernels" and hasattr(part, "lay_out"):
            part.lay_out()
        function = replacements.get(type(part)) or getattr(part, "replacements", {}).get(program)
        if function:
            part.construct = MethodType(function, part)
        for name, operator in dict(part._primitives).items():
            if type(operator) in replacements:
                setattr(part, name, replacements[type(operator)](operator))
    for part in getattr(model, "recomputed", ()):
        part.recompute(output_recompute=True)


@contextmanager
def as_written(model: nn.Cell) -> Iterator[None]:
    """Within this block the model's cells compute by their own code, as before `prepare`."""
    replaced = [
        (part, part.__dict__.pop("construct")) for _, part in model.cells_and_names() if "construct" in part.__dict__
    ]
    try:
        yield
    finally:
        for part, function in replaced:
            part.construct = function


@contextmanager
def announced(what: str) -> Iterator[None]:
    """A block that compiles `what` and runs it for the first time."""
    say(f"compiling {what} ...")
    begun = time.perf_counter()
    yield
    say(f"compiled {what} in {time.perf_counter() - begun:.0f} s")

"""Write a report on a device in Markdown: versions, operators, the ladder, trainings and speed.

Each step runs in its own process, which is killed at its time limit. If one fails, the report says so, with the last
lines that it printed, and the others go on. The exit code is 1 if one failed. On a stand-in (parity/stand_in) times
mean nothing.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import ctypes
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ms_vireid import train
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import CONFIG_ROOT
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, run, work
from ms_vireid.devices import runtime
from ms_vireid.devices.host import git_commit, processor_name
from ms_vireid.files.writing import check_derived, check_output, write_text
from parity import processes, stand_in
from parity.measure import print_row
from parity.versions import torch_build

_TRAINING_HEAD = "| training | steps | images/s | last loss | rank-1 % | chance % | peak MiB | weights as before |"
PARTS = {  # with the head of each one's table
    "versions": "| what | version |",
    "operators": "| operator | precision | what | figure | limit |",
    "ladder": "",
    "training": _TRAINING_HEAD,
    "benchmark": _TRAINING_HEAD,
}
LIMIT_S, QUICK_LIMIT_S = 1800.0, 180.0  # of a step
RUNGS = {2: "LayerNorm", 3: "dcl all", 4: "PMT small, gradients", 5: "PMT stage 1, six updates"}  # with --quick's case
METHODS = {"PMT": "demo.yaml", "AGW": "agw/sysu.yaml", "MUN": "mun/demo.yaml"}
STAGES = {"PMT": 2, "AGW": 1, "MUN": 1}
TINY = {
    "PMT": ("model.embed_dim=32", "model.num_heads=2", "model.depth=2"),
    "AGW": ("model.layers=[1, 1, 1, 1]", "model.width=8"),
    "MUN": ("model.layers=[1, 1, 1, 1]", "model.width=8"),
}
ONE_STAGE = {"PMT": ("stages=[{epochs: 1, losses: {id: {}, pht: {stage: 2}, msel: {}, dcl: {}}}]",)}
FEW_PICTURES = (
    "data.name=synthetic",
    "data.synthetic={train_identities: 16, val_identities: 1, test_identities: 4, images_per_camera: 2, "
    "image_size: [64, 32]}",
    "evaluation.compare_untrained=false",
    "evaluation.trials=2",
)
OUTPUT, HEADING = Path("first_run.md"), "# First run on "
FEW_IMAGES = ("train.num_identities=2", "train.num_instances=2")  # of a batch
DRIVER_FILES = (
    "/proc/driver/nvidia/version",
    "/usr/local/Ascend/driver/version.info",
    "/usr/local/Ascend/ascend-toolkit/latest/version.cfg",
)


@dataclass(frozen=True)
class Step:
    """A command. figures: extracts Markdown lines from its output."""

    part: str
    name: str
    command: list[str]
    figures: Callable[[str], list[str]]


@dataclass(frozen=True)
class Outcome:
    """The result of a step. verdict: "passed" or the reason of failure."""

    step: Step
    verdict: str
    seconds: float
    output: str
    figures: list[str]

    @property
    def failed(self) -> bool:
        return self.verdict != "passed"


def main() -> None:
    arguments = _parse()
    begun = time.perf_counter()
    versions = Step("versions", "versions", _here("print_versions", arguments.device), _table_rows)
    outcomes = [perform(versions, arguments.limit)]
    refusal = re.search(r"^error: (.*)", outcomes[0].output, re.MULTILINE)
    if outcomes[0].verdict == "exit code 2" and refusal:
        raise InputError(refusal[1])
    rows = [line.strip("| ").split(" | ", 1) for line in outcomes[0].figures]
    device = dict(rows).get("device", f"{arguments.device}, which was not reached")
    arguments.device = device.split()[0].rstrip(",")
    with tempfile.TemporaryDirectory(prefix="ms_vireid-first-run-") as folder:
        for part, steps in STEPS.items():
            if part in (arguments.only or PARTS):
                outcomes += [perform(step, arguments.limit) for step in steps(arguments, Path(folder))]
    write_text(arguments.output, report(outcomes, device, time.perf_counter() - begun))
    say(f"report: {arguments.output}")
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="REPORT.md", help="the report")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts, after the versions (default: all)")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes and few cases: minutes, for a check")
    arguments = parser.parse_args()
    check_output(arguments.output)
    if arguments.output == OUTPUT:
        check_derived(OUTPUT, HEADING.encode(), "remove it, or choose another --output")
    arguments.limit = QUICK_LIMIT_S if arguments.quick else LIMIT_S
    return arguments


# --- the steps --------------------------------------------------------------------------------------------------------


def _here(function: str, *arguments) -> list[str]:
    """Make a command that calls a function of this file."""
    call = f"run(lambda: first_run.{function}({', '.join(map(repr, arguments))}))"
    imports = "from ms_vireid.command.running import run; from parity.measure import first_run"
    return [sys.executable, "-c", f"{imports}; {call}"]


def _operators(arguments: argparse.Namespace, folder: Path) -> Iterator[Step]:
    given = arguments.device, arguments.quick
    yield Step("operators", "operators", _here("check_operators", *given), _table_rows)
    if arguments.device != "CPU":
        name = _rounded_float32(arguments.device)
        yield Step("operators", name, _here("time_tensor_cores", *given), _table_rows)


def _ladder(arguments: argparse.Namespace, folder: Path) -> Iterator[Step]:
    for rung, case in RUNGS.items():
        command = [sys.executable, "-m", "parity.report", "--device", arguments.device, "--rung", str(rung)]
        command += ["--small", "--match", case] if arguments.quick else []
        yield Step("ladder", f"rung {rung}", command, _worst)


def _trainings(arguments: argparse.Namespace, folder: Path) -> Iterator[Step]:
    """Train each method on the synthetic set, compiled, in float32 and with amp; twice, unless quick."""
    for method, config in METHODS.items():
        recipe = []
        if method == "AGW":
            import yaml  # not at the top: --help does without it

            recipe = yaml.safe_load((CONFIG_ROOT / "ablations/demo/agw.yaml").read_text(encoding="utf-8"))["overrides"]
            recipe += ["stages.0.epochs=10"]
        if arguments.quick:
            recipe += [*_one_epoch(method, 3), *ONE_STAGE.get(method, ()), *FEW_PICTURES, *TINY[method], *FEW_IMAGES]
            recipe += ["train.log_steps=1", "data.image_size=[96, 48]", "data.workers=0"]
        for name in (f"{method} float32", f"{method} amp"):
            yield _training("training", arguments, folder, name, config, recipe)
            if not arguments.quick:
                yield _training("training", arguments, folder, f"{name}, again", config, recipe, name)


def _benchmark(arguments: argparse.Namespace, folder: Path) -> Iterator[Step]:
    """Measure MindSpore beside PyTorch. If PyTorch does not see the device, train MindSpore alone at full size; its
    images/s include loading pictures."""
    if _torch_sees(arguments.device):
        size = ["--identities", "8", "--instances", "4", "--images", "64"]
        size = ["--match", "PMT", "--quick", *TINY["PMT"]] if arguments.quick else size
        for precision, *sections in (("float32", "train_step", "inference"), ("float16", "train_step")):
            command = [sys.executable, "-m", "parity.benchmark", "--device", arguments.device, *size]
            command += ["--only", *sections, *(["train.amp=float16"] if precision == "float16" else [])]
            kernels = arguments.output.with_suffix(f".kernels-{precision}.json")
            name = f"MindSpore beside PyTorch, {precision}"
            yield Step("benchmark", name, [*command, "--kernels", str(kernels)], _code)
    elif arguments.quick:
        recipe = [*FEW_PICTURES, *_one_epoch("PMT", 3), *ONE_STAGE["PMT"], *FEW_IMAGES, "model.pretrained=none"]
        recipe += ["model.depth=2", "train.log_steps=1"]
        yield _training("benchmark", arguments, folder, "PMT two full-size blocks", "pmt/sysu.yaml", recipe)
    else:
        for method in METHODS:
            recipe = [*FEW_PICTURES, *_one_epoch(method, 30), "model.pretrained=none"]
            for precision in ("float32", "amp"):
                name = f"{method} full size {precision}"
                yield _training("benchmark", arguments, folder, name, f"{method.lower()}/sysu.yaml", recipe)


def _one_epoch(method: str, iterations: int) -> list[str]:
    """Return overrides for one epoch a stage."""
    return [*(f"stages.{stage}.epochs=1" for stage in range(STAGES[method])), f"train.iterations={iterations}"]


def _training(
    part: str, arguments: argparse.Namespace, folder: Path, name: str, config: str, recipe: list[str], first: str = ""
) -> Step:
    """Make a training's step. name: starts with the method; "amp" in it switches amp on. first: the training to
    repeat."""
    method = name[:3]
    output = folder / name.replace(" ", "-")
    pictures = folder / (f"pictures-{method}-few" if FEW_PICTURES[0] in recipe else f"pictures-{method}")
    where = ["--config", str(CONFIG_ROOT / config), "--device", arguments.device, "--output", str(output)]
    program = "graph" if arguments.device == "CPU" else "auto"  # which is a compiled one on a device
    options = [f"data.root={json.dumps(str(pictures))}", *recipe, f"train.program={program}"]
    command = [*_here("train_and_measure"), *where, *options, f"train.amp={'float16' if 'amp' in name else 'false'}"]
    return Step(part, name, command, partial(_training_row, name, output, first and folder / first.replace(" ", "-")))


STEPS = {"operators": _operators, "ladder": _ladder, "training": _trainings, "benchmark": _benchmark}


def _torch_sees(device: str) -> bool:
    import torch  # not at the top: --help does without it

    return device == "CPU" or (device == "GPU" and torch.cuda.is_available())


# --- what the steps do in processes of their own ----------------------------------------------------------------------


def print_versions(device: str) -> None:
    found = runtime.set_up(device)
    rows = {"device": f"{found}, a stand-in" if stand_in.here() else found}
    rows |= {"Python": platform.python_version(), "platform": platform.platform()}
    rows |= {name: version(name) for name in ("mindspore", "numpy")} | {"torch": torch_build()}
    rows["PyTorch sees the device"] = "yes" if _torch_sees(found.split()[0]) else "no"
    with suppress(OSError):
        number = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
        rows["CUDA of the driver"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    files = [Path(file) for file in DRIVER_FILES if Path(file).is_file()]
    rows |= {str(file): " ".join(file.read_text(errors="replace").split()) for file in files}
    rows |= {"processor": f"{processor_name()}, {os.cpu_count()} cores", "commit": git_commit() or "no checkout"}
    for row in rows.items():
        print_row(*row)


def check_operators(device: str, quick: bool) -> None:
    """Print errors of product and convolution against PyTorch's float64 on the CPU, then their speed."""
    processes.set_up_for_comparisons(device)
    sys.exit(work("parity.measure.operators").check(quick))


def time_tensor_cores(device: str, quick: bool) -> None:
    """Time float32 operators in TF32 (GPU) or HF32 (NPU), in a new process: a kernel keeps the precision it was made
    with."""
    runtime.set_up(device)
    runtime.cap_convolutions()
    runtime.round_products()  # convolutions do by default
    work("parity.measure.operators").print_speeds(_rounded_float32(device), "float32", quick)


def _rounded_float32(device: str) -> str:
    return "TF32" if device == "GPU" else "HF32"


def train_and_measure() -> None:
    """Run ms_vireid/train.py with this process's arguments, then print its peak of device memory."""
    train.main()
    if peaks := work("parity.measure.mindspore_side").device_peaks():
        print(f"peak MiB: {peaks[0] / 2**20:.0f}")


# --- running and reporting --------------------------------------------------------------------------------------------


def perform(step: Step, limit_s: float) -> Outcome:
    """Run a step, and kill its processes at the limit or when it ends."""
    print(f"{step.part}: {step.name} ...", end=" ", flush=True)
    begun = time.perf_counter()
    try:
        done = processes.run(step.command, limit_s)
        output, verdict = done.stdout, "passed" if done.returncode == 0 else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        output, verdict = expired.output, f"killed after {limit_s:g} s"
    over = verdict == "exit code 1" and "Traceback (most recent call last)" not in output
    figures = step.figures(output) if verdict == "passed" or over else []
    seconds = time.perf_counter() - begun
    print(f"{verdict}, {seconds:.1f} s", flush=True)
    return Outcome(step, verdict, seconds, output, figures)


def _table_rows(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("| ")]


def _code(output: str) -> list[str]:
    return ["```", *output.strip().splitlines(), "```"]


def _worst(output: str) -> list[str]:
    """Return the ladder's cases over tolerance, each rung's worst, and the summary."""
    over = [line for line in output.splitlines() if re.search(r" OVER  ", line)]
    return ["```", *over, *"\n".join(output.strip().split("\n\n")[-2:]).splitlines(), "```"]


def _training_row(name: str, folder: Path, before: Path | str, output: str) -> list[str]:
    from ms_vireid.engine.run_folder import RunFolder  # not at the top: it brings pydantic, which --help does without

    run_folder = RunFolder(folder)
    if not run_folder.result.exists():
        return []
    last = json.loads(run_folder.metrics.read_text(encoding="utf-8").splitlines()[-1])
    result = json.loads(run_folder.result.read_text(encoding="utf-8"))
    peak = re.search(r"^peak MiB: (\d+)", output, re.MULTILINE)
    same = "-"
    if before:
        same = "yes" if RunFolder(before).model.read_bytes() == run_folder.model.read_bytes() else "no"
    cells = [name, last["step"], f"{last['images_per_second']:g}", f"{last['loss']:.4f}"]
    cells += [f"{100 * result[row]['rank1']:.2f}" for row in ("trained", "chance")]
    return [f"| {' | '.join(map(str, [*cells, peak[1] if peak else '-', same]))} |"]


def report(outcomes: list[Outcome], device: str, seconds: float) -> str:
    """Write the Markdown page."""
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    failed = sum(outcome.failed for outcome in outcomes)
    command = shlex.join(["python", "parity/measure/first_run.py", *sys.argv[1:]])
    lines = [f"{HEADING}{device}", "", f"`{command}`, {when}", ""]
    lines += [f"{len(outcomes)} steps, {failed} failed, in {seconds:.0f} s.", ""]
    if device.endswith("stand-in"):
        lines += ["This is not a real device: no time on this page means anything.", ""]
    lines += ["| part | step | verdict | seconds |", "| --- | --- | --- | --- |"]
    lines += [f"| {o.step.part} | {o.step.name} | {o.verdict} | {o.seconds:.1f} |" for o in outcomes]
    for part, head in PARTS.items():
        here = [outcome for outcome in outcomes if outcome.step.part == part]
        figures = [line for outcome in here for line in outcome.figures]
        if here:
            lines += ["", f"## {part.capitalize()}", ""]
        if figures and figures[0].startswith("|"):
            lines += [head, re.sub(r"[^|]+", " --- ", head)]
        lines += figures
        for outcome in here:
            if outcome.failed:
                tail = outcome.output.strip().splitlines()[-20:]
                lines += ["", f"{outcome.step.name}: {outcome.verdict}. The last it printed:", "", "```", *tail, "```"]
    lines += ["", "## Commands", "", "```"]
    lines += [shlex.join(["python", *outcome.step.command[1:]]) for outcome in outcomes]
    lines += ["```"]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    run(main)

"""What comes before a training: the recipe, the run's folder and the data. `training.py` trains and evaluates."""

import argparse
import shlex
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.command.errors import InputError, one_line, the_first
from ms_vireid.command.names import MODALITIES, PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import require_extra
from ms_vireid.config import Config
from ms_vireid.config.reading import recipe
from ms_vireid.config.schema import Range
from ms_vireid.data.readers import read_data
from ms_vireid.data.records import ImageSet
from ms_vireid.data.validation import validate_for_training
from ms_vireid.devices import runtime
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.evaluation.protocol import require_choices
from ms_vireid.files.checks import require_folder_name

if TYPE_CHECKING:
    from ms_vireid.programs.program import Program


def main(arguments: argparse.Namespace) -> None:
    with runtime.one_voice():
        config = recipe(arguments)
        if config.train.tensorboard:
            require_extra("train.tensorboard", "tensorboard", "tensorboard")
        device, program, group = _start(arguments.device, config) if runtime.launched() else (None, None, ALONE)

    with group.together():  # all processes look before one of them writes
        run_folder, checkpoint = _places(arguments, config.model.name)
        run_folder.require_writable(config, checkpoint)
    with group.together():  # the first process may draw the data before the others look
        data, measured = read_data(config.data) if group.is_main_process else None, {}
        if data:
            notes, measured = validate_for_training(data, config)
            for note in notes:
                say(one_line(f"note: {note}"))
    with group.together():
        data = data or read_data(config.data)
        require_choices(arguments.overrides, data)
    config = config.with_value_ranges(shared_ranges(measured, data.train, group))
    recipe_batch, config = config.train.num_identities, config.with_num_classes(data.train.num_identities)
    with group.together():
        config = config.with_fitting_batch(data.train.num_identities, group.world_size)
    if device is None:
        device, program, _ = _start(arguments.device, config)
    if group.is_main_process:
        say(f"device: {device}")
        if data.name == "folder":
            say(f"{data.tested_on()}: {the_first(list(data.test.names.values()))}")
        if config.train.amp and device.startswith("CPU"):
            say("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
        if (batch := config.train.num_identities) < recipe_batch:
            say(f"note: {data.train.num_identities} identities to train on: a batch has {batch}, not {recipe_batch}")
    from ms_vireid.tasks import training  # imports mindspore: after the device is set up

    training.train(config, data, run_folder, device, program, checkpoint, group)
    if arguments.open:
        _show(run_folder.path, arguments.device)
    elif group.is_main_process:
        say(f"its page: {shlex.join(['python', '-m', 'ms_vireid.report', str(run_folder.path)])}")


def shared_ranges(measured: dict[str, Range], train: ImageSet, group: ProcessGroup) -> dict[str, Range]:
    """The ranges that the first process measured, in all processes."""
    cameras = np.unique(train.cameras).tolist()
    names = [*MODALITIES, *(f"{modality}/{camera}" for modality in MODALITIES for camera in cameras)]
    rows = group.merge_rows(np.array([measured.get(name, (0, 0)) for name in names], np.float32)).tolist()
    return {name: tuple(row) for name, row in zip(names, rows, strict=True) if any(row)}


def _start(device: str, config: Config) -> "tuple[str, Program, ProcessGroup]":
    """Set the device up and call `training.start`."""
    device = runtime.set_up(device)
    from ms_vireid.tasks import training  # imports mindspore: after the device is set up

    return training.start(device, config)


def _places(arguments: argparse.Namespace, method: str) -> tuple[RunFolder, Path | None]:
    """The run's folder, and the checkpoint to resume from."""
    resume = arguments.resume
    name = arguments.config.stem
    name = name if name.split("-")[0] == method else f"{method}-{name}"
    if arguments.output is None:
        require_folder_name(arguments.config.stem, f"--config {arguments.config}")
    run_folder = RunFolder(arguments.output or _default_output(name, resume == "auto"))
    if resume is None:
        if run_folder.has_run():
            raise InputError(f"{run_folder.path}: holds a run; go on with --resume auto, or choose another --output")
        return run_folder, None
    if resume == "auto":
        return run_folder, run_folder.last if run_folder.last.exists() else None
    if not Path(resume).exists():
        raise InputError(f"--resume {resume}: no such checkpoint file")
    return run_folder, Path(resume)


def _default_output(name: str, resume: bool) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is new; to resume, the last that is not."""
    folder = following = Path("runs", name)
    number = 1
    while RunFolder(following).has_run():
        number += 1
        folder, following = following, Path("runs", f"{name}-{number}")
    return folder if resume else following


def _show(run_folder: Path, device: str) -> None:
    """Make the run's page and open it; exit as report.py does if it fails."""
    made = subprocess.run([sys.executable, "-m", "ms_vireid.report", run_folder, "--device", device])
    if made.returncode:
        sys.exit(made.returncode)
    webbrowser.open((run_folder / PAGE).resolve().as_uri())

"""A training: its recipe, run folder, device and data, then its steps, and the evaluation of what it gives."""

import argparse
import dataclasses
import shlex
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError, first_few
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import require_extra
from ms_vireid.config import Config
from ms_vireid.config.reading import recipe
from ms_vireid.data.digests import unseen
from ms_vireid.data.records import ReIDData
from ms_vireid.devices import runtime
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.training_data import prepare_data
from ms_vireid.evaluation.metrics_table import format_table
from ms_vireid.evaluation.protocol import ProtocolResult, chance, evaluated, protocol_trials
from ms_vireid.files.checks import file_checksum, require_folder_name
from ms_vireid.files.writing import write_json
from ms_vireid.search.start import begin

if TYPE_CHECKING:
    from ms_vireid.backends.backend import Backend


def main(arguments: argparse.Namespace) -> None:
    with runtime.print_once_per_machine():
        config = recipe(arguments)
        if config.train.tensorboard:
            require_extra("train.tensorboard", "tensorboard", "tensorboard")
        run_folder, checkpoint = _places(arguments, config)  # all processes look before they join and one writes
        device, backend, group = start(arguments.device, config)
    data, config = prepare_data(config, arguments.overrides, group)
    train(config, data, run_folder, checkpoint, device, backend, group)
    if arguments.open:
        _show(run_folder.path, arguments.device)
    elif group.is_main_process:
        say(f"its page: {shlex.join(['python', '-m', 'ms_vireid.report', str(run_folder.path)])}")


def _places(arguments: argparse.Namespace, config: Config) -> tuple[RunFolder, Path | None]:
    """Return the run's folder, which can be written, and the checkpoint to resume from."""
    resume, stem, method = arguments.resume, arguments.config.stem, config.model.name
    if arguments.output is None:
        require_folder_name(stem, f"--config {arguments.config}")
    name = stem if stem.split("-")[0] == method else f"{method}-{stem}"
    run_folder, checkpoint = RunFolder(arguments.output or _default_output(name, resume == "auto")), None
    if resume is None and run_folder.has_run():
        raise InputError(f"{run_folder.path}: holds a run; go on with --resume auto, or choose another --output")
    if resume == "auto":
        checkpoint = run_folder.last if run_folder.last.exists() else None
    elif resume is not None:
        checkpoint = Path(resume)
        if not checkpoint.exists():
            raise InputError(f"--resume {resume}: no such checkpoint file")
    run_folder.require_writable(config, checkpoint)
    return run_folder, checkpoint


def _default_output(name: str, resume: bool) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is new; to resume, the last that is not."""
    folder = following = Path("runs", name)
    number = 1
    while RunFolder(following).has_run():
        number += 1
        folder, following = following, Path("runs", f"{name}-{number}")
    return folder if resume else following


def start(device: str, config: Config) -> "tuple[str, Backend, ProcessGroup]":
    """Set the device up, choose the backend and join msrun's other processes, if any. Returns what trains, in words,
    which the first process prints, the backend and the group."""
    settings = config.train
    device, backend = begin(device, settings.backend, tf32=settings.tf32, amp=settings.amp, option="train.backend=")
    device, group = f"{device}; {backend}", ALONE
    if runtime.launched():
        from ms_vireid.engine.distributed import join  # imports mindspore: after the device is set up

        group = join()
        device = f"{device}, {group.world_size} processes"
    if group.is_main_process:
        say(f"device: {device}")
        if settings.amp and device.startswith("CPU"):
            say("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
    return device, backend, group


def train(
    config: Config,
    data: ReIDData,
    run_folder: RunFolder,
    checkpoint: Path | None,
    device: str,
    backend: "Backend",
    group: ProcessGroup,
) -> None:
    """Run or resume the training in `run_folder` and evaluate the result; result.json holds the table's fractions.

    device, backend, group: as `start` returns them.
    """
    # These import mindspore: after the device is set up.
    from ms_vireid.engine.trainer import Trainer
    from ms_vireid.evaluation import evaluating
    from ms_vireid.models import build_model
    from ms_vireid.search import features

    trainer = Trainer(config, data, run_folder, backend, group)
    with group.together():
        if checkpoint is not None:
            trainer.resume(checkpoint)
        seen_before = trainer.state.digests["seen_before"]
        test = unseen(data.test, seen_before, data.root, quiet=not group.is_main_process)
        test_data = dataclasses.replace(data, test=test)
        trials = protocol_trials(test_data, config.evaluation)  # refuses what is impossible, before the training
        if group.is_main_process:
            run_folder.create(config, data, device, trainer.step)
    if group.is_main_process:
        if checkpoint is not None:
            say(f"resuming from {checkpoint} at step {trainer.step} of {trainer.plan.steps}")
        say(f"run folder: {run_folder.path}")
        if data.name == "folder":
            say(f"{data.tested_on()}: {first_few(list(data.test.names.values()))}")
        if config.data.cache != "none":
            say(f"picture cache: {trainer.batches.pictures}")
    trained = features.FeatureExtractor.configured(trainer.model, backend, config, group)

    def evaluate(extractor: features.FeatureExtractor = trained) -> ProtocolResult:
        return evaluating.evaluate_model(extractor, test_data, config.evaluation)

    try:
        trainer.fit(evaluate)
        trainer.load(run_folder.model)
        result = evaluate()
        rows = {"trained": result.mean}
        if config.evaluation.compare_untrained:
            untrained = build_model(config)
            backend.accelerate(untrained)
            rows["untrained"] = evaluate(features.FeatureExtractor.configured(untrained, backend, config, group)).mean
    except KeyboardInterrupt:
        if group.is_main_process:
            say(f"stopped at step {trainer.step}; go on with --resume auto --output {run_folder.path}", error=True)
        raise
    if group.is_main_process:
        rows["chance"] = chance(test, trials, data.protocol)
        _write_result(run_folder, rows, result, config, data.protocol)


def _write_result(
    run_folder: RunFolder, rows: dict[str, dict], result: ProtocolResult, config: Config, protocol: str
) -> None:
    """Write result.json and print the table. rows: mean metrics by model. result: of the trained one."""
    selected = _best_and_last(run_folder.evaluations(), config, result.mean)
    source = {"evaluated": evaluated(config, protocol), "sha256": file_checksum(run_folder.model)}
    write_json(run_folder.result, rows | selected | {"protocol": result.as_dict() | source})
    say(*format_table(rows).split("\n"))
    for name, metrics in selected.items():
        say(f"{name} epoch, {metrics['epoch']}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
    say(f"results: {run_folder.result}")


def _best_and_last(evaluations: list[dict], config: Config, trained: dict) -> dict[str, dict]:
    """The test metrics of the best epoch by mAP and of the last one, if they were evaluated during training."""
    if not evaluations:
        return {}
    if config.train.select == "last" and evaluations[-1]["epoch"] < config.epochs:
        evaluations = [*evaluations, {"epoch": config.epochs, **trained}]
    selected = {"best": max(evaluations, key=lambda one: one["map"])}
    if evaluations[-1]["epoch"] == config.epochs:
        selected["last"] = evaluations[-1]
    return selected


def _show(run_folder: Path, device: str) -> None:
    """Make the run's page and open it; exit as report.py does if it fails."""
    made = subprocess.run([sys.executable, "-m", "ms_vireid.report", run_folder, "--device", device])
    if made.returncode:
        sys.exit(made.returncode)
    webbrowser.open((run_folder / PAGE).resolve().as_uri())

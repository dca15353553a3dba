"""Train a model, evaluate it under its data set's protocol, and print the table.

On several devices: msrun --worker_num=N --local_worker_num=N --join=True --log_dir=LOGS ms_vireid/train.py ...
Each of the N processes then trains on train.num_identities identities a step, all of them other ones.
"""

import argparse
import shlex
import subprocess
import sys
import webbrowser
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_device, require_extra, run
from ms_vireid.config import Config
from ms_vireid.config.arguments import add_recipe, recipe
from ms_vireid.config.estimate import require_memory_for
from ms_vireid.data.read import read_data, validate_for_training
from ms_vireid.devices import runtime
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.evaluation.table import format_table
from ms_vireid.files.writing import write_json

RUNS = Path("runs")


def main() -> None:
    parser = Parser(__doc__)
    add_recipe(parser)
    add_device(parser)
    parser.add_argument("--output", type=Path, metavar="R", help="run folder (default: runs/NAME-OF-CONFIG)")
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="auto: go on from the run folder's last.safetensors if there is one; or a file",
    )
    parser.add_argument("--open", action="store_true", help="show the run's page in a browser at the end (report.py)")
    with runtime.one_voice():
        arguments = parser.parse_intermixed_args()
        if arguments.open:
            _require_page()
        config = recipe(arguments)
        device, group = _join(arguments.device, config) if runtime.launched() else (None, ALONE)

    with group.together():
        places = _places(arguments) if group.is_main_process else None
    output, checkpoint = (path and Path(path) for path in group.broadcast(places))
    with group.main_process_first():  # it may make the data
        data = read_data(config.data)
        warning = validate_for_training(data, config.train.num_instances) if group.is_main_process else None
        config = config.with_num_classes(data.train.num_identities)
    if warning and group.is_main_process:
        print(f"note: {warning}")
    if device is None:
        device = _set_up(arguments.device, config)
    if device.startswith("CPU"):
        require_memory_for(config, training=True)
    if group.is_main_process:
        print(f"device: {device}")
        if config.train.amp and device.startswith("CPU"):
            print("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
    train(config, data, RunFolder(output), device, checkpoint, group)
    if arguments.open:
        _show(output, arguments.device)
    elif group.is_main_process:
        print(f"its page: {shlex.join(['python', '-m', 'ms_vireid.report', str(output)])}")


def _require_page() -> None:
    """Raise InputError, before any training, unless `_show` can be."""
    require_extra("--open", "viz", "jinja2", "matplotlib")
    if runtime.launched():
        raise InputError("--open: not with msrun; afterwards python -m ms_vireid.report R makes the page")


def _show(run_folder: Path, device: str) -> None:
    page = run_folder / "report.html"
    made = subprocess.run([sys.executable, "-m", "ms_vireid.report", run_folder, "--output", page, "--device", device])
    if made.returncode:
        sys.exit(made.returncode)
    webbrowser.open(page.resolve().as_uri())


def _set_up(device: str, config: Config) -> str:
    """Set the device up; what it is, and which program trains."""
    device = runtime.set_up(device)
    from ms_vireid.programs.choice import training_program  # only now, as below

    return f"{device}; {training_program(config.train)}"


def _join(device: str, config: Config) -> tuple[str, ProcessGroup]:
    """Set this process up, one of those that msrun started, and meet the others; the device, in words, and they."""
    device = _set_up(device, config)
    from ms_vireid.engine.distributed import join  # only now, as below

    group = join()
    return f"{device}, {group.world_size} processes", group


def _places(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """The run's folder, and the checkpoint that it goes on from."""
    output = RunFolder(arguments.output or _default_output(arguments.config.stem, arguments.resume == "auto"))
    if output.begun() and arguments.resume is None:
        raise InputError(f"{output.path}: holds a run; go on with --resume auto, or choose another --output")
    checkpoint = _checkpoint_to_resume(arguments.resume, output)
    return str(output.path), checkpoint and str(checkpoint)


def train(
    config: Config, data, output: RunFolder, device: str, checkpoint: Path | None, group: ProcessGroup = ALONE
) -> None:
    """Run or resume the training in `output` and evaluate the result; result.json holds the table's fractions.

    Processes of a group train together; the first one writes and prints.
    """
    # Only now: these import mindspore, which `runtime.set_up` has to come before.
    from ms_vireid.engine.checkpoint import load_checkpoint, load_model
    from ms_vireid.engine.trainer import Trainer
    from ms_vireid.evaluation.trials import chance_level, protocol_trials
    from ms_vireid.inference.evaluating import evaluate_model
    from ms_vireid.models import build_model
    from ms_vireid.programs.choice import run_by

    with group.together():  # now: an evaluation that cannot be is refused before training
        protocol_trials(data, config.evaluation)
    trainer = Trainer(config, data, output, evaluate_model, group)
    with group.together():
        if checkpoint is not None:
            trainer.resume(load_checkpoint(checkpoint))
        if group.is_main_process:
            output.create(config, data, device, trainer.step)
    if group.is_main_process:
        if checkpoint is not None:
            print(f"resuming from {checkpoint} at step {trainer.step} of {trainer.total_steps}")
        print(f"run folder: {output.path}", flush=True)
        if config.data.cache != "none":
            print(f"picture cache: {trainer.batches.pictures}")
    try:
        trainer.fit()
        load_model(trainer.model, load_checkpoint(output.checkpoint(output.model)))
        run_by(trainer.program, trainer.model)
        result = evaluate_model(trainer.model, data, config, group)
        rows = {"trained": result.mean}
        if config.evaluation.compare_untrained:
            untrained = build_model(config)
            run_by(trainer.program, untrained)
            rows["untrained"] = evaluate_model(untrained, data, config, group).mean
    except KeyboardInterrupt:
        if group.is_main_process:
            print(f"stopped at step {trainer.step}; go on with --resume auto --output {output.path}", file=sys.stderr)
        raise
    if not group.is_main_process:
        return
    rows["chance"] = chance_level(data, config.evaluation)
    selected = _best_and_last(output.evaluations(), config, result.mean)
    write_json(output.result, rows | selected | {"protocol": result.as_dict()})
    print(format_table(rows))
    for name, metrics in selected.items():
        print(f"{name} epoch, {metrics['epoch']}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
    print(f"results: {output.result}")


def _best_and_last(evaluations: list[dict], config: Config, trained: dict) -> dict[str, dict]:
    """The metrics of the best epoch by mAP on the test set and of the last one, each with its epoch, for a run that
    evaluated during training; only those that were evaluated."""
    if not evaluations:
        return {}
    if config.train.select == "last" and evaluations[-1]["epoch"] < config.epochs:
        evaluations = [*evaluations, {"epoch": config.epochs, **trained}]
    found = {"best": max(evaluations, key=lambda one: one["map"])}
    if evaluations[-1]["epoch"] == config.epochs:
        found["last"] = evaluations[-1]
    return found


def _default_output(name: str, resume: bool) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is new; to resume, the last that is not."""
    number = 1
    while RunFolder(_numbered(name, number)).begun():
        number += 1
    return _numbered(name, number - 1 if resume and number > 1 else number)


def _numbered(name: str, number: int) -> Path:
    return RUNS / (name if number == 1 else f"{name}-{number}")


def _checkpoint_to_resume(resume: str | None, output: RunFolder) -> Path | None:
    if resume is None:
        return None
    if resume == "auto":
        return output.checkpoint(output.last)
    if not Path(resume).is_file():
        raise InputError(f"--resume {resume}: no such checkpoint file")
    return Path(resume)


if __name__ == "__main__":
    run(main)

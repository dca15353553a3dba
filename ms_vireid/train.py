"""Train a model, evaluate it under its data set's protocol, and print the table.

On several devices: msrun --worker_num=N --local_worker_num=N --join=True --log_dir=LOGS ms_vireid/train.py ...
Each of the N processes then trains on train.num_identities identities a step, different ones in each.
"""

import argparse
import shlex
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError, the_first
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, add_recipe, require_extra, run
from ms_vireid.devices import runtime

if TYPE_CHECKING:
    from ms_vireid.config import Config
    from ms_vireid.engine.process_group import ProcessGroup
    from ms_vireid.engine.run_folder import RunFolder


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
        help="auto: go on from the run folder's last.safetensors if there is one; or a file",
    )
    parser.add_argument("--open", action="store_true", help="show the run's page in a browser at the end (report.py)")
    with runtime.one_voice():
        arguments = parser.parse_intermixed_args()
        if arguments.open:
            require_extra("--open", "viz", "jinja2", "matplotlib")
            if runtime.launched():
                raise InputError("--open: not with msrun; afterwards python -m ms_vireid.report R makes the page")
        from ms_vireid.config.reading import recipe
        from ms_vireid.data.read import read_data
        from ms_vireid.data.validation import validate_for_training
        from ms_vireid.engine.process_group import ALONE
        from ms_vireid.evaluation.protocol import require_choices

        config = recipe(arguments)
        if config.train.tensorboard:
            require_extra("train.tensorboard", "tensorboard", "tensorboard")
        device, group = _start(arguments.device, config) if runtime.launched() else (None, ALONE)

    with group.together():  # which waits for all to look, before one writes
        run_folder, checkpoint = _places(arguments, config.model.name)
        run_folder.require_own(config, checkpoint)
    with group.together():  # the first process may make the data before the others look
        data = read_data(config.data) if group.is_main_process else None
        if data and (warning := validate_for_training(data, config.train.num_instances)):
            say(f"note: {warning}")
    with group.together():
        data = data or read_data(config.data)
        require_choices(arguments.overrides, data)
    recipe_batch, config = config.train.num_identities, config.with_num_classes(data.train.num_identities)
    with group.together():
        config = config.with_fitting_batch(data.train.num_identities, group.world_size)
    if device is None:
        device, _ = _start(arguments.device, config)
    if group.is_main_process:
        say(f"device: {device}")
        if data.name == "folder":
            people = list(data.test.names.values())
            say(f"tested on {len(people)} of {data.train.num_identities + len(people)} people: {the_first(people)}")
        if config.train.amp and device.startswith("CPU"):
            say("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
        if (batch := config.train.num_identities) < recipe_batch:
            say(f"note: {data.train.num_identities} identities to train on: a batch has {batch}, not {recipe_batch}")
    train(config, data, run_folder, device, checkpoint, group)
    if arguments.open:
        _show(run_folder.path, arguments.device)
    elif group.is_main_process:
        say(f"its page: {shlex.join(['python', '-m', 'ms_vireid.report', str(run_folder.path)])}")


def _show(run_folder: Path, device: str) -> None:
    page = run_folder / PAGE
    made = subprocess.run([sys.executable, "-m", "ms_vireid.report", run_folder, "--device", device])
    if made.returncode:
        sys.exit(made.returncode)
    webbrowser.open(page.resolve().as_uri())


def _start(device: str, config: "Config") -> "tuple[str, ProcessGroup]":
    """Set the device up and meet the other processes of msrun, if any: what trains, in words, and the group."""
    device = runtime.set_up(device)
    from ms_vireid.engine.process_group import ALONE
    from ms_vireid.programs.program import choose  # only now: these import mindspore

    program = choose(config.train.program, config.train.amp, config.train.recompute)
    device = "; ".join(filter(None, [device, runtime.round_products(config.train.tf32), str(program)]))
    if not runtime.launched():
        return device, ALONE
    from ms_vireid.engine.distributed import join

    group = join()
    return f"{device}, {group.world_size} processes", group


def _places(arguments: argparse.Namespace, method: str) -> "tuple[RunFolder, Path | None]":
    """The run's folder, and the checkpoint to go on from."""
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.files.checks import require_folder_name

    resume = arguments.resume
    name = arguments.config.stem
    name = name if name.split("-")[0] == method else f"{method}-{name}"
    if arguments.output is None:
        require_folder_name(arguments.config.stem, f"--config {arguments.config}")
    run_folder = RunFolder(arguments.output or _default_output(name, resume == "auto"))
    if run_folder.begun() and resume is None:
        raise InputError(f"{run_folder.path}: holds a run; go on with --resume auto, or choose another --output")
    if resume is None:
        return run_folder, None
    former = RunFolder(Path("runs", arguments.config.stem))  # its name in earlier versions
    if resume == "auto" and arguments.output is None and former.begun() and not run_folder.begun():
        which = f"{run_folder.path} holds no run, and {former.path}, as earlier versions called it, does"
        raise InputError(f"--resume auto: {which}; give --output with one of the two")
    if resume == "auto":
        return run_folder, run_folder.checkpoint(run_folder.last)
    if not Path(resume).exists():
        raise InputError(f"--resume {resume}: no such checkpoint file")
    return run_folder, Path(resume)


def _default_output(name: str, resume: bool) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is new; to resume, the last that is not."""
    from ms_vireid.engine.run_folder import RunFolder

    folder = following = Path("runs", name)
    number = 1
    while RunFolder(following).begun():
        number += 1
        folder, following = following, Path("runs", f"{name}-{number}")
    return folder if resume else following


def train(
    config: "Config", data, output: "RunFolder", device: str, checkpoint: Path | None, group: "ProcessGroup"
) -> None:
    """Run or resume the training in `output` and evaluate the result; result.json holds the table's fractions."""
    # Only now: these import mindspore, and `runtime.set_up` has to run before that.
    from ms_vireid.engine.checkpoint import load_checkpoint, load_model
    from ms_vireid.engine.trainer import Trainer
    from ms_vireid.evaluation.protocol import chance, evaluated, protocol_trials
    from ms_vireid.evaluation.table import format_table
    from ms_vireid.files.checks import file_checksum
    from ms_vireid.files.writing import write_json
    from ms_vireid.inference.evaluating import evaluate_model
    from ms_vireid.inference.features import FeatureExtractor
    from ms_vireid.models import build_model

    with group.together():  # now, so that an impossible evaluation is refused before training
        trials = protocol_trials(data, config.evaluation)
    trainer = Trainer(config, data, output, group)
    trained = FeatureExtractor.configured(trainer.model, trainer.program, config)

    def evaluate(extractor=trained):
        return evaluate_model(extractor, data, config.evaluation, group)

    with group.together():
        if checkpoint is not None:
            trainer.resume(load_checkpoint(checkpoint))
        if group.is_main_process:
            output.create(config, data, device, trainer.step)
    if group.is_main_process:
        if checkpoint is not None:
            say(f"resuming from {checkpoint} at step {trainer.step} of {trainer.plan.steps}")
        say(f"run folder: {output.path}")
        if config.data.cache != "none":
            say(f"picture cache: {trainer.batches.pictures}")
    try:
        trainer.fit(evaluate)
        model = output.checkpoint(output.model)
        load_model(trainer.model, load_checkpoint(model))
        trainer.program.prepare(trainer.model)
        result = evaluate()
        rows = {"trained": result.mean}
        if config.evaluation.compare_untrained:
            untrained = build_model(config)
            trainer.program.prepare(untrained)
            rows["untrained"] = evaluate(FeatureExtractor.configured(untrained, trainer.program, config)).mean
    except KeyboardInterrupt:
        if group.is_main_process:
            say(f"stopped at step {trainer.step}; go on with --resume auto --output {output.path}", error=True)
        raise
    if not group.is_main_process:
        return
    rows["chance"] = chance(data.test, trials, data.protocol)
    selected = _best_and_last(output.evaluations(), config, result.mean)
    of = {"evaluated": evaluated(config, data.protocol), "sha256": file_checksum(model)}
    write_json(output.result, rows | selected | {"protocol": result.as_dict() | of})
    say(*format_table(rows).split("\n"))
    for name, metrics in selected.items():
        say(f"{name} epoch, {metrics['epoch']}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
    say(f"results: {output.result}")


def _best_and_last(evaluations: list[dict], config: "Config", trained: dict) -> dict[str, dict]:
    """The test metrics of the best epoch by mAP and of the last one, as far as they were evaluated during training."""
    if not evaluations:
        return {}
    if config.train.select == "last" and evaluations[-1]["epoch"] < config.epochs:
        evaluations = [*evaluations, {"epoch": config.epochs, **trained}]
    found = {"best": max(evaluations, key=lambda one: one["map"])}
    if evaluations[-1]["epoch"] == config.epochs:
        found["last"] = evaluations[-1]
    return found


if __name__ == "__main__":
    run(main)

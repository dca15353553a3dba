"""Train a model, evaluate it under its data set's protocol, and print the table."""

import sys
from pathlib import Path

from ms_vireid import runtime
from ms_vireid.command import Parser, add_device, add_recipe, recipe, run
from ms_vireid.config import Config
from ms_vireid.data.read import read_data, validate_for_training
from ms_vireid.engine.run_folder import RunFolder, write_json
from ms_vireid.errors import InputError
from ms_vireid.evaluation.report import format_table

RUNS = Path("runs")


def main() -> None:
    parser = Parser(__doc__)
    add_recipe(parser)
    add_device(parser)
    parser.add_argument("--output", type=Path, metavar="R", help="run folder (default: runs/NAME-OF-CONFIG)")
    parser.add_argument(
        "--resume", metavar="auto|PATH", help="auto: go on from the run folder's last.ckpt if there is one; or a file"
    )
    arguments = parser.parse_intermixed_args()

    config = recipe(arguments)
    output = RunFolder(arguments.output or _default_output(arguments.config.stem, arguments.resume == "auto"))
    if output.begun() and arguments.resume is None:
        raise InputError(f"{output.path}: holds a run; go on with --resume auto, or choose another --output")
    checkpoint = _checkpoint_to_resume(arguments.resume, output)

    data = read_data(config.data)
    if warning := validate_for_training(data, config.train.num_instances):
        print(f"note: {warning}")
    config = config.with_num_classes(data.train.num_identities)
    device = runtime.set_up(arguments.device, config.model.name)
    print(f"device: {device}")
    if config.train.amp and device.startswith("CPU"):
        print("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
    train(config, data, output, device, checkpoint)


def train(config: Config, data, output: RunFolder, device: str, checkpoint: Path | None) -> None:
    """Run or resume the training in `output` and evaluate the result; result.json holds the table's fractions."""
    # Only now: these import mindspore, which `runtime.set_up` has to come before.
    from ms_vireid.engine.checkpoint import load_checkpoint
    from ms_vireid.engine.inference import chance_level, evaluate_model
    from ms_vireid.engine.trainer import Trainer
    from ms_vireid.models import build_model

    chances = chance_level(data, config.evaluation)  # now: an evaluation that cannot be is refused before training
    trainer = Trainer(config, data, output)
    if checkpoint is not None:
        trainer.resume(load_checkpoint(checkpoint))
        print(f"resuming from {checkpoint} at step {trainer.step} of {trainer.total_steps}")
    output.create(config, data, device, trainer.step)
    print(f"run folder: {output.path}")
    if config.data.cache != "none":
        print(f"picture cache: {trainer.batches.pictures}")
    try:
        trainer.fit()
        trainer.load_result(load_checkpoint(output.model))
        result = evaluate_model(trainer.model, data, config)
        rows = {"trained": result.mean}
        if config.evaluation.compare_untrained:
            rows["untrained"] = evaluate_model(build_model(config), data, config).mean
    except KeyboardInterrupt:
        print(f"stopped at step {trainer.step}; go on with --resume auto --output {output.path}", file=sys.stderr)
        raise
    rows["chance"] = chances
    write_json(output.result, rows | {"protocol": result.as_dict()})
    print(format_table(rows))
    print(f"results: {output.result}")


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
        return output.last if output.last.exists() else None
    if not Path(resume).is_file():
        raise InputError(f"--resume {resume}: no such checkpoint file")
    return Path(resume)


if __name__ == "__main__":
    run(main)

"""A training and the evaluation of its result. Imports mindspore: import it after `runtime.set_up`."""

import dataclasses
from pathlib import Path

from ms_vireid.command.printing import say
from ms_vireid.config import Config
from ms_vireid.data.digests import unseen
from ms_vireid.data.processes import require_shared_memory
from ms_vireid.data.records import ReIDData
from ms_vireid.devices import runtime
from ms_vireid.engine.checkpoint import load_checkpoint, load_model
from ms_vireid.engine.distributed import join
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.trainer import Trainer
from ms_vireid.evaluation.protocol import chance, evaluated, protocol_trials
from ms_vireid.evaluation.table import format_table
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import write_json
from ms_vireid.inference.evaluating import evaluate_model
from ms_vireid.inference.features import FeatureExtractor
from ms_vireid.models import build_model
from ms_vireid.programs.program import Program, choose


def start(device: str, config: Config) -> tuple[str, Program, ProcessGroup]:
    """Choose the program and join msrun's other processes, if any.

    device: the device in words, as `runtime.set_up` returns it. Returns what trains, in words, the program and the
    group.
    """
    program = choose(config.train.program, config.train.amp)
    device = "; ".join(filter(None, [device, runtime.round_products(config.train.tf32), str(program)]))
    if not runtime.launched():
        return device, program, ALONE
    group = join()
    return f"{device}, {group.world_size} processes", program, group


def train(
    config: Config,
    data: ReIDData,
    output: RunFolder,
    device: str,
    program: Program,
    checkpoint: Path | None,
    group: ProcessGroup,
) -> None:
    """Run or resume the training in `output` and evaluate the result; result.json holds the table's fractions.

    device, program, group: as `start` returns them.
    """
    with group.together():  # refuse what is impossible before the training
        require_shared_memory(config.data.workers)
        trials = protocol_trials(data, config.evaluation)
    trainer = Trainer(config, data, output, program, group)
    trained = FeatureExtractor.configured(trainer.model, trainer.program, config)

    def evaluate(extractor=trained):
        return evaluate_model(extractor, tested, config.evaluation, group)

    with group.together():
        if checkpoint is not None:
            trainer.resume(load_checkpoint(checkpoint))
        test = unseen(data.test, trainer.state.seen["seen_before"], data.root, quiet=not group.is_main_process)
        tested = dataclasses.replace(data, test=test)
        trials = trials if test is data.test else protocol_trials(tested, config.evaluation)
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
        load_model(trainer.model, load_checkpoint(output.model))
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
    rows["chance"] = chance(tested.test, trials, data.protocol)
    selected = _best_and_last(output.evaluations(), config, result.mean)
    source = {"evaluated": evaluated(config, data.protocol), "sha256": file_checksum(output.model)}
    write_json(output.result, rows | selected | {"protocol": result.as_dict() | source})
    say(*format_table(rows).split("\n"))
    for name, metrics in selected.items():
        say(f"{name} epoch, {metrics['epoch']}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
    say(f"results: {output.result}")


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

"""The training loop."""

from pathlib import Path

import torch

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.stopping import stop_requests
from ms_vireid.config import Config, dump_config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.digests import RECORD, training_record
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.plan import Plan
from ms_vireid.engine.run_folder import require_same_run
from torch_ref.engine.batches import iterate
from torch_ref.engine.checkpoint import Checkpoint, load_model, load_optimizer, save_checkpoint
from torch_ref.engine.train_step import build_step, loss_scaler
from torch_ref.losses.stage import StageLoss
from torch_ref.models import build_model
from torch_ref.optimizers.build import build_optimizer


def train(
    config: Config,
    data: ReIDData,
    output: Path | None,
    checkpoint: Checkpoint | None,
    device: torch.device,
    steps: int | None = None,
) -> None:
    """Train a new model, or the one of `checkpoint`, on `steps` batches or to the end, and print each step's terms.

    Raises KeyboardInterrupt on Ctrl-C or SIGTERM, after the current step, once the state is written to `output`."""
    batches = TrainingBatches(data.train, config)
    model = build_model(config).to(device).train()
    optimizer = build_optimizer(model, config)
    scaler = loss_scaler(config.train.amp, device)
    meta = {"config": dump_config(config), "data_checksum": data.checksum, "step": 0, "best": None, "devices": 1}
    meta |= training_record(data.train.paths, data.test.paths, model.began_from)
    if checkpoint is not None:
        require_same_run(checkpoint, config, data, len(batches))
        load_model(model, checkpoint)
        load_optimizer(optimizer, checkpoint)
        if scaler.is_enabled() and "loss_scale" in checkpoint.meta:
            scale, good_steps = checkpoint.meta["loss_scale"]
            scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": int(good_steps)})
        kept = ("step", "best", "data_checksum", *RECORD)
        meta |= {key: checkpoint.meta[key] for key in kept if key in checkpoint.meta}
    first, left = meta["step"], len(batches) - meta["step"]
    if not left:
        raise InputError(f"{checkpoint.path}: is at the last step, {first}; there is nothing left to train")
    steps = left if steps is None else steps
    if not 1 <= steps <= left:
        raise InputError(f"--steps {steps}: the recipe has {left} steps to go from {first}; ask for 1 to {left}")
    plan = Plan(config, optimizer.groups, batches.sampler.iterations)
    stage = train_step = None
    with stop_requests() as stop:
        for step, (images, labels) in enumerate(iterate(batches, config.data.workers, first, first + steps), first):
            planned = plan(step)
            if planned.stage is not stage:
                stage = planned.stage
                loss = StageLoss(stage.losses, config.train.num_instances, config.augmentation.parts)
                clip_norm = config.optimizer.clip_norm
                train_step = build_step(model, loss, optimizer, config.train.amp, clip_norm, scaler)
            images, labels = (torch.from_numpy(part).to(device) for part in (images, labels))
            key = torch.tensor(planned.key, device=device)  # int32 scalar
            terms = train_step(images, labels, key, planned.progress, planned.rates)
            values = " ".join(f"{name} {value:.6f}" for name, value in loss.named(terms).items())
            say(f"epoch {planned.epoch}/{config.epochs} step {step + 1}/{len(batches)} | {values}")
            if stop:
                break
        if scaler.is_enabled():
            meta["loss_scale"] = [scaler.get_scale(), scaler.state_dict()["_growth_tracker"]]
        if output is not None:
            save_checkpoint(output, model, meta | {"step": step + 1}, optimizer)
            say(f"wrote {output}")
    if step + 1 < first + steps:
        then = f"go on with --resume {output}" if output else "nothing is kept without --output"
        say(f"stopped at step {step + 1}; {then}", error=True)
        raise KeyboardInterrupt

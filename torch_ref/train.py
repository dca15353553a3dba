"""Train the configured method for a few steps in PyTorch, on the batches and with the random numbers of ms_vireid."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ms_vireid.command import Parser, add_overrides, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.randomness import step_key
from ms_vireid.data.read import read_data, validate_for_training
from ms_vireid.errors import InputError
from torch_ref.engine.optimizer import AdamW, ParameterGroup, pmt_groups
from torch_ref.engine.schedule import warmup_cosine
from torch_ref.engine.train_step import StageLoss, TrainStep
from torch_ref.models import build_model


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG_ROOT / "demo.yaml", help="YAML file with the recipe")
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (data.root)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="batches to train on, from the first")
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers (seed)")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()

    overrides = list(arguments.overrides)
    if arguments.data_root is not None:
        overrides.append(f"data.root={arguments.data_root}")
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    config = load_config(arguments.config, overrides)
    data = read_data(config.data)
    if warning := validate_for_training(data, config.train.num_instances):
        print(f"note: {warning}")
    identities = data.train.num_identities
    if config.model.num_classes not in (None, identities):
        raise InputError(
            f"model.num_classes={config.model.num_classes}, the training set has {identities} identities; leave it out"
        )
    model = config.model.model_copy(update={"num_classes": identities})
    train(config.model_copy(update={"model": model}), TrainingBatches(data.train, config), arguments.steps)


def train(config: Config, batches: TrainingBatches, steps: int) -> None:
    """Train a new model on the first `steps` batches and print each step's loss terms."""
    if not 1 <= steps <= len(batches):
        raise InputError(f"--steps {steps}: the recipe has {len(batches)} steps; ask for 1 to {len(batches)}")
    model = build_model(config).train()
    groups = pmt_groups(model, config.optimizer)
    optimizer = AdamW(groups, config.optimizer.betas, config.optimizer.eps, config.optimizer.weight_decay)
    stages = [stage for stage in config.stages for _ in range(stage.epochs)]  # of each epoch
    for step in range(steps):
        epoch = 1 + step // batches.sampler.iterations
        train_step = TrainStep(model, StageLoss(stages[epoch - 1].losses, config.train.num_instances), optimizer)
        batch = batches[step]
        if isinstance(batch, InputError):
            raise batch
        images, labels = map(torch.from_numpy, batch)
        key = torch.tensor(step_key(config.seed, step))  # int32 scalar
        terms = train_step(images, labels, key, learning_rates(config, groups, epoch))
        values = " ".join(f"{name} {value:.6f}" for name, value in terms.items())
        print(f"epoch {epoch}/{config.epochs} step {step + 1}/{len(batches)} | {values}", flush=True)


def learning_rates(config: Config, groups: Sequence[ParameterGroup], epoch: int) -> list[float]:
    """Of each parameter group in a 1-based epoch."""
    schedule = config.schedule
    ends = (config.epochs, schedule.warmup_epochs, schedule.start_lr, schedule.floor_lr)
    return [warmup_cosine(epoch, config.optimizer.lr * group.lr_factor, *ends) for group in groups]


if __name__ == "__main__":
    run(main)

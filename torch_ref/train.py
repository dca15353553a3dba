"""Train the configured method for a few steps in PyTorch, on the batches and with the random numbers of ms_vireid."""

from collections.abc import Sequence

import torch

from ms_vireid.command import Parser, add_recipe, recipe, run
from ms_vireid.config import Config
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
    add_recipe(parser)
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="batches to train on, from the first")
    arguments = parser.parse_intermixed_args()

    config = recipe(arguments)
    data = read_data(config.data)
    if warning := validate_for_training(data, config.train.num_instances):
        print(f"note: {warning}")
    config = config.with_num_classes(data.train.num_identities)
    train(config, TrainingBatches(data.train, config), arguments.steps)


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

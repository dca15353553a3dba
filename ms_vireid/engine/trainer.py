"""The training loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.backend import Backend, Step
from ms_vireid.command.errors import FULL, InputError
from ms_vireid.command.printing import progress
from ms_vireid.command.stopping import stop_requests
from ms_vireid.config import Config, StageConfig
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.records import ReIDData
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.checkpoint import TrainingState, load_checkpoint, load_model
from ms_vireid.engine.log import TrainingLog
from ms_vireid.engine.plan import Plan, Planned, every
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder, require_readable_log
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.evaluation.protocol import ProtocolResult
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer


class Trainer:
    """Trains the configured model, stage by stage, into a run folder.

    Every random number follows from the seed and the step, so the step, the weights and the optimiser's state suffice
    to resume. In a group, each process trains on its part of every batch and updates by the mean of all gradients, so
    all have the same weights; the first process writes and prints. All processes call the same methods.
    """

    @DEVICE
    def __init__(self, config: Config, data: ReIDData, run: RunFolder, backend: Backend, group: ProcessGroup = ALONE):
        self.config = config
        self.run = run
        self.group = group
        with group.together():
            self.batches = TrainingBatches(data.train, config, group.rank, group.world_size)
        self.backend = backend
        self.model = build_model(config)
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = loss_scaler(config.train.amp)
        self.plan = Plan(config, self.optimizer.groups, self.batches.sampler.iterations)
        require_readable_log(config, self.plan.steps)
        self.state = TrainingState(config, data, run, group, self.model, self.optimizer, self.scaler)
        self.log = TrainingLog(self.plan, run, group, self.batches.batch_size)
        self._stage: StageConfig | None = None  # that `_train_step` was built for
        self._train_step: Step | None = None
        group.train_together(self.model, config.train.sync_batch_norm)

    @property
    def step(self) -> int:
        """The number of completed steps."""
        return self.state.step

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; raises InputError unless this run wrote it, on as many devices."""
        self.state.load(load_checkpoint(checkpoint), self.plan.steps)

    @DEVICE
    def load(self, weights: Path) -> None:
        """Take weights that `fit` wrote; raises InputError as `load_model` does."""
        load_model(self.model, load_checkpoint(weights))
        self.backend.accelerate(self.model)

    def fit(self, evaluate: Callable[[], ProtocolResult] | None = None) -> None:
        """Train to the end, then write model.safetensors. evaluate: returns the metrics of the current model, in every
        process; needed for `train.evaluate_every`.

        Raises InputError for a loss that is not finite, a picture that cannot be decoded, a checkpoint that cannot be
        written, and if memory runs out; KeyboardInterrupt on Ctrl-C or SIGTERM, after writing last.safetensors.
        """
        train, state, log, steps = self.config.train, self.state, self.log, self.plan.steps
        if state.step == 0 and 0 in train.keep_epochs:
            state.save_weights(self.run.kept(0), 0)
        self.model.set_train()
        log.start(state.step)
        batches = iterate(self.batches, self.config.data.workers, state.step, self.backend.compiled)
        with stop_requests() as stop, closing(batches):
            items = self.group.items(batches)
            for images, labels in progress(items, steps, "training", " images", self.batches.batch_size, state.step):
                planned = self.plan(state.step)
                with DEVICE, explain_out_of_memory(f"training step {state.step + 1} of {len(images)} images"):
                    log.queue(self.queue_step(planned, images, labels))
                    self.group.average_statistics()
                state.step += 1
                ends_epoch = every(state.step, self.plan.iterations)
                logs = every(state.step, train.log_steps) or state.step == steps
                saves = ends_epoch or every(state.step, train.checkpoint_steps)
                reads = logs or saves or self.group.any(bool(stop))
                if reads:
                    log.read_queued(state.step, planned.epoch)
                if logs:
                    log.write(state.step, planned)
                if ends_epoch:
                    self._end_epoch(planned.epoch, evaluate)
                stopping = reads and self.group.any(bool(stop))  # also by a signal since
                if saves or stopping:
                    state.save()
                if stopping and state.step < steps:
                    raise KeyboardInterrupt
        if train.select == "last":
            state.save_weights(self.run.model, self.config.epochs)

    def queue_step(self, planned: Planned, images: np.ndarray, labels: np.ndarray) -> Tensor:
        """Queue the next step and return its loss terms, which have not been computed yet."""
        if self._stage is not planned.stage:
            self._begin(planned.stage)
        scalars = self.optimizer.scalars(self.step + 1, planned.rates)
        return self._train_step(images, labels, planned.key, planned.progress, scalars)

    def _begin(self, stage: StageConfig) -> None:
        loss = StageLoss(stage.losses, self.config.train.num_instances, self.config.augmentation.parts)
        self.log.begin_stage(loss)
        self._stage = stage
        self._train_step = build_step(
            self.model,
            loss,
            self.optimizer,
            self.backend,
            self.config.optimizer.clip_norm,
            self.scaler,
            self.group.gradient_mean(),
            announce=self.group.is_main_process,
        )
        if self.group.is_main_process:
            self.run.record_as_written(self.backend.notes)

    def _end_epoch(self, epoch: int, evaluate: Callable[[], ProtocolResult] | None) -> None:
        train, state = self.config.train, self.state
        if every(epoch, train.evaluate_every):
            started_at = time.perf_counter()
            metrics = evaluate().mean
            self.log.write_evaluation(state.step, epoch, metrics, time.perf_counter() - started_at)
            if train.select == "best" and (state.best is None or metrics["map"] > state.best["map"]):
                state.best = {"epoch": epoch, "map": metrics["map"]}
                state.save_weights(self.run.model, epoch)
        if epoch in train.keep_epochs:
            state.save_weights(self.run.kept(epoch), epoch)


SMALLER = "train.recompute=true, train.backend=eager, or a smaller train.num_identities or data.image_size"


@contextmanager
def explain_out_of_memory(doing: str) -> Iterator[None]:
    """Raise InputError if the device runs out of memory in the block, which is `doing` this; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        raise InputError(f"out of memory in {doing}; try {SMALLER}") from error

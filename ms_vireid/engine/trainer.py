"""The training loop, its log, and the checkpoints it can be resumed from."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from tqdm import tqdm

from ms_vireid.command.errors import FULL, InputError
from ms_vireid.command.printing import say
from ms_vireid.command.progress import progress
from ms_vireid.command.stopping import stop_requests
from ms_vireid.config import Config, StageConfig, dump_config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.randomness import step_key
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.checkpoint import DEVICES, Checkpoint, load_parameters, save_checkpoint
from ms_vireid.engine.distributed import MsrunGroup, RunningStatistics, synchronise_batch_norm
from ms_vireid.engine.optimizer import build_optimizer
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.run_folder import RunFolder, require_same_run
from ms_vireid.engine.schedule import learning_rates
from ms_vireid.engine.train_step import StageLoss, TrainStep, loss_scaler
from ms_vireid.evaluation.protocol import ProtocolResult
from ms_vireid.models import build_model
from ms_vireid.programs.prepare import COMPILED, announced, training_program


class Jumps:
    """Finds the steps whose loss is far above all of those a moment before. Above their median is not enough: a small
    batch triples a small loss."""

    FACTOR, FEWEST, MOST = 2.0, 5, 20  # times the largest of so many steps
    RISE = 5  # steps just before, which do not count: the loss may be on its way up

    def __init__(self):
        self._last: deque[float] = deque(maxlen=self.MOST + self.RISE)

    def times(self, loss: float) -> float | None:
        """How many times the largest of the steps before this step's loss is, if that is twice or more. What follows is
        compared with what comes after the jump."""
        before = list(self._last)[: max(self.FEWEST, len(self._last) - self.RISE)]
        largest = max(before) if len(before) >= self.FEWEST else math.inf
        jumped = loss >= self.FACTOR * largest > 0
        if jumped:
            self._last.clear()
        self._last.append(loss)
        return loss / largest if jumped else None


class Trainer:
    """Trains the configured model, stage by stage, into a run folder.

    Every random number follows from the seed and the step: the step, the weights and the optimiser's state are enough
    to resume from. In a group each process trains on its own part of every batch, with the mean of all gradients, so
    that all have the same weights; the first one writes and prints. All call the same methods.
    """

    def __init__(self, config: Config, data: ReIDData, run: RunFolder, group: ProcessGroup = ALONE):
        self.config = config
        self.data = data
        self.data_checksum = data.checksum
        self.run = run
        self.group = group
        with group.together():
            self.batches = TrainingBatches(data.train, config, group.rank, group.world_size)
        self.program = training_program(config.train)
        self.compiled = self.program in COMPILED
        self.iterations = self.batches.sampler.iterations
        self.total_steps = len(self.batches)
        self.model = build_model(config)
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = loss_scaler(config.train.amp)
        self.step = 0  # steps done
        self._stage: StageConfig | None = None  # of `_train_step` and `_jumps`
        self.best = None  # the best evaluation so far, with train.select=best: {"epoch", "map"}
        self.gradient_mean = self.statistics = None
        if isinstance(group, MsrunGroup):
            group.broadcast_parameters(list(self.model.get_parameters()))
            self.model.place(group.rank, group.world_size)
            self.gradient_mean = group.gradient_mean()
            if config.train.sync_batch_norm:
                synchronise_batch_norm(self.model, group)
            else:
                self.statistics = RunningStatistics(self.model, group)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was written; raises InputError unless this run wrote it, on as many devices."""
        meta = checkpoint.meta
        devices = self.group.world_size
        require_same_run(checkpoint, self.config, self.data.root, self.data_checksum, self.total_steps, devices)
        memories = self.model.memories() if devices > 1 else []
        checkpoint.require({f"{DEVICES}.{m.name}": ((devices, *m.shape), np.dtype(np.float32)) for m in memories})
        load_parameters([*self.model.get_parameters(), *self.optimizer.state()], checkpoint)
        for memory in memories:
            ops.assign(memory, Tensor(checkpoint.arrays[f"{DEVICES}.{memory.name}"][self.group.rank]))
        if self.scaler:
            scale, good_steps = meta["loss_scale"]
            ops.assign(self.scaler.scale_value, Tensor(scale, ms.float32))
            ops.assign(self.scaler.counter, Tensor(good_steps, ms.int32))
        self.step = meta["step"]
        self.best = meta["best"]

    def fit(self, evaluate: Callable[[], ProtocolResult] | None = None) -> None:
        """Train to the end, then write model.safetensors. evaluate: gives the metrics of the model as it stands, in
        every process; for `train.evaluate_every`.

        Raises InputError for a loss that is not finite, a picture that cannot be decoded, a checkpoint that cannot be
        written, and when memory is full; KeyboardInterrupt on Ctrl-C or SIGTERM, with last.safetensors written.
        """
        if self.step == 0 and 0 in self.config.train.keep_epochs:
            self._save_weights(self.run.kept(0), 0)
        self.model.set_train()
        self._looked = self.step, time.perf_counter()  # for the speed since the last line of the log
        batches = iterate(self.batches, self.config.data.workers, self.step, bound=not self.compiled)
        queued: list[Tensor] = []  # the terms of steps not read yet
        with stop_requests() as stop, closing(batches):
            size, every = self.batches.batch_size, self.config.train.checkpoint_steps
            items = self.group.items(batches)
            for images, labels in progress(items, self.total_steps, "training", " images", size, self.step):
                epoch = 1 + self.step // self.iterations
                rates = self.learning_rates(epoch)
                with explained(f"training step {self.step + 1} of {len(images)} images", smaller_steps(self.config)):
                    queued.append(self.queue_step(epoch, images, labels, rates))
                if self.statistics:
                    self.statistics.average()
                self.step += 1
                if self.step % self.config.train.log_steps == 0 or self.step == self.total_steps:
                    self._log(self._settle(queued, epoch), rates, epoch)
                stopping = self.group.any(bool(stop))
                if self.step % self.iterations == 0:
                    self._settle(queued, epoch)
                    self._end_epoch(epoch, evaluate)
                    stopping = self.group.any(bool(stop))
                elif stopping or (every and self.step % every == 0):
                    self._settle(queued, epoch)
                    self._save()
                if stopping and self.step < self.total_steps:
                    raise KeyboardInterrupt
        if self.config.train.select == "last":
            self._save_weights(self.run.model, self.config.epochs)

    def learning_rates(self, epoch: int) -> list[float]:
        """Of each parameter group, for the next step."""
        done = self.step % self.iterations / self.iterations
        return learning_rates(self.config, self.optimizer.groups, epoch, done)

    def queue_step(self, epoch: int, images: np.ndarray, labels: np.ndarray, rates: list[float]) -> Tensor:
        """The loss terms of the next step, not yet read. A stage's first step announces that it is compiled."""
        stage = self.config.stage_of(epoch)
        begins = self._stage is not stage
        if begins:
            loss = StageLoss(stage.losses, self.config.train.num_instances, self.config.augmentation.parts)
            computed = self.program, self.config.train.amp, self.scaler, self.gradient_mean
            self._stage, self._train_step = stage, TrainStep(self.model, loss, self.optimizer, *computed)
            self._jumps = Jumps()  # other terms of other pictures
        progress = self.config.model.progress(self.step, self.total_steps, self.iterations)
        scalars = self.optimizer.scalars(self.step + 1, rates)
        announce = begins and self.compiled and self.group.is_main_process
        with announced("the training step") if announce else nullcontext():
            return self._train_step(images, labels, step_key(self.config.seed, self.step), progress, scalars)

    def _settle(self, queued: list[Tensor], epoch: int) -> dict[str, float]:
        """Wait for the queued steps, all of one epoch, check that their terms are finite, and say where the loss has
        jumped; the last step's terms.

        Reading the terms of each step would leave a GPU idle between two steps. Every checkpoint is written after this.
        """
        if not queued:
            return {}
        rows = self.group.all_reduce_mean(ops.stack(queued).asnumpy())
        queued.clear()
        with self.group.together():
            for step, row in enumerate(rows, self.step - len(rows) + 1):
                terms = self._train_step.named(row)
                wrong = [f"{name}={value}" for name, value in terms.items() if not math.isfinite(value)]
                if wrong:
                    last = self.run.last
                    good = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint yet"
                    where = f"at epoch {epoch}, step {step}; {good}"
                    raise InputError(f"{', '.join(wrong)} {where}; lower optimizer.lr or check the data")
                if (times := self._jumps.times(terms["loss"])) and self.group.is_main_process:
                    what = f"the loss {terms['loss']:.4f} is {times:.1f} times the largest of the last steps"
                    remedy = "if it does not come back, lower optimizer.lr or set optimizer.clip_norm"
                    say(f"note: epoch {epoch}, step {step}: {what}; {remedy}")
        return terms

    def _log(self, terms: dict[str, float], rates: list[float], epoch: int) -> None:
        if not self.group.is_main_process:
            return
        now = time.perf_counter()
        step, then = self._looked
        self._looked = self.step, now
        seconds = (now - then) / (self.step - step)
        speed = self.batches.batch_size / seconds
        named = {f"lr_{group.name}": rate for group, rate in zip(self.optimizer.groups, rates, strict=True)}
        self.run.append_metrics(
            {"epoch": epoch, "step": self.step, **terms, **named, "images_per_second": round(speed, 2)}
        )
        left = tqdm.format_interval((self.total_steps - self.step) * seconds)
        values = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
        say(
            f"epoch {epoch}/{self.config.epochs} step {self.step}/{self.total_steps} | {values} | "
            f"lr {named['lr_full']:.2e} | {speed:.1f} images/s | {left} left"
        )

    def _end_epoch(self, epoch: int, evaluate: Callable[[], ProtocolResult] | None) -> None:
        every = self.config.train.evaluate_every
        if every and epoch % every == 0:
            began = time.perf_counter()
            metrics = evaluate().mean
            step, then = self._looked
            self._looked = step, then + time.perf_counter() - began  # an evaluation is no training
            if self.group.is_main_process:
                self.run.append_metrics({"epoch": epoch, "step": self.step, "evaluation": metrics})
                say(f"epoch {epoch}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
            if self.config.train.select == "best" and (self.best is None or metrics["map"] > self.best["map"]):
                self.best = {"epoch": epoch, "map": metrics["map"]}
                self._save_weights(self.run.model, epoch)
        if epoch in self.config.train.keep_epochs:
            self._save_weights(self.run.kept(epoch), epoch)
        self._save()

    def _save(self) -> None:
        """Write the state to resume from, with what the model remembers on each of several devices."""
        state = [*self.model.get_parameters(), *self.optimizer.state()]
        if self.group.world_size > 1:
            for memory in self.model.memories():
                rows = Tensor(self.group.all_gather(memory.asnumpy()))
                state.append(Parameter(rows, name=f"{DEVICES}.{memory.name}"))
        meta = {
            "config": dump_config(self.config),
            "data_checksum": self.data_checksum,
            "step": self.step,
            "best": self.best,
            "devices": self.group.world_size,
        }
        if self.scaler:
            meta["loss_scale"] = [float(self.scaler.scale_value.asnumpy()), int(self.scaler.counter.asnumpy())]
        self._write(self.run.last, state, meta)

    def _save_weights(self, path: Path, epoch: int) -> None:
        self._write(path, self.model.get_parameters(), {"config": dump_config(self.config), "epoch": epoch})

    def _write(self, path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
        """One checkpoint for all processes, which wait until it is there."""
        with self.group.together():
            if self.group.is_main_process:
                save_checkpoint(path, parameters, meta)


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Raise InputError if the device runs out of memory while `doing` this; any other error passes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        raise InputError(f"out of memory in {doing}; try {remedy}") from error


def smaller_steps(config: Config) -> str:
    """Settings that make a training step need less memory: first those that change no result, then smaller batches."""
    train = config.train
    settings = []
    if train.program in COMPILED:
        settings.append("train.program=operators")
    if not train.recompute:
        settings.append("train.recompute=true")
    for key in ("num_identities", "num_instances"):
        if (now := getattr(train, key)) > 2:
            settings.append(f"train.{key}={max(now // 2, 2)} (now {now})")
            break
    return " or ".join(settings) or "smaller pictures (data.image_size) or a device with more memory"

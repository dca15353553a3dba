"""The training log: lines on the terminal and rows of metrics.jsonl."""

import math
import time
from collections import deque

from mindspore import Tensor, ops
from tqdm import tqdm

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.plan import Plan, Planned
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.losses.stage import StageLoss

RECOVERY = "if it does not recover, train again with optimizer.clip_norm=1 or less, or a lower optimizer.lr"


class Jumps:
    """Detects steps whose loss is far above all recent ones. A threshold on their median would not do: a small batch
    triples a small loss."""

    FACTOR = 2.0  # over the largest of the recent losses
    MIN_STEPS, MAX_STEPS = 5, 20  # to compare with
    RISE = 5  # steps just before, which are left out: the loss may already be rising

    def __init__(self):
        self._losses: deque[float] = deque(maxlen=self.MAX_STEPS + self.RISE)

    def times(self, loss: float) -> float | None:
        """Return the ratio of this step's loss to the largest recent one if it is at least `FACTOR`, else None. After a
        jump the comparison starts again."""
        recent = list(self._losses)[: max(self.MIN_STEPS, len(self._losses) - self.RISE)]
        largest = max(recent) if len(recent) >= self.MIN_STEPS else math.inf
        jumped = loss >= self.FACTOR * largest > 0
        if jumped:
            self._losses.clear()
        self._losses.append(loss)
        return loss / largest if jumped else None


class TrainingLog:
    """Reads the loss terms of queued steps, checks them and logs some. In a group, the first process prints and writes.

    Terms are read several steps late: reading those of each step would leave a GPU idle between steps.
    """

    def __init__(self, plan: Plan, run: RunFolder, group: ProcessGroup, batch_size: int):
        self.plan = plan
        self.run = run
        self.group = group
        self.batch_size = batch_size
        self._queued: list[Tensor] = []
        self._loss: StageLoss | None = None
        self._jumps = Jumps()
        self._terms: dict[str, float] = {}  # of the last step that was read
        self._last_line = 0, 0.0  # step and time

    def start(self, step: int) -> None:
        """Start the clock, after `step` steps."""
        self._last_line = step, time.perf_counter()

    def begin_stage(self, loss: StageLoss) -> None:
        """Log the terms of another stage's loss from now on."""
        self._loss, self._jumps = loss, Jumps()

    def queue(self, terms: Tensor) -> None:
        self._queued.append(terms)

    @DEVICE
    def read_queued(self, step: int, epoch: int) -> None:
        """Wait for the queued steps, check that their terms are finite, and report jumps of the loss. Call it before
        every checkpoint. step: the last one queued. epoch: of all of them."""
        if not self._queued:
            return
        rows = self.group.all_reduce_mean(ops.stack(self._queued).asnumpy())
        self._queued.clear()
        with self.group.together():
            for number, row in enumerate(rows, step - len(rows) + 1):
                self._terms = self._loss.named(row)
                self._check(epoch, number)
                if (times := self._jumps.times(self._terms["loss"])) and self.group.is_main_process:
                    what = f"the loss {self._terms['loss']:.4f} is {times:.1f} times the largest of the last steps"
                    say(f"note: epoch {epoch}, step {number}: {what}; {RECOVERY}")

    def _check(self, epoch: int, step: int) -> None:
        if wrong := [f"{name}={value}" for name, value in self._terms.items() if not math.isfinite(value)]:
            good = f"the last good checkpoint is {self.run.last}" if self.run.last.exists() else "no checkpoint yet"
            what = f"{', '.join(wrong)} at epoch {epoch}, step {step}"
            raise InputError(f"{what}; {good}; lower optimizer.lr or check the data")

    def write(self, step: int, planned: Planned) -> None:
        """Log the step that was read last."""
        if not self.group.is_main_process:
            return
        (last_step, last_time), now = self._last_line, time.perf_counter()
        self._last_line = step, now
        seconds = (now - last_time) / (step - last_step)
        speed = self.batch_size / seconds
        rates = {f"lr_{group.name}": rate for group, rate in zip(self.plan.groups, planned.rates, strict=True)}
        metrics = {"epoch": planned.epoch, "step": step, **self._terms, **rates}
        self.run.append_metrics(metrics | {"images_per_second": round(speed, 2)})
        left = tqdm.format_interval((self.plan.steps - step) * seconds)
        values = " ".join(f"{name} {value:.4f}" for name, value in self._terms.items())
        say(
            f"epoch {planned.epoch}/{self.plan.config.epochs} step {step}/{self.plan.steps} | {values} | "
            f"lr {rates['lr_full']:.2e} | {speed:.1f} images/s | {left} left"
        )

    def write_evaluation(self, step: int, epoch: int, metrics: dict[str, float], seconds: float) -> None:
        """Log an evaluation. seconds: its duration, which does not count as training."""
        last_step, last_time = self._last_line
        self._last_line = last_step, last_time + seconds
        if self.group.is_main_process:
            self.run.append_metrics({"epoch": epoch, "step": step, "evaluation": metrics})
            say(f"epoch {epoch}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")

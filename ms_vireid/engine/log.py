"""What a training prints and writes to metrics.jsonl."""

import math
import time
from collections import deque

from mindspore import Tensor, ops
from tqdm import tqdm

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.engine.plan import Plan, Planned
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.train_step import StageLoss


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


class TrainingLog:
    """Reads the loss terms of queued steps, checks them, and logs some; of a group the first process prints and writes.

    Reading the terms of each step would leave a GPU idle between two steps.
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
        self._last = 0, 0.0  # step and time of the last line

    def start(self, step: int) -> None:
        """The training goes on after so many steps, now."""
        self._last = step, time.perf_counter()

    def begin_stage(self, loss: StageLoss) -> None:
        """With other terms of other pictures."""
        self._loss, self._jumps = loss, Jumps()

    def queue(self, terms: Tensor) -> None:
        self._queued.append(terms)

    def settle(self, step: int, epoch: int) -> None:
        """Wait for the queued steps, all of one epoch and `step` the last, before every checkpoint: check that their
        terms are finite, and say where the loss has jumped."""
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
                    remedy = "if it does not come back, lower optimizer.lr or set optimizer.clip_norm"
                    say(f"note: epoch {epoch}, step {number}: {what}; {remedy}")

    def _check(self, epoch: int, step: int) -> None:
        if wrong := [f"{name}={value}" for name, value in self._terms.items() if not math.isfinite(value)]:
            last = self.run.last
            good = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint yet"
            where = f"at epoch {epoch}, step {step}; {good}"
            raise InputError(f"{', '.join(wrong)} {where}; lower optimizer.lr or check the data")

    def write(self, step: int, planned: Planned) -> None:
        """A line about the step that was settled last."""
        if not self.group.is_main_process:
            return
        (last_step, then), now = self._last, time.perf_counter()
        self._last = step, now
        seconds = (now - then) / (step - last_step)
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
        """seconds: that it took, which are no training."""
        last_step, then = self._last
        self._last = last_step, then + seconds
        if self.group.is_main_process:
            self.run.append_metrics({"epoch": epoch, "step": step, "evaluation": metrics})
            say(f"epoch {epoch}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")

"""Data-parallel training with one process per device, started by MindSpore's `msrun`: collectives and BatchNorm."""

import json
import signal
import sys

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, communication, nn, ops

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.stopping import end_with_workers, ended_by_signals, signal_with_parent, within_msrun
from ms_vireid.devices import runtime
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.models.base import ReIDModel


def join() -> "MsrunGroup":
    """Join the group of processes; raises InputError if that fails. The launcher's scheduler does not return from here.
    If the launcher is killed, this process receives SIGTERM and stops as for any other."""
    if not within_msrun():
        variables = runtime.variables_set(("MS_ROLE", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT"))
        others = ", ".join(f"{name}={value}" for name, value in variables.items())
        say(f"note: waiting for other processes ({others}); unset MS_ROLE to start without them", error=True)
    if runtime.is_scheduler():
        end_with_workers()
    try:
        with ended_by_signals():
            communication.init()
    except RuntimeError as error:
        problem = f"msrun: the processes did not find each other ({str(error).splitlines()[0]})"
        raise InputError(f"{problem}; unset MS_ROLE to start without others") from None
    signal_with_parent(signal.SIGTERM)
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return MsrunGroup(communication.get_rank(), communication.get_group_size())


class MsrunGroup(ProcessGroup):
    """One process of a group that msrun started."""

    def __init__(self, rank: int, world_size: int):
        self.rank = rank
        self.world_size = world_size
        self._sum = ops.AllReduce()
        self._statistics: RunningStatistics | None = None

    def train_together(self, model: ReIDModel, sync_batch_norm: bool) -> None:
        broadcast = ops.Broadcast(0)
        for parameter in model.get_parameters():
            ops.assign(parameter, broadcast((Tensor(parameter.asnumpy()),))[0])
        for _, cell in model.cells_and_names():
            if hasattr(cell, "shard"):  # it draws random numbers
                cell.shard = (self.rank, self.world_size)
        if sync_batch_norm:
            synchronise_batch_norm(model, self)
        else:
            self._statistics = RunningStatistics(model, self)

    def average_statistics(self) -> None:
        if self._statistics:
            self._statistics.average()

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over all processes, float32."""
        values = np.asarray(values, np.float32)
        return self._sum(Tensor(values.reshape(-1))).asnumpy().reshape(values.shape)

    def merge_rows(self, rows: np.ndarray | None) -> np.ndarray:
        shape = self.all_gather(np.array((0, 0) if rows is None else rows.shape)).max(axis=0).astype(int)
        return self.all_reduce(np.zeros(shape) if rows is None else rows)

    def broadcast(self, value):
        return json.loads(self._text_of(0, json.dumps(value)))

    def _text_of(self, rank: int, text: str) -> str:
        """Return the text that the process of this rank passes; those of the others do not count."""
        encoded = text.encode() if self.rank == rank else b""
        letters = np.zeros(int(self.all_reduce(np.array([len(encoded)]))[0]))
        letters[: len(encoded)] = list(encoded)
        return self.all_reduce(letters).astype(np.uint8).tobytes().decode()

    def all_reduce_mean(self, values: np.ndarray) -> np.ndarray:
        return self.all_reduce(values) / self.world_size

    def any(self, flag: bool) -> bool:
        return bool(self.all_reduce(np.array([flag]))[0])

    def barrier(self, error: InputError | None = None) -> None:
        failed = self.all_gather(np.array([error is not None]))[:, 0]
        if not failed.any():
            return
        text = self._text_of(int(failed.argmax()), str(error))
        if self.is_main_process:
            raise InputError(text) from error
        sys.exit(2)

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """Return the values of all processes by rank: float32 [world_size, ...]."""
        rows = np.zeros((self.world_size, *values.shape), np.float32)
        rows[self.rank] = values
        return self.all_reduce(rows)

    def gradient_mean(self) -> nn.Cell:
        """Return a cell from this process's gradients to the mean over all processes."""
        return GradientMean(self.world_size)


class GradientMean(nn.Cell):
    """The mean over all processes, tensor by tensor."""

    def __init__(self, world_size: int):
        super().__init__()
        self.share = 1.0 / world_size
        self.sum = ops.AllReduce()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        means = ()
        for gradient in gradients:
            means += (self.sum(gradient) * self.share,)
        return means


class AllStatistics(nn.Cell):
    """Normalise x by the mean and variance over the batches of all processes, which have the same size.

    They follow from each batch's statistics without the cancellation of E[x^2] - E[x]^2 (Chan et al. 1979). `bprop` is
    written out because the gradient needs sums over all processes too; it keeps only x and the statistics.
    """

    def __init__(self, group: MsrunGroup, eps: float):
        super().__init__()
        self.eps = eps
        self.world_size = group.world_size
        self.rank_row = Tensor(np.eye(group.world_size, dtype=np.float32)[:, [group.rank]])  # [world_size, 1]
        self.sum = ops.AllReduce()

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32 [N, C] or [N, C, H, W] -> the same normalised, mean [C], biased variance [C]."""
        channels = x.shape[1]
        axes, shape = self.layout(x)
        mean = x.mean(axes)
        variance = ops.square(x - mean.reshape(shape)).mean(axes)
        rows = self.sum(self.rank_row * ops.concat((mean, variance)).reshape(1, 2 * channels))  # [world_size, 2C]
        means, variances = rows[:, :channels], rows[:, channels:]
        mean = means.mean(0)
        variance = variances.mean(0) + ops.square(means - mean).mean(0)
        return (x - mean.reshape(shape)) * ops.rsqrt(variance + self.eps).reshape(shape), mean, variance

    def bprop(self, x: Tensor, out: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Gradient through x normalised alone: the statistics only feed the running averages."""
        channels = x.shape[1]
        axes, shape = self.layout(x)
        gradient, normalised = gradients[0], out[0]
        means = ops.concat((gradient.mean(axes), (gradient * normalised).mean(axes)))
        means = self.sum(means) / self.world_size
        along = means[:channels].reshape(shape) + normalised * means[channels:].reshape(shape)
        return ((gradient - along) * ops.rsqrt(out[2] + self.eps).reshape(shape),)

    def layout(self, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the axes that statistics are taken over, and the shape that broadcasts them to x."""
        if x.ndim == 2:
            return (0,), (1, x.shape[1])
        return (0, 2, 3), (1, x.shape[1], 1, 1)


class AllBatchNorm(nn.Cell):
    """Replaces a BatchNorm's operator `bn_train`. momentum: weight of the new statistics, as in the operator."""

    def __init__(self, group: MsrunGroup, eps: float, momentum: float):
        super().__init__()
        self.world_size = group.world_size
        self.momentum = momentum
        self.normalise = AllStatistics(group, eps)

    def construct(
        self, x: Tensor, gamma: Parameter, beta: Parameter, moving_mean: Parameter, moving_variance: Parameter
    ) -> tuple[Tensor]:
        """[N, C] or [N, C, H, W] of any float type -> the same, computed in float32, in a tuple like the operator's."""
        shape = self.normalise.layout(x)[1]
        normalised, mean, variance = self.normalise(x.astype(ms.float32))
        count = self.world_size * x.size // x.shape[1]
        unbiased = ops.stop_gradient(variance) * (count / (count - 1.0))
        ops.assign(moving_mean, moving_mean + self.momentum * (ops.stop_gradient(mean) - moving_mean))
        ops.assign(moving_variance, moving_variance + self.momentum * (unbiased - moving_variance))
        return ((normalised * gamma.reshape(shape) + beta.reshape(shape)).astype(x.dtype),)


def batch_norms(model: nn.Cell) -> list[nn.Cell]:
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d)]


def synchronise_batch_norm(model: nn.Cell, group: MsrunGroup) -> None:
    """Make every BatchNorm normalise by the batches of all processes. `nn.SyncBatchNorm` supports Ascend only."""
    for cell in batch_norms(model):
        cell.bn_train = AllBatchNorm(group, cell.eps, cell.momentum)


class RunningStatistics:
    """The running averages of BatchNorms that normalise by their own process's batch. They are averaged after every
    step, so that all processes evaluate and save the same model."""

    def __init__(self, model: nn.Cell, group: MsrunGroup):
        self.parameters = [p for cell in batch_norms(model) for p in (cell.moving_mean, cell.moving_variance)]
        self.ends = np.cumsum([p.size for p in self.parameters])
        self.world_size = group.world_size
        self.sum = ops.AllReduce()

    def average(self) -> None:
        if not self.parameters:
            return
        means = self.sum(ops.concat([p.value() for p in self.parameters])) / self.world_size
        for parameter, end in zip(self.parameters, self.ends.tolist(), strict=True):
            ops.assign(parameter, means[end - parameter.size : end])

"""The processes of a data-parallel run. Here a single one, without a framework; `distributed.py` has one of several."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from ms_vireid.command.errors import InputError

_END = object()


class ProcessGroup:
    """What a process asks of the others, all in the same order; a single process gets its own answers back."""

    rank = 0
    world_size = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def merge_rows(self, rows: np.ndarray | None) -> np.ndarray:
        """The rows of all processes, float32 [N, C]. Each fills in its own, and zeros elsewhere, or gives None."""
        return rows

    def all_reduce_mean(self, values: np.ndarray) -> np.ndarray:
        """Each value's mean over all processes."""
        return values

    def train_together(self, model, sync_batch_norm: bool) -> None:
        """Give all processes the first one's weights, and each a share of the random numbers; with `sync_batch_norm`
        let BatchNorm normalise by all processes' batches."""

    def gradient_mean(self):
        """A function from this process's gradients to the mean of all; None: they are that."""
        return

    def average_statistics(self) -> None:
        """After every step: the running averages of BatchNorms that normalise by their own process's batch."""

    def any(self, flag: bool) -> bool:
        """Whether any process sets the flag."""
        return flag

    def barrier(self, error: InputError | None = None) -> None:
        """Wait for all processes. If any has an error, the first process raises it, and the others exit silently with
        its exit code."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that fails in all processes if it fails in any."""
        try:
            yield
        except InputError as error:
            self.barrier(error)
            raise
        self.barrier()

    def items(self, items: Iterable) -> Iterator:
        """The items, equally many in every process; an error while making one is raised in all."""
        iterator = iter(items)
        while True:
            with self.together():
                item = next(iterator, _END)
            if item is _END:
                return
            yield item


ALONE = ProcessGroup()

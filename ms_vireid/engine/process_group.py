"""The processes of a data-parallel run: here a single one, without a framework; `distributed.py` has several."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from ms_vireid.command.errors import InputError

_END = object()


class ProcessGroup:
    """Communication between processes, which all make the same calls in the same order. A single process gets its own
    values back."""

    rank = 0
    world_size = 1

    @property
    def is_main_process(self) -> bool:
        """Return whether this process writes and prints."""
        return self.rank == 0

    def merge_rows(self, rows: np.ndarray | None) -> np.ndarray:
        """Combine rows, float32 [N, C], of which each process fills in some and leaves zeros elsewhere, or passes
        None."""
        return rows

    def broadcast(self, value):
        """Return the first process's value, of JSON's types, in all processes."""
        return value

    def all_reduce_mean(self, values: np.ndarray) -> np.ndarray:
        """Return each value's mean over all processes."""
        return values

    def train_together(self, model, sync_batch_norm: bool) -> None:
        """Copy the first process's weights to all, and give each its share of the random numbers. With
        `sync_batch_norm`, make BatchNorm normalise by the batches of all processes."""

    def gradient_mean(self):
        """Return a function from this process's gradients to the mean over all; None if there is nothing to average."""
        return

    def average_statistics(self) -> None:
        """Average the running statistics of BatchNorms that normalise by their own process's batch. Call it after every
        step."""

    def any(self, flag: bool) -> bool:
        """Return whether any process sets the flag."""
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
        """Iterate over items, equally many in every process; an error in one process is raised in all."""
        iterator = iter(items)
        while True:
            with self.together():
                item = next(iterator, _END)
            if item is _END:
                return
            yield item


ALONE = ProcessGroup()

"""The processes of a data-parallel run as the trainer sees them: here the one that is alone; without a framework.

`engine/distributed.py` has the process that is one of several.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ms_vireid.command.errors import InputError

_END = object()


class ProcessGroup:
    """What a process asks of the others; one that is alone gets its own answers back.

    Every method but the properties is called by all processes, in the same order.
    """

    rank = 0  # of this process
    world_size = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def merge_rows(self, rows: np.ndarray | None) -> np.ndarray:
        """float32 [N, C] in which each process has filled other rows, the rest being zeros, with the rows of all; None
        from a process that has none."""
        return rows

    def all_reduce_mean(self, values: np.ndarray) -> np.ndarray:
        """Each value's mean over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is set in one of them."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """What the first process has: plain values, as of JSON."""
        return value

    def barrier(self, error: InputError | None = None) -> None:
        """Return when no process has an error. Where one has, this does not return in processes of several: the first
        raises the error of the first that has one, and the others end with its exit code and say nothing."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that fails in all processes if it fails in one."""
        try:
            yield
        except InputError as error:
            self.barrier(error)
            raise
        self.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """A block whose files the first process makes and the others then find; it fails in all or in none."""
        if not self.is_main_process:
            self.barrier()
        with self.together():
            yield
        if self.is_main_process:
            self.barrier()

    def items(self, items: Iterable) -> Iterator:
        """The items, as many in every process; an error on the way to one of them is raised in all."""
        iterator = iter(items)
        while True:
            with self.together():
                item = next(iterator, _END)
            if item is _END:
                return
            yield item


ALONE = ProcessGroup()

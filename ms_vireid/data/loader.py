"""Batches from worker processes, by `mindspore.dataset.dataloader`; an item is a whole batch.

A worker returns the error of a broken picture as its item, and `iterate` raises it: the user sees one line about the
picture instead of the worker's traceback.
"""

import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import takewhile

import numpy as np
from mindspore.dataset.dataloader import DataLoader

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import leave_to_parent, stop_requests
from ms_vireid.data.batches import Batches
from ms_vireid.data.processes import by_fork, require_shared_memory
from ms_vireid.devices.runtime import bound_threads, unbind
from ms_vireid.devices.turns import DEVICE

_PREFETCH = 2  # batches per worker


def iterate(
    batches: Batches, workers: int, start: int = 0, compiled: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over `batches` from `start` on, in order, prepared ahead by `workers` processes (0: by this one). An
    item's pictures are overwritten once the next is asked for: copy those that are to stay.

    From the second item to the last, threads of MindSpore are bound to cores (`runtime.bound_threads`). compiled:
    whether they run a compiled graph.
    Closing the iterator early lets the workers finish their current batches and ends them. So does Ctrl-C, unless the
    caller is within `stop_requests`: an exception while waiting for the workers' queue would leave them hanging.

    Raises InputError for a broken picture or if there is no memory that workers can share, and KeyboardInterrupt on
    Ctrl-C or SIGTERM after the current item.
    """
    numbers = range(start, len(batches))
    stopped = False
    workers = min(workers, len(numbers))
    require_shared_memory(workers)
    shared = _SharedMemory(batches, slots=_PREFETCH * workers + 1)
    with stop_requests() as stop:
        wanted = takewhile(lambda _: not stopped, numbers)
        loader = _in_workers(shared, wanted, workers) if workers else map(shared.__getitem__, wanted)
        try:
            with ExitStack() as threads:
                for number, item in enumerate(loader, start):
                    if number == start + 1:  # not before: threads started within the block inherit one core
                        threads.enter_context(bound_threads(compiled))
                    if isinstance(item, InputError):
                        raise item
                    yield shared.taken(number, item)
                    if stop:
                        raise KeyboardInterrupt
        except (GeneratorExit, InputError, KeyboardInterrupt):
            stopped = True
            for _ in loader:  # a worker with unread results would be waited for, then killed
                pass
            raise
        if stop:  # requested while the workers ended
            raise KeyboardInterrupt


def _in_workers(shared: "_SharedMemory", numbers: Iterable[int], workers: int) -> Iterator:
    """Start the workers. No other thread computes meanwhile: they are forked."""
    with DEVICE, by_fork():
        return iter(
            DataLoader(
                shared,
                batch_size=None,
                sampler=numbers,
                num_workers=workers,
                collate_fn=lambda item: item,
                worker_init_fn=_begin_worker,
                prefetch_factor=_PREFETCH,
            )
        )


class _SharedMemory:
    """Batches whose pictures workers write to memory that they inherit when forked: a pipe would copy them several
    times. At most `slots` - 1 batches are in progress at a time."""

    def __init__(self, batches: Batches, slots: int):
        self.batches = batches
        memory = mmap.mmap(-1, slots * max(batches.nbytes, 1))
        self.memory = np.frombuffer(memory, np.uint8).reshape(slots, -1)

    def __getitem__(self, number: int) -> tuple | InputError:
        """Read a batch into a slot; the item has the pictures' shape and type in their place. Returns, not raises, an
        InputError."""
        try:
            pixels, *rest = self.batches.read(number, self.memory[number % len(self.memory)])
        except InputError as error:
            return error
        return (pixels.shape, pixels.dtype), *rest

    def taken(self, number: int, item: tuple) -> tuple:
        """Put the pictures in their slot back into the item: nothing is written there before the next is asked for."""
        (shape, dtype), *rest = item
        return np.ndarray(shape, dtype, self.memory[number % len(self.memory)]), *rest


def _begin_worker(_worker: int) -> None:
    """Let the main process end this worker, and let it run on any core."""
    leave_to_parent()
    unbind()

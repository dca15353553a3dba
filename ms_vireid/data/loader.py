"""Batches from worker processes, on `mindspore.dataset.dataloader`; an item is a whole batch.

A worker returns the error of a broken picture as its item, and the iterators here raise it: the user reads one line
about the picture, not the worker's traceback.
"""

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import takewhile

import numpy as np
from mindspore.dataset.dataloader import DataLoader

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import leave_to_parent, stop_requests
from ms_vireid.data.batches import Batches
from ms_vireid.devices.runtime import bound_threads, unbind

_AHEAD = 2  # batches that each worker is asked for ahead


def iterate(
    batches: Batches, workers: int, start: int = 0, bound: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The items of `batches` from `start` on, in order, prepared ahead by `workers` processes (0: by this one).

    From the second item to the last MindSpore's threads keep to their cores (`runtime.bound_threads`), unless `bound`
    is false, as for a compiled graph, whose own threads would have to share one.
    Closing the iterator early lets the workers finish what they have begun, and ends them. So does Ctrl-C, unless the
    caller is within `stop_requests`: an exception in the middle of the workers' queue would leave them hanging.

    Raises InputError for a broken picture, and KeyboardInterrupt on Ctrl-C or SIGTERM after the item in hand.
    """
    numbers = range(start, len(batches))
    stopped = False
    workers = min(workers, len(numbers))
    shared = _SharedMemory(batches, slots=_AHEAD * workers + 1)
    with stop_requests() as stop:
        loader = iter(
            DataLoader(
                shared,
                batch_size=None,
                sampler=takewhile(lambda _: not stopped, numbers),
                num_workers=workers,
                collate_fn=lambda item: item,
                worker_init_fn=_begin_worker,
                prefetch_factor=_AHEAD if workers else None,
            )
        )
        try:
            with ExitStack() as threads:
                for number, item in enumerate(loader, start):
                    if bound and number == start + 1:  # now: threads made within the block would all be on one core
                        threads.enter_context(bound_threads())
                    if isinstance(item, InputError):
                        raise item
                    yield shared.taken(number, item)
                    if stop:
                        raise KeyboardInterrupt
        except (GeneratorExit, InputError, KeyboardInterrupt):
            stopped = True
            for _ in loader:  # workers that are left with unread results would be waited for, then killed
                pass
            raise
        if stop:  # it came with the workers' end
            raise KeyboardInterrupt


class _SharedMemory:
    """Batches whose pictures workers write into memory which they inherit when they are forked: a pipe would copy each
    several times. At most `slots` - 1 batches are under way at a time."""

    def __init__(self, batches: Batches, slots: int):
        self.batches = batches
        memory = mmap.mmap(-1, slots * max(batches.nbytes, 1))
        self.memory = np.frombuffer(memory, np.uint8).reshape(slots, -1)

    def __getitem__(self, number: int) -> tuple | InputError:
        """An item with its pictures in a slot, and their shape and type in its place; or what is wrong with one."""
        try:
            pixels, *rest = self.batches.read(number, self.memory[number % len(self.memory)])
        except InputError as error:
            return error
        return (pixels.shape, pixels.dtype), *rest

    def taken(self, number: int, item: tuple) -> tuple:
        """The item as it was before a worker passed it on."""
        (shape, dtype), *rest = item
        return np.ndarray(shape, dtype, self.memory[number % len(self.memory)]).copy(), *rest


def _begin_worker(_worker: int) -> None:
    """Leave the end of a worker to the main process, and let it run on any core."""
    leave_to_parent()
    unbind()

"""Batches from worker processes, on `mindspore.dataset.dataloader`; an item is a whole batch.

A worker that meets a broken picture hands the error over as its item, and the iterators here raise it: the user
reads one line about the picture instead of the worker's traceback.
"""

import ctypes
import signal
import sys
from collections.abc import Iterator

import numpy as np
from mindspore.dataset.dataloader import DataLoader

from ms_vireid.data.batches import EvaluationBatches, TrainingBatches
from ms_vireid.errors import InputError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def iterate(
    batches: TrainingBatches | EvaluationBatches, workers: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The items of `batches` from `start` on, in order, prepared ahead by `workers` processes (0: by this one).

    Closing the iterator early lets the workers finish what they have begun, and ends them.

    Raises:
        InputError: a picture cannot be decoded.
    """
    order = _Order(range(start, len(batches)))
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=order,
            num_workers=min(workers, len(order.indices)),
            collate_fn=_unchanged,
            worker_init_fn=_begin_worker,
        )
    )
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except (GeneratorExit, InputError):
        order.stopped = True
        for _ in loader:  # workers that are left with unread results would be waited for, then killed
            pass
        raise


class _Order:
    """Item numbers in order, until stopped."""

    def __init__(self, indices: range):
        self.indices = indices
        self.stopped = False

    def __iter__(self) -> Iterator[int]:
        for index in self.indices:
            if self.stopped:
                return
            yield index

    def __len__(self) -> int:
        return len(self.indices)


def _unchanged(item):
    return item


def _begin_worker(_worker: int) -> None:
    """Leave the end of a worker to the main process.

    Ctrl-C and a job scheduler's SIGTERM reach the whole process group, and only the main process answers them. When
    that is killed itself, a worker with unread results would wait forever: Linux kills it with its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

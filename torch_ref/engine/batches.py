"""Batches prepared ahead by worker processes, as `ms_vireid.data.loader` does for MindSpore."""

import warnings
from collections.abc import Iterator

from torch.utils.data import DataLoader

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import leave_to_parent
from ms_vireid.data.batches import Batches
from ms_vireid.data.processes import require_shared_memory


class _Read:
    """Returns an InputError in place of its batch: PyTorch would wrap a raised one in a worker's traceback."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, number: int) -> tuple | InputError:
        try:
            return self.batches[number]
        except InputError as error:
            return error


def iterate(batches: Batches, workers: int, start: int, stop: int) -> Iterator[tuple]:
    """Iterate over items `start` to `stop` - 1, in order; raises InputError as `ms_vireid.data.loader.iterate` does."""
    numbers = range(start, stop)
    workers = min(workers, len(numbers))
    require_shared_memory(workers)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, by data.workers
    loader = DataLoader(
        _Read(batches),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=lambda item: item,
        worker_init_fn=lambda _: leave_to_parent(),
    )
    for item in loader:
        if isinstance(item, InputError):
            raise item
        yield item

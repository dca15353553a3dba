"""A device that runs out of memory: one line that says what to try."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config

# How MindSpore and the libraries below it say so, on CPU, GPU and Ascend.
FULL = re.compile(
    r"memory (is not|isn't|not) enough|out of memory|alloc\w*( \w+)* (memory|mem)\b.*fail|fail\w* to alloc\w*"
    r"|malloc\w*( \w+)* fail|STATUS_ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Raise InputError if the device runs out of memory while `doing` this; any other error passes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        raise InputError(f"out of memory in {doing}; try {remedy}") from error


def smaller_steps(config: Config) -> str:
    """Settings that make a training step need less memory: first those that change no result, then smaller batches."""
    train = config.train
    settings = []
    if train.mode == "jit":
        settings.append("train.mode=pynative")
    if config.model.can_recompute and not train.recompute:
        settings.append("train.recompute=true")
    if train.num_identities > 2:
        settings.append(f"train.num_identities={max(train.num_identities // 2, 2)} (now {train.num_identities})")
    elif train.num_instances > 2:
        settings.append(f"train.num_instances={max(train.num_instances // 2, 2)} (now {train.num_instances})")
    return " or ".join(settings) or "smaller pictures (data.image_size) or a device with more memory"

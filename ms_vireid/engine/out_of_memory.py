"""Advice when a device runs out of memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from ms_vireid.backends.backend import Backend
from ms_vireid.command.errors import FULL, InputError
from ms_vireid.config import Config


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Raise InputError if the device runs out of memory in the block, which is `doing` this; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        raise InputError(f"out of memory in {doing}; try {remedy}") from error


def smaller_steps(config: Config, backend: Backend) -> str:
    """Suggest settings for a step that needs less memory: first those that change no result, then smaller batches."""
    train = config.train
    settings = []
    if backend.compiled:
        settings.append("train.backend=eager")
    if not train.recompute:
        settings.append("train.recompute=true")
    for key in ("num_identities", "num_instances"):
        if (current := getattr(train, key)) > 2:
            settings.append(f"train.{key}={max(current // 2, 2)} (now {current})")
            break
    return " or ".join(settings) or "smaller pictures (data.image_size) or a device with more memory"

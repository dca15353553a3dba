"""A device that runs out of memory: one line that says what to try."""

from collections.abc import Iterator
from contextlib import contextmanager

from ms_vireid.command.errors import FULL, InputError
from ms_vireid.config import Config


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
    if train.program == "graph":
        settings.append("train.program=auto")
    if config.model.can_recompute and not train.recompute:
        settings.append("train.recompute=true")
    if train.num_identities > 2:
        settings.append(f"train.num_identities={max(train.num_identities // 2, 2)} (now {train.num_identities})")
    elif train.num_instances > 2:
        settings.append(f"train.num_instances={max(train.num_instances // 2, 2)} (now {train.num_instances})")
    return " or ".join(settings) or "smaller pictures (data.image_size) or a device with more memory"

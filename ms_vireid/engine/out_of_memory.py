"""A device that runs out of memory, as one line that says what to try."""

from collections.abc import Iterator
from contextlib import contextmanager

from ms_vireid.command.errors import FULL, InputError
from ms_vireid.config import Config


@contextmanager
def explained(doing: str, remedy: str) -> Iterator[None]:
    """Turn a device's refusal of memory into one line.

    Args:
        doing: what needed it. remedy: what to try.

    Raises:
        InputError: there was not enough memory. Any other error passes.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        raise InputError(f"out of memory in {doing}; try {remedy}") from error


def smaller_steps(config: Config) -> str:
    """What makes a training step need less memory: what changes no result first, then half the identities a batch."""
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

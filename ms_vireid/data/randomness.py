"""Counter-based random numbers: a draw depends on (seed, epoch, index) alone, not on the process or the order."""

import numpy as np

_STREAMS = {"sampler": 1, "augmentation": 2, "step": 3, "corruption": 4}


def counter_generator(stream: str, seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """Return the Philox generator of one (stream, seed, epoch, index); the last three are integers in [0, 2**32)."""
    key = np.array([(_STREAMS[stream] << 32) | seed, (epoch << 32) | index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def step_key(seed: int, step: int) -> np.int32:
    """Return the key of a training step, counted from 0 over the run, from which all its dropout masks follow."""
    return counter_generator("step", seed, 0, step).integers(-(2**31), 2**31, dtype=np.int32)

"""Writing a checkpoint file of either framework's names: .safetensors, MindSpore's .ckpt, and PyTorch's .pth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ms_vireid.checkpoints.pytorch_checkpoint import PICKLED
from ms_vireid.checkpoints.weights import FORMAT, write_checkpoint
from ms_vireid.files.writing import atomic_write


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: dict, framework: str) -> None:
    """Write arrays of a framework's names with a record; raises InputError as `atomic_write` does."""
    if path.suffix not in PICKLED:
        write_checkpoint(path, arrays, meta, framework)
        return
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **meta, "model": tensors}, file)
        except RuntimeError as error:  # how PyTorch passes on what writing raises
            raise OSError(str(error)) from None

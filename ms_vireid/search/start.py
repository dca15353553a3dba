"""The start of inference: a device is set up, and models are loaded on it. Imports no framework until then."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.command.printing import say
from ms_vireid.devices import runtime
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.files.checks import require_file

if TYPE_CHECKING:
    from ms_vireid.backends.backend import Backend
    from ms_vireid.search.trained_model import TrainedModel


def files_read(*checkpoints: Path) -> list[Path]:
    """List the files that a command may read for these checkpoints: themselves and the files of their runs."""
    return [path for file in map(weight_file, checkpoints) for path in (file, *RunFolder(file.parent).files)]


def begin(device: str, backend: str, *checkpoints: Path, tf32: bool = False) -> "tuple[str, Backend]":
    """Set up the device; return its description and the backend that `choose` takes. Raises InputError, before that,
    for a missing checkpoint. tf32: as in `runtime.round_products`."""
    for path in checkpoints:
        require_file(weight_file(path), "checkpoint file")
    device = runtime.set_up(device)
    from ms_vireid.backends.choosing import choose  # imports mindspore: after the device is set up

    device = "; ".join(filter(None, [device, runtime.round_products(tf32)]))
    return device, choose(backend, option="--backend ")


def start_inference(arguments: argparse.Namespace, *checkpoints: Path, inference: bool = True) -> "list[TrainedModel]":
    """Call `begin` with the arguments of `add_inference`, print the device line and load the models."""
    device, backend = begin(arguments.device, arguments.backend, *checkpoints, tf32=arguments.tf32)
    say(f"device: {device}; {backend}")
    return load_trained(checkpoints, backend, inference)


def load_trained(
    paths: Sequence[Path | str], backend: "Backend | None" = None, inference: bool = True
) -> "list[TrainedModel]":
    """Load the models of checkpoints or run folders, once `begin` has set the device up; as `trained_model.load`."""
    from ms_vireid.search import trained_model  # imports mindspore: after the device is set up

    return trained_model.load(paths, backend, inference)

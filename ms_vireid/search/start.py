"""Inference with trained models: features of pictures and of test sets, and the evaluation."""

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


def checkpoint_file(path: Path | str) -> Path:
    """The checkpoint at `path`: a file, or the model of a run folder."""
    return weight_file(Path(path))


def files_read(*checkpoints: Path) -> list[Path]:
    """List the files that a command may read for these checkpoints: themselves and the files of their runs."""
    files = map(checkpoint_file, checkpoints)
    return [path for file in files for path in (file, *RunFolder(file.parent).files)]


def begin(
    device: str, backend: str, *checkpoints: Path, tf32: bool = False, amp: str | bool = False, option="--backend "
) -> "tuple[str, Backend]":
    """Set up the device; return its description and the backend that `choose` takes. Raises InputError, before that,
    for a missing checkpoint. tf32: as in `runtime.round_products`. amp, option: as in `choose`."""
    for path in checkpoints:
        require_file(checkpoint_file(path), "checkpoint file")
    device = runtime.set_up(device)
    from ms_vireid.backends.choosing import choose  # imports mindspore: after the device is set up

    device = "; ".join(filter(None, [device, runtime.round_products(tf32)]))
    return device, choose(backend, amp, option)


def start_inference(arguments: argparse.Namespace, *checkpoints: Path) -> "Backend":
    """Call `begin` with the arguments of `add_inference`; print the device line and return the backend."""
    device, backend = begin(arguments.device, arguments.backend, *checkpoints, tf32=arguments.tf32)
    say(f"device: {device}; {backend}")
    return backend


def load_trained(
    paths: Sequence[Path | str], backend: "Backend | None" = None, inference: bool = True
) -> "list[TrainedModel]":
    """Load the models of checkpoints or run folders, once `begin` has set the device up; as `trained_model.load`."""
    from ms_vireid.search import trained_model  # imports mindspore: after the device is set up

    return trained_model.load(paths, backend, inference)

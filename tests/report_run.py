"""A tiny run, trained in this process, and its page by report.py."""

from pathlib import Path

import pytest

from ms_vireid import report, train
from ms_vireid.command.running import run
from tests.tiny_models import DATA, PMT

OPTIONS = [
    *PMT,
    "stages.0.epochs=1",
    "stages.1.epochs=1",
    "train={num_identities: 3, num_instances: 2, iterations: 2, log_steps: 1, evaluate_every: 1, backend: eager}",
    "evaluation={trials: 2, compare_untrained: true, batch_size: 8}",
]


def command(module, *arguments) -> None:
    with pytest.MonkeyPatch.context() as patch:
        words = [module.__name__, "--device", "CPU", *map(str, arguments)]
        patch.setattr("sys.argv", words)
        patch.setattr("sys.orig_argv", ["python", *words])
        run(module.main)


def trained_run(folder: Path, *options: str) -> Path:
    """A run of two epochs, with its data set in folder/data."""
    command(train, "--output", folder / "run", DATA % (folder / "data"), *OPTIONS, *options)
    return folder / "run"


def make_page(run_folder: Path, *options) -> str:
    command(report, run_folder, *options)
    return (run_folder / "report.html").read_text(encoding="utf-8")

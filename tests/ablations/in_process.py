"""Stands in for `ablations.runs.start`: the same command in this process, where mindspore is imported already."""

import contextlib
import importlib
import io
import sys
from pathlib import Path

import pytest

from ms_vireid.command.running import run

DATA = "data={name: synthetic, image_size: %s, workers: 0, synthetic: {train_identities: 3, val_identities: 1, "
DATA += "test_identities: 3, images_per_camera: 1, image_size: [64, 32]}}"
TRAIN = "train={num_identities: 2, num_instances: 2, iterations: 1, log_steps: 1}"
EVALUATION = "evaluation={trials: 1}"

OPERATORS = "train.backend=eager"  # which compiles nothing

# By model: the rows' recipes on the smallest network and set, as overrides.
TINY = {
    "pmt": [
        DATA % "[32, 16]",
        "model={name: pmt, patch_size: 16, stride: 16, embed_dim: 8, depth: 1, num_heads: 1}",
        TRAIN,
        EVALUATION,
    ],
    "agw": [
        DATA % "[32, 16]",
        "model={name: agw, layers: [1, 1, 1, 1], width: 4, non_local: [0, 1, 1, 0]}",
        "augmentation.crop_padding=2",
        TRAIN,
        EVALUATION,
    ],
    "mun": [
        DATA % "[48, 48]",
        "model.layers=[1, 1, 1, 1]",
        "model.width=4",
        "model.ratios=[2, 3]",
        "augmentation.crop_padding=2",
        TRAIN,
        EVALUATION,
    ],
}


def start(command: str, arguments: list[str], log: Path) -> str | None:
    errors = io.StringIO()
    log.parent.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", [f"{command}.py", *arguments])
        try:
            run(importlib.import_module(f"ms_vireid.{command}").main)
        except SystemExit as stopped:
            if stopped.code == 130:
                raise KeyboardInterrupt from None
            log.write_text(errors.getvalue(), encoding="utf-8")
            said = errors.getvalue().splitlines() or [f"ended with {stopped.code}"]
            return said[-1].removeprefix("error: ")
    return None

"""Trained models at work: their features, of pictures on disk or of a data set's test pictures, and the evaluation."""

import argparse
from pathlib import Path

from ms_vireid.devices import runtime
from ms_vireid.files.checks import require_file


def start_inference(arguments: argparse.Namespace, *checkpoints: Path) -> str:
    """Set the device up for trained models and print what computes; returns the program of `inference_program`. Raises
    InputError, before that, for a checkpoint that is not there."""
    for path in checkpoints:
        require_file(path, "checkpoint file")
    device = runtime.set_up(arguments.device)
    from ms_vireid.programs.prepare import inference_program  # imports mindspore, which the device has to come before

    program = inference_program(arguments.program)
    print(f"device: {device}; {program}")
    return program

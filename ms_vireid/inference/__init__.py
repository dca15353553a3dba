"""Trained models at work: their features, of pictures on disk or of a data set's test pictures, and the evaluation."""

import argparse

from ms_vireid.devices import runtime


def start_inference(arguments: argparse.Namespace) -> str:
    """Set the device up for a trained model and print what computes; returns the program of `inference_program`."""
    device = runtime.set_up(arguments.device)
    from ms_vireid.programs.prepare import inference_program  # imports mindspore, which the device has to come before

    program = inference_program(arguments.program)
    print(f"device: {device}; {program}")
    return program

"""How a command sets its device up for a trained model."""

import argparse

from ms_vireid.devices import runtime


def start_inference(arguments: argparse.Namespace) -> str:
    """Set the device up for a trained model and print what computes; the program of
    `inference_program`."""
    device = runtime.set_up(arguments.device)
    from ms_vireid.programs.prepare import inference_program

    program = inference_program(arguments.program)
    print(f"device: {device}; {program}")
    return program

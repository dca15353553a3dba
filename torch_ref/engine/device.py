"""Choice of PyTorch's device."""

import platform

import torch

from ms_vireid.command.errors import InputError
from ms_vireid.devices.cpu import processor_name


def choose(name: str) -> torch.device:
    """Choose the device "auto", "cuda" or "cpu"; raises InputError if PyTorch finds no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no GPU; install its build for CUDA and a driver, or give cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def round_products(allowed: bool = True) -> None:
    """Let products round their float32 inputs to TF32, as convolutions do by default; on a GPU of 8.0 or newer."""
    torch.backends.cuda.matmul.allow_tf32 = allowed


def in_words(device: torch.device) -> str:
    if device.type == "cpu":
        return f"CPU ({processor_name() or platform.machine()})"
    return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"

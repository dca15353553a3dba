"""Layers' functions on the CPU, with their derivatives, in one pass over memory each.

MindSpore's CPU operators take a pass for each step of a function, and some are scalar or run in one thread. These are
compiled by Numba when they are first called, and the machine code is kept on disk. They serve PyNative in float32;
graphs, mixed precision and other devices have MindSpore's operators (see `Fused`).
"""

from ms_vireid.cpu_kernels.base import Fused
from ms_vireid.cpu_kernels.convolution import Convolution, Winograd
from ms_vireid.cpu_kernels.generator import Depthwise, Pyramids
from ms_vireid.cpu_kernels.normalisation import BatchNorm
from ms_vireid.cpu_kernels.optimizer import adamw, sgd
from ms_vireid.cpu_kernels.pooling import MaxPool, MeanOfCubes
from ms_vireid.cpu_kernels.transformer import GELU, Attention, Dense, Dropout, LayerNorm, ScaleSamples

__all__ = [
    "GELU",
    "Attention",
    "BatchNorm",
    "Convolution",
    "Dense",
    "Depthwise",
    "Dropout",
    "Fused",
    "LayerNorm",
    "MaxPool",
    "MeanOfCubes",
    "Pyramids",
    "ScaleSamples",
    "Winograd",
    "adamw",
    "sgd",
]

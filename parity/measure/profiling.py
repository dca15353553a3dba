"""What a device runs, as PyTorch's profiler records it."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def profiled(work: Callable[[], object], synchronize: Callable[[], None]) -> list:
    """The profiler's events of the work. synchronize: waits until the framework's device has done it."""
    torch.zeros(1, device="cuda")  # begins CUDA
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        synchronize()
        torch.cuda.synchronize()
    return profiler.profiler.kineto_results.events()

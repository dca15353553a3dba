"""Record a device's kernels with PyTorch's profiler."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def profiled(work: Callable[[], object], synchronize: Callable[[], None]) -> list:
    """Return the profiler's events of the work. synchronize: waits for the framework's device."""
    torch.zeros(1, device="cuda")  # begins CUDA
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        synchronize()
        torch.cuda.synchronize()
    return profiler.profiler.kineto_results.events()

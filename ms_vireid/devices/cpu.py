"""The processor, for records and reports."""

import platform
from pathlib import Path

from ms_vireid.devices import runtime

# Variables that limit the instructions of oneDNN (MindSpore's, PyTorch's), MKL, PyTorch and Numba.
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "NUMBA_CPU_NAME")


def processor_name() -> str:
    """Return the processor's model name, from /proc/cpuinfo if there is one."""
    return _cpuinfo("model name") or platform.processor()


def instruction_sets() -> str:
    """Describe the vector instructions that /proc/cpuinfo lists, and the variables that limit libraries to fewer."""
    flags = _cpuinfo("flags").split()
    known = " and ".join(name for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512")) if flag in flags)
    caps = [f"{name}={value}" for name, value in runtime.variables_set(CAPS).items()]
    return ", ".join([known or "vector instructions unknown", *caps])


def _cpuinfo(name: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; "" if it is not there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")

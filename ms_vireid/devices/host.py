"""Facts about this machine and this checkout, for records and reports."""

import platform
import subprocess
from pathlib import Path

from ms_vireid.command.running import CHECKOUT
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
    return ", ".join([known or "vector instructions not known", *caps])


def _cpuinfo(name: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; "" if it is not there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def git_commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" if files differ from it; None if this is not a git checkout,
    even if it is installed inside another repository."""
    folder = CHECKOUT.parent
    if not CHECKOUT.is_file() or not (folder / ".git").exists():
        return None
    # Without locks, which a killed command would leave to the user: `describe --dirty` takes one all the same.
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        status = [*git, "status", "--porcelain=v2", "--branch", "-uno"]
        head, *lines = subprocess.run(status, capture_output=True, check=True).stdout.splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    commit = head.removeprefix(b"# branch.oid ").decode()
    if commit == "(initial)":
        return None
    return commit if all(line.startswith(b"#") for line in lines) else f"{commit}-dirty"

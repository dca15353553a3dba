"""Facts about this machine and this checkout, for records and reports."""

import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ms_vireid.command.errors import DeviceError
from ms_vireid.command.running import CHECKOUT, project_version
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


def installation() -> Iterator[str]:
    """Yield lines for the report of a bug: the versions in use, each device or why it cannot be used, and last, as it
    takes longest and may end the process, whether MindSpore can be imported."""
    commit = git_commit()
    yield f"ms_vireid {project_version()}" + (f", commit {commit}" if commit else "")
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(f"{name} {_version_of(name)}" for name in ("MindSpore", "NumPy"))
    for device in ("Ascend", "GPU"):
        try:
            yield f"{device}: {runtime.look_for(device)}"
        except DeviceError as problem:
            yield f"{device}: {problem}"
    yield f"CPU: {processor_name()}, {len(runtime.cores())} cores, {instruction_sets()}"
    if problem := runtime.import_problem():
        yield f"MindSpore cannot be imported: {problem}"


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"

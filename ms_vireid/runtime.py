"""Device choice and process set-up: what has to happen before mindspore is imported, and right after."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

from ms_vireid.errors import InputError

CONVOLUTIONAL = ("agw", "mun")  # models that live on convolutions
_MISSING = {
    "GPU": "install it, or use --device CPU",
    "Ascend": "run on a machine with CANN and an Ascend NPU, or use --device CPU",
}


def set_up(device: str, model_name: str | None) -> str:
    """Choose the device, set the process up for it and import mindspore.

    Environment variables that the user has set are left as they are.

    Args:
        device: "auto", "CPU", "GPU" or "Ascend"; auto takes Ascend, else GPU, else CPU.
        model_name: `model.name` of the configuration; decides oneDNN's instruction set on CPU. None where it is not
            known yet: `choose_instruction_set` has to follow.

    Returns:
        What was chosen and why, for example "CPU (auto: no NVIDIA driver ..., no Ascend NPU ...)".

    Raises:
        InputError: the device asked for is not there, with what was looked for and how to get it.
    """
    chosen, why = _choose(device)
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's errors, not its warnings
    if model_name is not None:
        choose_instruction_set(model_name)

    import mindspore

    try:
        mindspore.set_device(chosen)
    except RuntimeError:
        raise InputError(
            f"device {chosen}: this MindSpore ({mindspore.__version__}) cannot load its {chosen} plugin though the "
            f"hardware is there; {_MISSING[chosen]}"
        ) from None
    if chosen == "CPU":
        mindspore.runtime.launch_blocking()  # PyNative's dispatch thread would spin on a core of its own
    return f"{chosen}{why}"


def choose_instruction_set(model_name: str) -> None:
    """Set oneDNN's instruction set for a model, unless the user has; it is read when the process makes its first
    primitive (a convolution or a matrix product), so that importing mindspore and reading a checkpoint may come before.
    """
    if model_name in CONVOLUTIONAL:
        # On AVX-512 processors oneDNN, as MindSpore calls it, falls back to a reference convolution 100 times slower.
        # The cap halves matrix products, so a transformer goes without it (measured: README, "Speed").
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


def _choose(device: str) -> tuple[str, str]:
    problems = {"Ascend": _ascend_problem, "GPU": _gpu_problem}
    if device in problems:
        if problem := problems[device]():
            raise InputError(f"device {device}: {problem}; {_MISSING[device]}")
        return device, ""
    if device == "CPU":
        return device, ""
    found = {name: problem() for name, problem in problems.items()}
    chosen = next((name for name, problem in found.items() if problem is None), "CPU")
    return chosen, f" (auto: {'; '.join(problem for problem in found.values() if problem) or 'found'})"


def _ascend_problem() -> str | None:
    return None if list(Path("/dev").glob("davinci[0-9]*")) else "no Ascend NPU (looked for /dev/davinci*)"


def _gpu_problem() -> str | None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (looked for libcuda.so.1)"
    home = os.environ.get("CUDA_HOME")
    compiler = shutil.which("nvcc", path=f"{home}/bin" if home else None)
    where = f"CUDA_HOME={home}" if home else "nvcc on the PATH"
    if compiler is None:
        return f"no CUDA 11 toolkit (looked for {where})"
    printed = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release (\d+)\.\d+", printed)
    if release is None or release[1] != "11":
        return f"no CUDA 11 toolkit ({compiler} is release {release[0].split()[1] if release else 'unknown'})"
    return None

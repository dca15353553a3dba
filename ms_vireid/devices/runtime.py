"""Device choice and process set-up: what has to happen before mindspore is imported, and right after."""

import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType

from ms_vireid.command.arguments import require_choice
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.command.starting import at_once
from ms_vireid.command.stopping import within_msrun
from ms_vireid.devices import gpu
from ms_vireid.devices.turns import DEVICE

# Variables whose other values end MindSpore's import in a traceback: what they may be, and what they are.
_MESSAGES = {
    "GLOG_v": (re.compile("[0-4]"), "log level is 0 to 4"),
    "GLOG_stderrthreshold": (re.compile("[0-4]"), "log level beside files is 0 to 4"),
    "GLOG_logtostderr": (re.compile("[01]"), "logs go to files (0) or standard error (1)"),
    "logger_maxBytes": (re.compile(r"\d{1,18}", re.ASCII), "size of a log file is a whole number"),
    "logger_backupCount": (re.compile(r"\d{1,18}", re.ASCII), "number of log files is a whole number"),
}
# MindSpore runs $CUDA_HOME/bin/nvcc at its import, and waits for ever for one that prints nothing.
NO_CUDA = {"CUDA_HOME": "/nonexistent"}
# MindSpore's: 1 runs its tasks in the thread that gives them, not in others for which this one waits without sleeping,
# on a core that the loader could use (AsyncRQueue in its async_r_queue.cc).
ONE_THREAD = "MS_DEV_HOST_BLOCKING_RUN"
LAUNCH_THREAD = "MS_VIREID_LAUNCH_THREAD"  # 0 leaves the number of its threads to MindSpore
MEMORY_PLAN = "MS_VIREID_MEMORY_PLAN"  # 0 has MindSpore take memory result by result
COMPILES_WHOLE = "ascend910"  # the 910A, the only chip for which MindSpore defaults to GE
MAX_BOUND_CORES = 4  # with more, the waiting thread costs little, and one core busy with other work delays all

_beside: list[int] = []  # within `bound_threads`: MindSpore's thread on the core of the one that waits for it


@cache
def cores() -> tuple[int, ...]:
    """Return the cores that this process may use, as of the first call; empty if the system cannot tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


@DEVICE
def set_up(device: str) -> str:
    """Choose the device, set the process up for it and import mindspore.

    device: "auto", "CPU", "GPU" or "Ascend"; auto takes the first of Ascend, GPU and CPU that works. Environment
    variables that the user has set are kept. Returns the device with its name or the reason for choosing it: "CPU
    (auto: no Ascend NPU ...; no NVIDIA driver ...)". Raises InputError if it cannot be used, and in a process that was
    forked from one that used the device already.
    """
    if sys.platform == "win32":
        raise InputError("Windows lacks the forked processes that read pictures; use WSL 2, a Linux within Windows")
    import numpy as np  # not at the top: --help does without it

    if int(np.__version__.split(".")[0]) >= 2:
        raise InputError(
            f"NumPy {np.__version__} is installed, and MindSpore's operators need NumPy 1: pip install 'numpy<2'"
        )
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's errors, not its warnings
    for name, (values, meaning) in _MESSAGES.items():
        if (value := os.environ.get(name)) and not values.fullmatch(value):
            raise InputError(f"{name}={value[:80]}: MindSpore's {meaning}; unset it")
    if os.environ.get("GLOG_logtostderr") == "0" and not os.environ.get("GLOG_log_dir"):  # noqa: SIM112
        raise InputError(
            "GLOG_logtostderr=0: sends MindSpore's logs to files; set GLOG_log_dir to a folder, or unset it"
        )
    # OpenMP threads of other libraries sleep between their loops, so that MindSpore's threads have the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Where MindSpore writes rank_0/om/analyze_fail.ir if it cannot compile a function; by default the working folder.
    os.environ.setdefault("MS_OM_PATH", tempfile.gettempdir())
    if launched():
        # Seconds between attempts to reach the scheduler: with MindSpore's 3 to 5, starting takes half a minute.
        os.environ.setdefault("MS_RETRY_INTERVAL_LOWER", "1")
        os.environ.setdefault("MS_RETRY_INTERVAL_UPPER", "1")
    require_choice("device", device, ("auto", *_START))
    passed_over: list[DeviceError] = []
    for name in _START if device == "auto" else (device,):
        try:
            details = "; ".join(filter(None, [_START[name](), *map(str, passed_over)]))
        except DeviceError as problem:
            passed_over.append(problem)
        else:
            details = f"auto: {details}" if device == "auto" else details
            return f"{name} ({details})" if details else name
    raise InputError(f"device {device}: {passed_over[0]}; {passed_over[0].remedy}, or use --device CPU")


def look_for(device: str) -> str:
    """Describe a device, "GPU" or "Ascend", without starting it or importing mindspore. Raises DeviceError, which says
    why it cannot be used."""
    if device == "Ascend":
        _find_ascend()
        return "an NPU"
    return "; ".join(map(str, _find_gpu()))


def import_problem() -> str | None:
    """Return why mindspore cannot be imported; None if it can. Call it where no device is used afterwards."""
    try:
        with environment({**NO_CUDA, "GLOG_v": "3"}):
            _mindspore()
    except Exception as error:  # a broken installation raises anything
        return f"{type(error).__name__}: {error}"
    return None


def cache_folder() -> Path:
    """Return this project's folder in the user's cache, which may not exist. Raises InputError if no home folder is
    known, as of a user without a name."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ms_vireid"
    except RuntimeError:
        raise InputError("no home folder is known to keep a cache in; set HOME or XDG_CACHE_HOME") from None


def gpu_capability() -> float:
    """Return the compute capability of the GPU in use, such as 9.0."""
    return gpu.find_gpu(os.environ).capability


def launched() -> bool:
    """Return whether MindSpore's `msrun` started this process, as a worker or as the scheduler."""
    return "MS_ROLE" in os.environ


def is_scheduler() -> bool:
    """Return whether this is the process that msrun starts besides the workers."""
    return os.environ.get("MS_ROLE") == "MS_SCHED"


@contextmanager
def print_once_per_machine() -> Iterator[None]:
    """Print an error that all processes of `msrun` raise in this block only once on each machine. Where only its
    variables are left over, nothing else would print it."""
    try:
        yield
    except InputError:
        if not is_local_main() and within_msrun():
            sys.exit(2)
        raise


def is_local_main() -> bool:
    """Return whether this process is alone, or the first of msrun's workers on this machine."""
    return not launched() or (os.environ["MS_ROLE"] == "MS_WORKER" and os.environ.get("DEVICE_ID", "0") == "0")


def cap_convolutions() -> None:
    """Limit oneDNN to AVX2, unless the user has set its limit: on a CPU with AVX-512, MindSpore's own convolutions
    would run oneDNN's reference code, 100 times slower. Call it before the process creates its first primitive (a
    convolution or a product), which reads the limit.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@contextmanager
def bound_threads(compiled: bool) -> Iterator[None]:
    """Bind threads of MindSpore to a core each, and this thread to the first one's, within the block: on a CPU those
    that compute, unless graphs are compiled, which have more; on a GPU and an Ascend those that launch compiled graphs.
    They wait for each other without sleeping, and on each other's cores delay what they wait for by up to 4 ms.

    Does nothing before the first kernel, with one core or more than `MAX_BOUND_CORES`, in one of several processes, or
    where the user has other threads (`LAUNCH_THREAD`). Threads started within the block inherit its one core.
    """
    global _beside
    places, here = _places(compiled) if _may_bind() else {}, threading.get_native_id()
    outer, _beside = _beside, [one for one, core in places.items() if core == places[here] and one != here]
    try:
        with _on({thread: {core} for thread, core in places.items()}):
            yield
    finally:
        _beside = outer


@contextmanager
def own_core() -> Iterator[None]:
    """Move MindSpore's thread that `bound_threads` binds to this thread's core to the others, within the block: for the
    wait for a compiled graph, whose operators that thread gives out one by one. It would get the core for 4 ms at a
    time, and a small loss take 0.1 s."""
    with _on({thread: set(cores()[1:]) for thread in _beside}):
        yield


@contextmanager
def _on(places: dict[int, set[int]]) -> Iterator[None]:
    """Bind threads to cores, by native id, within the block."""
    before = {thread: os.sched_getaffinity(thread) for thread in places}
    try:
        for thread, allowed in places.items():
            os.sched_setaffinity(thread, allowed)
        yield
    finally:
        for thread, allowed in before.items():
            with suppress(ProcessLookupError):  # the thread has ended
                os.sched_setaffinity(thread, allowed)


def _places(compiled: bool) -> dict[int, int]:
    """Return the core of each thread to bind, by native id."""
    on_cpu = _mindspore().get_context("device_target") == "CPU"
    if on_cpu == compiled:
        return {}
    actors, launching = _threads(b"ActorThread_"), _threads(b"launch_queue")
    if on_cpu:
        threads = sorted(actors + _threads(b"KernelThread_"))
        complete = len(threads) == len(cores())
    else:
        threads = actors + launching
        complete = len(actors) == len(launching) == 1 and _is_on(LAUNCH_THREAD)
    return dict(zip(threads, cores(), strict=False)) | {threading.get_native_id(): cores()[0]} if complete else {}


def _threads(name: bytes) -> list[int]:
    """Return the native ids of this process's threads whose names begin so."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has just ended
            if (task / "comm").read_bytes().startswith(name):
                found.append(int(task.name))
    return found


def _may_bind() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and 2 <= len(cores()) <= MAX_BOUND_CORES and not launched()


def unbind() -> None:
    """Let the calling thread, which a thread or a process has started within `bound_threads`, use any core again."""
    if cores():
        os.sched_setaffinity(0, cores())


def round_products(allowed: bool = True) -> str:
    """Let products round their float32 inputs to ten of 23 bits, as convolutions do by default: to TF32 on a GPU and to
    HF32 on an Ascend. A CPU computes in full precision, as does a GPU older than 8.0. Call it after `set_up` and before
    any computation: existing kernels keep their precision.

    Returns what products then compute in, in words; "" for the default.
    """
    kind = _round(matmul=allowed)
    return f"products in {kind}" if allowed and kind else ""


def use_full_float32() -> None:
    """Disable TF32 and HF32 (`round_products`) in convolutions too, for comparisons."""
    _round(matmul=False, conv=False)


def _round(**operators: bool) -> str:
    """Set which operators may round. Returns the name of the rounded type on this device, "" on a CPU."""
    mindspore = _mindspore()
    target = mindspore.get_context("device_target")
    kind = {"GPU": "TF32", "Ascend": "HF32"}.get(target, "")
    for operator, allowed in operators.items() if kind else ():
        precision = getattr(mindspore.device_context, target.lower()).op_precision
        getattr(precision, f"{operator}_allow_{kind.lower()}")(allowed)
    return kind


def _find_ascend() -> None:
    """Raise DeviceError unless there is an NPU."""
    if not (list(Path("/dev").glob("davinci[0-9]*")) or _counted_by_cann()):
        raise DeviceError("no Ascend NPU (looked for /dev/davinci*)", "run on a machine with CANN and an Ascend NPU")


def _start_ascend() -> str:
    _find_ascend()
    os.environ.setdefault(ONE_THREAD, "1")
    with environment(NO_CUDA):
        _select("Ascend")
    if (chip := _ascend_chip()) == COMPILES_WHOLE:
        problem = f"MindSpore compiles whole graphs (GE) for {chip}, which nobody has tried with this project"
        raise DeviceError(problem, "run on an Ascend 910B or newer")
    return chip


def _ascend_chip() -> str:
    """Return MindSpore's name of the chip: ascend910, ascend910b, ascend910_93 ..."""
    return _mindspore()._c_expression.MSContext.get_instance().get_ascend_soc_version()


def _counted_by_cann() -> int:
    """Return how many NPUs CANN counts. They may have no files in /dev, as on a stand-in."""
    try:
        cann = ctypes.CDLL("libascendcl.so")
    except OSError:
        return 0
    count = ctypes.c_uint32()
    return 0 if gpu.symbol(cann, "aclrtGetDeviceCount")(ctypes.byref(count)) else count.value


def _find_gpu() -> tuple[gpu.Gpu, gpu.Toolkit]:
    """Find the GPU and CUDA, and load CUDA's libraries."""
    # Room for the kernels that the driver compiles. MindSpore sets the same value, but after the driver has read it.
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", "4000000000")
    device = gpu.find_gpu(os.environ)
    toolkit = gpu.find_toolkit(os.environ)
    toolkit.load()
    return device, toolkit


def _start_gpu() -> str:
    device, toolkit = _find_gpu()
    if is_local_main():
        device.announce_translation(os.environ)
    os.environ.setdefault(ONE_THREAD, "1")
    with toolkit.announced(os.environ) as variables, environment(variables):
        _select("GPU")
    mindspore = _mindspore()
    # In float16, MindSpore 2.10 would convert feature maps to channels last, and miscount their readers: it stops with
    # "Invalid new ref count" at the second residual block.
    mindspore.set_context(disable_format_transform=True)
    return f"{device}; {toolkit}"


def _start_cpu() -> str:
    with environment(NO_CUDA):
        _select("CPU")
    _mindspore().runtime.launch_blocking()  # PyNative's dispatch thread would spin on a separate core
    return ""


def _mindspore() -> ModuleType:
    with at_once():
        import mindspore  # not at the top: it reads the environment that `set_up` prepares

    return mindspore


_START = {"Ascend": _start_ascend, "GPU": _start_gpu, "CPU": _start_cpu}


def _select(name: str) -> None:
    """Import mindspore, which loads each plugin whose libraries it finds, and select its device."""
    mindspore = _mindspore()
    if not getattr(mindspore.device_context, name.lower()).device.is_available():
        problem = f"MindSpore {mindspore.__version__} cannot load its {name} plugin although the hardware is present"
        raise DeviceError(problem, "see why with GLOG_v=2")
    mindspore.set_device(name)
    if name != "CPU":
        _launch_beside()
        _plan_memory()


def _launch_beside() -> None:
    """Have a thread launch a compiled graph's operators in their order while another prepares them, unless
    `LAUNCH_THREAD` is 0.

    MindSpore 2.10 has two such threads from twelve cores on (`SuperKernelActor`). With one, operators send each other
    messages, and a graph's inputs, each weight among them, are collected anew for every run (`GraphScheduler` in
    ms_backend). With two on every host, what a small one proves is what a large one runs. On a single core two would
    take three times as long: they spin.
    """
    if _is_on(LAUNCH_THREAD):
        with suppress(RuntimeError):  # the user has set their number
            _mindspore().runtime.dispatch_threads_num(1 if len(cores()) == 1 else 2)


def _plan_memory() -> None:
    """Have MindSpore lay out a compiled graph's memory when it compiles it (SOMAS), unless `MEMORY_PLAN` is 0: a run
    then takes one piece from the pool, not one for each result. A level that the user has set by
    `mindspore.runtime.set_memory`, which would reset the limits of the pool too, prevails. A process of msrun does
    without: its collectives may run on a stream of their own.
    """
    if _is_on(MEMORY_PLAN) and not launched():
        _mindspore().set_context(memory_optimize_level="O1")


def _is_on(variable: str) -> bool:
    """Whether this switch among the environment variables is on, as it is by default."""
    chosen = os.environ.get(variable, "1")
    if chosen not in ("0", "1"):
        raise InputError(f"{variable}={chosen[:80]}: is not 0 or 1")
    return chosen == "1"


def variables_set(names: Iterable[str]) -> dict[str, str]:
    """Return those of these environment variables that are set."""
    return {name: os.environ[name] for name in names if name in os.environ}


def set_for_children(variables: dict[str, str]) -> None:
    """Set environment variables in this process and in those that it starts from now on."""
    os.environ.update(variables)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the block."""
    before = variables_set(variables)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)

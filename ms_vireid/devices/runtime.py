"""Device choice and process set-up: what has to happen before mindspore is imported, and right after."""

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.devices import gpu

COMPILES_WHOLE = "ascend910"  # the 910A: GE is MindSpore's default for it alone
MOST_BOUND = 4  # cores: with more, the thread that waits takes little, and one busy with something else delays all


@cache
def cores() -> tuple[int, ...]:
    """That this process may use, as it was when this was first asked; none where the system cannot tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def set_up(device: str) -> str:
    """Choose the device, set the process up for it and import mindspore.

    Environment variables that the user has set are left as they are.

    Args:
        device: "auto", "CPU", "GPU" or "Ascend"; auto takes Ascend, else GPU, else CPU: the first that can be used.

    Returns:
        What was chosen, then what it is or why, for example "CPU (auto: no Ascend NPU ...; no NVIDIA driver ...)".

    Raises:
        InputError: the device asked for cannot be used, with what was looked for and what to do.
    """
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's errors, not its warnings
    # OpenMP's threads, where a library has some, sleep between their loops: MindSpore's need the cores then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Where it puts rank_0/om/analyze_fail.ir when it cannot compile a function; else the working directory.
    os.environ.setdefault("MS_OM_PATH", tempfile.gettempdir())
    if launched():
        # Seconds between attempts to reach the scheduler: MindSpore's 3 to 5 make a start of half a minute.
        os.environ.setdefault("MS_RETRY_INTERVAL_LOWER", "1")
        os.environ.setdefault("MS_RETRY_INTERVAL_UPPER", "1")
    passed_over: list[DeviceError] = []
    for name in _START if device == "auto" else (device,):
        started = _attempt(_START[name])
        if isinstance(started, DeviceError):
            passed_over.append(started)
            continue
        details = "; ".join(filter(None, [started, *map(str, passed_over)]))
        if device == "auto":
            return f"{name} (auto: {details})"
        return f"{name} ({details})" if details else name
    raise InputError(f"device {device}: {passed_over[0]}; {passed_over[0].remedy}, or use --device CPU")


def launched() -> bool:
    """Whether MindSpore's `msrun` started this process, as one of several or as their scheduler."""
    return "MS_ROLE" in os.environ


@contextmanager
def one_voice() -> Iterator[None]:
    """A block that comes to the same in all processes that `msrun` started: the first on each machine tells its error,
    and the others end with its exit code."""
    try:
        yield
    except InputError:
        if launched() and (os.environ["MS_ROLE"] != "MS_WORKER" or os.environ.get("DEVICE_ID", "0") != "0"):
            sys.exit(2)
        raise


def cap_convolutions() -> None:
    """Keep oneDNN to AVX2, unless the user has set its limit: for convolutions by MindSpore's operators on a CPU, which
    on AVX-512 processors are oneDNN's reference, 100 times slower. The kernels' are products, which AVX-512 speeds up.

    To be called before the process makes its first primitive (a convolution or a product), which reads it.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@contextmanager
def bound_threads() -> Iterator[None]:
    """A block in which each of MindSpore's CPU threads keeps to a core of its own, and this thread to the first one's.

    This thread waits for each kernel by yielding its core again and again. On a free core that takes a quarter of two
    cores' time from the threads that compute; on the core of one of them it makes way for it. Nothing is done before
    the first kernel, on other devices, with one core or more than `MOST_BOUND`, or in one of several processes. Not
    for compiled graphs, which use more threads. Threads that are made within the block inherit its one core.
    """
    threads = _pool_threads() if _may_bind() else []
    if len(threads) != len(cores()):
        yield
        return
    places = dict(zip(threads, cores(), strict=True)) | {threading.get_native_id(): cores()[0]}
    before = {thread: os.sched_getaffinity(thread) for thread in places}
    try:
        for thread, core in places.items():
            os.sched_setaffinity(thread, {core})
        yield
    finally:
        for thread, allowed in before.items():
            with suppress(ProcessLookupError):  # MindSpore's have ended
                os.sched_setaffinity(thread, allowed)


def _pool_threads() -> list[int]:
    """Native ids of the threads that MindSpore's CPU kernels run on; none before the first kernel."""
    import mindspore

    if mindspore.get_context("device_target") != "CPU":
        return []
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # one that has just ended
            if (task / "comm").read_text().startswith(("ActorThread_", "KernelThread_")):
                found.append(int(task.name))
    return sorted(found)


def _may_bind() -> bool:
    return 2 <= len(cores()) <= MOST_BOUND and not launched()


def place(number: int) -> None:
    """Have the calling thread run on one core alone where `bound_threads` binds MindSpore's, else on any."""
    if cores():
        os.sched_setaffinity(0, {cores()[number % len(cores())]} if _may_bind() else cores())


def unbind() -> None:
    """Let the calling thread, of a process forked within `bound_threads`, run on any core again."""
    if cores():
        os.sched_setaffinity(0, cores())


def to_device(array):
    """A NumPy array as a tensor on the device. To a GPU or an NPU the copy is queued before what is computed from it,
    where an ordinary tensor is copied when it is needed, with two waits for all that was queued before."""
    import mindspore

    tensor = mindspore.Tensor(array)
    target = mindspore.get_context("device_target")
    return tensor if target == "CPU" else tensor.move_to(target, blocking=False)


def use_full_float32() -> None:
    """For comparisons: no convolution or product in TF32 (GPU) or HF32 (Ascend), which keep ten bits of float32's 23
    and which MindSpore uses for convolutions unless told otherwise. To be called after `set_up`."""
    import mindspore

    target = mindspore.get_context("device_target")
    if target == "GPU":
        mindspore.device_context.gpu.op_precision.conv_allow_tf32(False)
        mindspore.device_context.gpu.op_precision.matmul_allow_tf32(False)
    elif target == "Ascend":
        mindspore.device_context.ascend.op_precision.conv_allow_hf32(False)
        mindspore.device_context.ascend.op_precision.matmul_allow_hf32(False)


def _start_ascend() -> str:
    if not (list(Path("/dev").glob("davinci[0-9]*")) or _counted_by_cann()):
        raise DeviceError("no Ascend NPU (looked for /dev/davinci*)", "run on a machine with CANN and an Ascend NPU")
    _select("Ascend")
    if (chip := _ascend_chip()) == COMPILES_WHOLE:
        raise DeviceError(
            f"MindSpore compiles whole graphs (GE) for {chip}, which nobody has tried; from Ascend 910B on it runs "
            "kernel by kernel, as is needed here",
            "run on one of these",
        )
    return chip


def _ascend_chip() -> str:
    """As MindSpore calls it: ascend910, ascend910b, ascend910_93 ..."""
    from mindspore._c_expression import MSContext

    return MSContext.get_instance().get_ascend_soc_version()


def _counted_by_cann() -> int:
    """How many NPUs CANN says that there are, which may be no files here: a stand-in's, for one."""
    try:
        cann = ctypes.CDLL("libascendcl.so")
    except OSError:
        return 0
    count = ctypes.c_uint32()
    return 0 if cann.aclrtGetDeviceCount(ctypes.byref(count)) else count.value


def _start_gpu() -> str:
    # As MindSpore sets it, but before the driver reads it: room for the kernels that the driver translates.
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", "4000000000")
    found = gpu.find_gpu(os.environ)
    toolkit = gpu.find_toolkit(os.environ)
    toolkit.load()
    with toolkit.announced(os.environ) as variables, environment(variables):
        _select("GPU")
    return f"{found}; {toolkit}"


def _start_cpu() -> str:
    import mindspore

    _select("CPU")
    mindspore.runtime.launch_blocking()  # PyNative's dispatch thread would spin on a core of its own
    return ""


def _attempt(start: Callable[[], str]) -> str | DeviceError:
    try:
        return start()
    except DeviceError as problem:
        return problem


_START = {"Ascend": _start_ascend, "GPU": _start_gpu, "CPU": _start_cpu}


def _select(name: str) -> None:
    """Import mindspore, which loads the plugins that it finds the libraries of, and give it its device."""
    import mindspore

    if not getattr(mindspore.device_context, name.lower()).device.is_available():
        raise DeviceError(
            f"MindSpore {mindspore.__version__} cannot load its {name} plugin though the hardware is there",
            "see why with GLOG_v=2",
        )
    mindspore.set_device(name)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that are set for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

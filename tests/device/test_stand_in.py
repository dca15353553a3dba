"""The stand-ins themselves: what they count, what they refuse, and that what hangs there is seen and killed."""

import ctypes
import json
import os
import platform
import py_compile
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from parity.stand_in import Counts, __main__, build, counts, gpu, missing
from tests.device import conftest
from tests.device.worker import ROOT, CaseError, Worker
from tests.tiny_models import DATA, PMT

INVALID_VALUE, OUT_OF_MEMORY = 1, 2  # of CUDA's runtime


@pytest.fixture(scope="module")
def library(stand_in):
    return lambda soname: ctypes.CDLL(str(stand_in.folder / "lib" / soname))


# --- what it counts ---------------------------------------------------------------------------------------------------


def test_a_product_is_a_copy_a_launch_and_a_copy(worker):
    asked = worker.do("count_product")
    assert [name.partition("<")[0] for name in asked["launched"]] == ["BinaryOpWithBroadcastCudaFunc"]
    counted = Counts(*asked["counts"])
    assert (counted.launches, counted.copies, counted.allocations) == (1, 2, 0)
    assert counted.waits >= 1  # for the result


def test_launches_are_counted_with_their_tensors(worker):
    asked = worker.do("calls_of_operators")
    assert [call for call in asked if not call.startswith("cudaMemcpy")] == [
        "ArrayReduce<float>\tfloat32[6] float32[4,6]",
        "BinaryOpWithBroadcastCudaFunc<BinaryOpType::kMul, float, float, float>"
        "\tfloat32[4,6] float32[4,6] float32[4,1]",
        "CalAsStrided<float>\tfloat32[8,4,6]",
        "cublasGemmEx\tfloat32[1,8,4] float32[1,8,6] float32[1,6,4]",
        "cudnnConvolutionForward\tfloat32[2,3,6,6] float32[8,3,3,3] float32[2,8,4,4]",
    ]
    assert {"cudaMemcpyAsync\tuint8[96] to the device", "cudaMemcpyAsync\tuint8[128] to the host"} < set(asked)


def test_what_puts_work_on_the_device_is_a_launch():
    launches = ["Cast<float, bool>", "cublasGemmEx", "cudnnConvolutionForward", "cusolverDnSgetrf"]
    launches += ["cudaMemsetAsync", "cuLaunchKernel"]
    others = ["cudaMemcpyAsync", "cudaStreamWaitEvent", "cublasSetStream_v2", "cudnnCreateTensorDescriptor"]
    others += ["cusolverDnSgetrf_bufferSize", "nvrtcVersion"]
    assert list(filter(gpu.is_launch, launches + others)) == launches


def test_a_process_without_the_stand_in_has_no_counts():
    with pytest.raises(RuntimeError, match=r"does not run on a stand-in: python -m parity\.stand_in"):
        counts()


def test_memory_is_counted_and_limited(library, monkeypatch):
    runtime = library("libcudart.so.11.0")
    monkeypatch.setenv("STAND_IN_MEMORY", str(2**40))
    now, peak, total, free = (ctypes.c_size_t() for _ in range(4))
    first, second = ctypes.c_void_p(), ctypes.c_void_p()
    assert runtime.cudaMalloc(ctypes.byref(first), ctypes.c_size_t(2**39)) == 0  # more than the host has
    assert runtime.cudaMalloc(ctypes.byref(second), ctypes.c_size_t(2**39 + 1)) == OUT_OF_MEMORY
    assert second.value is None
    runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    assert (free.value, total.value) == (2**39, 2**40)
    assert runtime.cudaFree(first) == 0
    runtime.stand_in_memory(ctypes.byref(now), ctypes.byref(peak))
    assert (now.value, peak.value) == (0, 2**39)


def test_a_copy_from_pinned_memory_is_told_from_others(library):
    runtime = library("libcudart.so.11.0")
    runtime.stand_in_calls.restype = ctypes.c_char_p
    device, pinned = ctypes.c_void_p(), ctypes.c_void_p()
    pageable, registered = (ctypes.create_string_buffer(64) for _ in range(2))
    runtime.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(64))
    runtime.cudaHostAlloc(ctypes.byref(pinned), ctypes.c_size_t(64), 0)
    runtime.cudaHostRegister(registered, ctypes.c_size_t(64), 0)

    def copied(source, size):
        runtime.cudaMemcpyAsync(device, source, ctypes.c_size_t(size), 1, None)
        (line,) = (line for line in runtime.stand_in_calls().decode().splitlines() if f"uint8[{size}]" in line)
        return line.partition("] ")[2]

    assert copied(pageable, 11) == "to the device"
    assert copied(ctypes.c_void_p(pinned.value + 40), 12) == "to the device from pinned memory"
    assert copied(registered, 13) == "to the device from pinned memory"
    runtime.cudaHostUnregister(registered)
    assert copied(registered, 14) == "to the device"


@pytest.mark.parametrize(("values", "expected"), [(True, [-1]), (False, [0])])
def test_what_is_read_back_is_0_where_nothing_is_computed(stand_in, values, expected):
    script = """
import ctypes
runtime, memory, number = ctypes.CDLL("libcudart.so.11.0"), ctypes.c_void_p(), ctypes.c_int32(-1)
size = ctypes.c_size_t(4)
runtime.cudaMalloc(ctypes.byref(memory), size)
for to_host in range(2):
    runtime.cudaMemcpy(*[memory, ctypes.byref(number)][:: -1 if to_host else 1], size, 1 + to_host)
print([number.value])
"""
    done = stand_in.run([sys.executable, "-c", script], 300.0, stand_in.environment(values=values))
    assert json.loads(done.stdout) == expected


def test_what_does_not_fit_in_the_memory_is_told_in_a_line(stand_in, tmp_path):
    command = [sys.executable, "-m", "ms_vireid.train", "--device", "GPU", "--output", str(tmp_path / "run")]
    options = [
        DATA % (tmp_path / "data"),
        *PMT,
        "train.backend=eager",
        "data.image_size=[256,128]",
        "train.num_identities=4",
    ]
    done = stand_in.run([*command, *options], 60, stand_in.environment(memory=20_000_000), cwd=ROOT)
    assert done.returncode == 2
    assert "error: out of memory in training step 1 of 16 images; try" in done.stdout


# --- what they refuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["pynative", "jit"])
@pytest.mark.parametrize(("operation", "dtype"), [("add", "bfloat16"), ("multiply", "int32")])
def test_what_mindspore_cannot_do_on_a_gpu_is_refused(worker, operation, dtype, compiled):
    worker.do(operation, "float32", compiled)
    with pytest.raises(CaseError, match=r"Unsupported op|KernelMod Init Failed|not support"):
        worker.do(operation, dtype, compiled)


# --- what hangs -------------------------------------------------------------------------------------------------------


def test_at_its_limit_a_command_is_killed_with_what_it_has_started(stand_in):
    """`run` reads to the end of what all of them may print."""
    script = "trap '' TERM; sleep 60 & echo begun; wait"
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as killed:
        stand_in.run(["sh", "-c", script], 1)
    assert killed.value.output == "begun\n"
    assert time.monotonic() - begun < 30


def test_a_case_that_hangs_or_ends_its_process_fails_alone(stand_in, tmp_path):
    worker = Worker(stand_in, tmp_path)
    with pytest.raises(CaseError, match=r"wait\(60\): still running after 1 s, and killed"):
        worker.do("wait", 60, limit_s=1)
    with pytest.raises(CaseError, match=r"end\(3\): its process ended with exit code 3"):
        worker.do("end", 3)
    with pytest.raises(CaseError, match=r"crash\(\): its process was ended by SIGSEGV"):
        worker.do("crash")
    assert worker.do("wait", 0) is None
    worker.close()


# --- where it is missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_what_is_missing_is_said(monkeypatch, device):
    assert missing(device) is None
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda tool: None if tool == "g++" else tool)
        assert missing(device) == f"the stand-in {device} is built with g++, which the PATH does not have"
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        assert missing(device) == f"the stand-in {device} is for Linux on x86-64"
        with pytest.raises(InputError, match="for Linux on x86-64; it needs"):
            build(device)


def test_it_is_built_once_for_what_it_is_made_of(stand_in):
    assert build("GPU") == stand_in


@pytest.mark.parametrize("damage", ["a bit", "a file less", "a file more"])
def test_what_is_damaged_is_built_anew(stand_in, tmp_path, monkeypatch, capsys, damage):
    shutil.copytree(stand_in.folder, tmp_path / stand_in.folder.name, symlinks=True)
    kept = build("GPU", tmp_path)
    monkeypatch.setattr(gpu, "build", lambda folder: shutil.copytree(stand_in.folder, folder, symlinks=True))
    assert capsys.readouterr().err == ""
    library = next(path for path in sorted(kept.folder.rglob("*.so*")) if not path.is_symlink())
    content = library.read_bytes()
    if damage == "a bit":
        library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "a file less":
        library.unlink()
    else:
        (kept.folder / "more.so").touch()
    assert build("GPU", tmp_path) == kept
    assert capsys.readouterr().err == f"note: {kept.folder}: is damaged or not this project's; rebuilding it\n"
    assert library.read_bytes() == content
    assert not (kept.folder / "more.so").exists()


def test_what_python_compiles_is_no_damage(ascend, tmp_path, capsys):
    kept = tmp_path / ascend.folder.name
    shutil.copytree(ascend.folder, kept, symlinks=True)
    [module] = kept.rglob("hccl/__init__.py")
    compiled = Path(py_compile.compile(module))
    assert compiled.is_relative_to(kept)
    assert build("Ascend", tmp_path).folder == kept
    assert capsys.readouterr().err == ""
    assert compiled.exists()


def test_the_two_used_last_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "build", lambda folder: folder.mkdir())
    for seconds, name in enumerate(("stand-in-gpu-old", "stand-in-gpu-newer", "stand-in-ascend-old", "other")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (seconds, seconds))
    new = build("GPU", tmp_path).folder.name
    assert {path.name for path in tmp_path.iterdir()} == {new, "stand-in-gpu-newer", "stand-in-ascend-old", "other"}


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_its_tests_are_skipped_where_it_is_missing_unless_it_is_required(monkeypatch, required, outcome):
    monkeypatch.setattr(conftest, "missing", lambda device: "no compiler")
    monkeypatch.setenv(conftest.REQUIRED, required)
    with pytest.raises(outcome, match="no compiler"):
        conftest.build_or_skip("GPU")


# --- its command ------------------------------------------------------------------------------------------------------


def test_the_command_runs_another_and_prints_its_calls(stand_in, monkeypatch, capfd):
    monkeypatch.setattr(__main__, "build", lambda device: stand_in)
    script = "import ctypes; ctypes.CDLL('libcudart.so.11.0').cudaDeviceSynchronize(); raise SystemExit(3)"
    monkeypatch.setattr("sys.argv", ["stand_in", "--calls", "gpu", sys.executable, "-c", script])
    with pytest.raises(SystemExit) as ended:
        run(__main__.main)
    assert ended.value.code == 3
    assert capfd.readouterr().out.split() == ["1", "cudaDeviceSynchronize"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "no command is given; see --help"), (["no-such-backend"], "no-such-backend: no such command")],
)
def test_a_command_that_cannot_be_run_is_told_in_a_line(arguments, said, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["stand_in", "gpu", *arguments])
    with pytest.raises(SystemExit) as ended:
        run(__main__.main)
    assert ended.value.code == 2
    assert capfd.readouterr().err == f"error: {said}\n"

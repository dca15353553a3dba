"""Processes that begin at once and need the CUDA kernels and their launcher: the first compiles them for all."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

from ms_vireid.programs.cuda import build

PROCESSES = 10
# build.py by its path: its package imports MindSpore, which takes seconds.
SCRIPT = """
import importlib.util, sys
from pathlib import Path
from ms_vireid.devices import gpu, runtime
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
gpu.loaded = lambda *names: Path(sys.argv[2])
runtime.gpu_capability = lambda: 8.0
build._built_launcher = lambda: None
compile_launcher = build._compile_launcher
build._compile_launcher = lambda library: print("compiled") or compile_launcher(library)
build.use_kernels('extern "C" __global__ void nothing() {}'.replace("__global__ ", ""))
print(build.launcher())
"""


def test_ten_processes_at_once_compile_one_launcher_and_have_whole_files(stand_in, tmp_path):
    libraries = stand_in.folder / "lib"
    environment = os.environ | stand_in.environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, build.__file__, str(libraries / "libnvrtc.so.11.2")]
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **options) for _ in range(PROCESSES)]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, ended
    files = sorted((tmp_path / "ms_vireid" / "cuda").iterdir())
    assert [file.suffix for file in files] == [".cubin", ".so"]
    expected = [*[f"{files[1]}\n"] * (PROCESSES - 1), f"compiled\n{files[1]}\n"]
    assert sorted(printed for printed, _ in ended) == expected


HOLDER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_process_waits_for_the_one_that_compiles_and_not_for_a_killed_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        begun = time.monotonic()
        threading.Timer(0.5, holder.kill).start()
        with build._alone(tmp_path):
            assert time.monotonic() - begun > 0.4


def test_a_file_system_without_locks_will_do(monkeypatch, tmp_path):
    def without_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with build._alone(tmp_path):
        pass

"""Ten processes that begin at once, each of which would compile the CUDA kernels and their launcher."""

import os
import subprocess
import sys

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
gpu.loaded = lambda name: Path(sys.argv[2])
runtime.gpu_capability = lambda: 8.0
build._built_launcher = lambda: None
build.use_kernels('extern "C" __global__ void nothing() {}'.replace("__global__ ", ""))
print(build.launcher())
"""


def test_ten_processes_at_once_have_one_launcher_and_whole_files(stand_in, tmp_path):
    libraries = stand_in.folder / "lib"
    environment = os.environ | stand_in.environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, build.__file__, str(libraries / "libnvrtc.so.11.2")]
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **options) for _ in range(PROCESSES)]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, ended
    files = sorted((tmp_path / "ms_vireid" / "cuda").iterdir())
    assert [file.suffix for file in files] == [".cubin", ".so"]
    assert {printed for printed, _ in ended} == {f"{files[1]}\n"}

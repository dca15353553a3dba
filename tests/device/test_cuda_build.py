"""Processes that begin at once and need the CUDA kernels and their launcher: the first compiles them for all."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ms_vireid.backends.cuda import build
from ms_vireid.command.errors import DeviceError

PROCESSES = 10
# Without what their packages import, which is MindSpore and takes seconds.
SCRIPT = """
import sys
from pathlib import Path
from types import ModuleType
from ms_vireid.devices import gpu, runtime
for name in ("ms_vireid.backends", "ms_vireid.backends.cuda"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1]]
from ms_vireid.backends.cuda import build
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
    command = [sys.executable, "-c", SCRIPT, str(Path(build.__file__).parent), str(libraries / "libnvrtc.so.11.2")]
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **options) for _ in range(PROCESSES)]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, ended
    files = sorted((tmp_path / "ms_vireid" / "cuda").iterdir())
    assert [file.suffixes for file in files] == [[".cubin"], [".cubin", ".sha256"], [".so"], [".so", ".sha256"]]
    expected = [*[f"{files[2]}\n"] * (PROCESSES - 1), f"compiled\n{files[2]}\n"]
    assert sorted(printed for printed, _ in ended) == expected


CONTENT = b"machine code"
DAMAGES = {
    "cut": lambda file: file.write_bytes(CONTENT[:6]),
    "empty": lambda file: file.write_bytes(b""),
    "one byte": lambda file: file.write_bytes(b"machine c0de"),
    "gone": lambda file: file.unlink(),
    "a link": lambda file: (file.rename(file.with_name("elsewhere")), file.symlink_to("elsewhere")),
    "a dangling link": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "written by others": lambda file: file.chmod(0o666),
    "without a checksum": lambda file: file.with_name("a.so.sha256").unlink(),
    "with another's checksum": lambda file: file.with_name("a.so.sha256").write_text("0" * 64),
    "with half a checksum": lambda file: file.with_name("a.so.sha256").write_text("0" * 20),
    "a checksum that is a link": lambda file: (
        file.with_name("a.so.sha256").rename(file.with_name("b")),
        file.with_name("a.so.sha256").symlink_to("b"),
    ),
}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Get a file of a cache at a folder; returns it and whether it was made."""
    monkeypatch.setattr(build, "_folder", lambda: tmp_path)

    def get():
        made = []
        file = build._cached("a.so", lambda temporary: made.append(temporary.write_bytes(CONTENT)))
        assert file.read_bytes() == CONTENT
        return file, bool(made)

    return get


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_as_it_was_written_is_made_anew(cached, caplog, damage):
    file, made = cached()
    assert made
    assert cached() == (file, False)
    assert not caplog.text
    DAMAGES[damage](file)
    assert cached() == (file, True)
    assert ("a.so: is damaged or not this project's; rebuilding it" in caplog.text) == (damage != "gone")
    assert cached() == (file, False)
    assert not file.is_symlink()


@pytest.mark.parametrize("name", ["a.so", "a.so.sha256"])
def test_a_folder_in_the_place_of_a_file_is_left(cached, tmp_path, name):
    cached()
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(DeviceError, match=rf"{name} is a folder"):
        cached()
    assert (tmp_path / name).is_dir()


def test_the_folder_is_the_users_own_or_of_this_process(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "ms_vireid/cuda"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert build._folder.__wrapped__() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    removed = []
    monkeypatch.setattr("atexit.register", lambda remove, *given, **_: removed.append(given))
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    other = build._folder.__wrapped__()
    assert (str(other),) in removed
    assert other.stat().st_mode & 0o777 == 0o700
    assert f"compiled for this process alone: {folder} belongs to another user" in caplog.text
    other.rmdir()
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.delenv("XDG_CACHE_HOME")
    build._folder.__wrapped__().rmdir()
    assert "no home folder is known to keep a cache in; set HOME or XDG_CACHE_HOME" in caplog.text


@pytest.mark.parametrize("refuses", [True, False])
def test_a_file_system_without_permissions_keeps_no_kernels(tmp_path, monkeypatch, caplog, refuses):
    """It refuses chmod, or passes over it while all files are everybody's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def chmod(path, mode):
        if refuses:
            raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(build, "_is_own_file", lambda path: False)
    other = build._folder.__wrapped__()
    assert not other.is_relative_to(tmp_path)
    assert "CUDA kernels are compiled for this process alone: " in caplog.text
    assert ("Operation not permitted" if refuses else "keeps no permissions") in caplog.text
    other.rmdir()


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

"""Processes that begin at once and need the CUDA kernels and their launcher: the first compiles them for all."""

import errno
import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ms_vireid.backends.cuda import build
from ms_vireid.command.errors import InputError

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
build._compile_launcher = lambda: print("compiled") or compile_launcher()
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
        file = build._cached("a.so", lambda: made.append(1) or CONTENT)
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


@pytest.fixture
def in_temporary(cached, tmp_path, monkeypatch, caplog):
    """Require that a file is made in a temporary folder, with a note, and removed with it as the process ends."""
    removed = []
    monkeypatch.setattr("atexit.register", lambda remove, *given, **_: removed.append((remove, *given)))
    build._temporary_folder.cache_clear()

    def check(problem):
        file, made = cached()
        assert made
        assert not file.is_relative_to(tmp_path)
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert re.search(f"CUDA kernels are compiled for this process alone: .*{problem}", caplog.text)
        ((remove, folder),) = removed
        remove(folder)
        assert not file.parent.exists()

    yield check
    build._temporary_folder.cache_clear()


@pytest.mark.parametrize("name", ["a.so", "a.so.sha256"])
def test_a_folder_in_the_place_of_a_file_is_left(cached, in_temporary, tmp_path, name):
    cached()
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    in_temporary("Is a directory")
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("suffix", [".so", ".sha256"])
def test_a_full_disk_keeps_no_kernels(in_temporary, tmp_path, monkeypatch, suffix):
    sync = os.fsync

    def fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.parent == tmp_path and path.suffix == suffix:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    in_temporary("No space left on device")
    assert {path.suffix for path in tmp_path.iterdir()} <= {".so", ".sha256"} - {suffix}


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """The user's folder, found anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ms_vireid/cuda"


def test_the_folder_is_the_users_own(users_folder, monkeypatch):
    users_folder.mkdir(parents=True)
    users_folder.chmod(0o777)
    assert build._folder() == users_folder
    assert users_folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(InputError, match=f"{users_folder} belongs to another user"):
        build._folder()
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(InputError, match="no home folder is known to keep a cache in; set HOME or XDG_CACHE_HOME"):
        build._folder()


@pytest.mark.parametrize("refuses", [True, False])
def test_a_file_system_without_permissions_keeps_no_kernels(users_folder, monkeypatch, refuses):
    """It refuses chmod, or passes over it while all files are everybody's."""

    def chmod(path, mode):
        if refuses:
            raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(build, "_is_own_file", lambda path: False)
    with pytest.raises((OSError, InputError), match="Operation not permitted" if refuses else "keeps no permissions"):
        build._folder()


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

"""Compiles the kernels by NVRTC, and their launcher by gcc where the installation did not; keeps both in a cache."""

import atexit
import ctypes
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from ms_vireid.backends.cuda import declarations
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.devices import gpu, runtime
from ms_vireid.files.checks import file_checksum, note
from ms_vireid.files.writing import atomic_write, write_text

_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH  # bits of a mode: others may write
_DIGITS = 64  # of a checksum
_SOURCES = Path(__file__).parent
_OPTIONS = ("--std=c++17", "-default-device", "--ptxas-options=-v")
_FLAGS = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-ldl", "-lm", "-lpthread")


@cache
def launcher() -> Path:
    """The library that launches the kernels. Raises DeviceError if there is no C compiler, or if it fails."""
    if library := _built_launcher():
        return library
    return _cached(f"launcher-{_digest(declarations.launcher_digest(), str(_FLAGS))}.so", _compile_launcher)


def use_kernels(source: str) -> None:
    """Compile kernels for the current GPU; have `launcher()` launch these from now on. Raises DeviceError if there is
    no NVRTC, or if it fails."""
    nvrtc = gpu.loaded(*gpu.COMPILERS)
    if nvrtc is None:
        raise DeviceError("CUDA's NVRTC is not loaded", "run on a GPU")
    architecture = f"sm_{runtime.gpu_capability() * 10:.0f}"
    state = nvrtc.stat()
    compiler = f"{nvrtc} {state.st_size} {state.st_mtime_ns} {architecture} {_OPTIONS}"
    code = _cached(f"kernels-{_digest(source, compiler)}.cubin", lambda: compiled(nvrtc, source, architecture).code)
    use_code = ctypes.CDLL(str(launcher())).use_code
    use_code.restype = None
    use_code(str(code).encode())


def _built_launcher() -> Path | None:
    """The launcher that the installation built (setup.py), unless its sources have changed since."""
    for suffix in EXTENSION_SUFFIXES:
        library = _SOURCES / f"launcher{suffix}"
        if library.is_file():
            built_from = ctypes.CDLL(str(library)).built_from
            built_from.restype = ctypes.c_char_p
            return library if built_from().decode() == declarations.launcher_digest() else None
    return None


class MachineCode(NamedTuple):
    """Machine code, and the compiler's log: each kernel's registers, spills and shared memory."""

    code: bytes
    log: str


def compiled(nvrtc: Path, source: str, architecture: str) -> MachineCode:
    """Compile to machine code for an architecture such as "sm_90". Raises DeviceError if NVRTC fails."""
    library, program = ctypes.CDLL(str(nvrtc)), ctypes.c_void_p()
    use_locale = ctypes.CDLL(None).uselocale
    use_locale.argtypes, use_locale.restype = [ctypes.c_void_p], ctypes.c_void_p
    before = use_locale(None)  # NVRTC leaves the thread with another, in which texts would be read as ASCII

    def text(kind: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{kind}")(program, content)
        return content.raw

    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [option.encode() for option in (*_OPTIONS, f"--gpu-architecture={architecture}")]
    try:
        if library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)):
            first = text("ProgramLog").partition(b"\n")[0].rstrip(b"\0").decode(errors="replace")
            raise DeviceError(f"NVRTC cannot compile the CUDA kernels ({first})", "report it")
        return MachineCode(text("CUBIN"), text("ProgramLog").decode(errors="replace"))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
        use_locale(before)


def _compile_launcher() -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise DeviceError("there is no C compiler", "install gcc")
    command = [compiler, *_FLAGS[:4], f"-I{_SOURCES}", *map(str, sorted(_SOURCES.glob("*.c"))), "-xc", "-"]
    source = declarations.operators_source()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "launcher.so"
        command += ["-o", str(library), *_FLAGS[4:]]
        done = subprocess.run(command, input=source, capture_output=True, text=True, errors="replace")
        if done.returncode:
            first = done.stderr.strip().partition("\n")[0]
            raise DeviceError(f"{compiler} cannot compile the CUDA kernels' launcher ({first})", "report it")
        return library.read_bytes()


def _cached(name: str, make: Callable[[], bytes]) -> Path:
    """Return a file of the cache, or of a temporary folder, until this process ends, if the cache cannot be written."""
    try:
        return _made_once(_folder() / name, make)
    except (OSError, InputError) as error:
        note("CUDA kernels are compiled for this process alone", str(error))
        return _made_once(_temporary_folder() / name, make)


def _made_once(file: Path, make: Callable[[], bytes]) -> Path:
    """Make a file that is missing or not as it was written, while other processes wait for it."""
    if not _is_whole(file):
        with _alone(file.parent):
            if not _is_whole(file):
                if os.path.lexists(file):
                    note(file, "is damaged or not this project's; rebuilding it")
                for one in (file, _checksum_file(file)):
                    if os.path.lexists(one):
                        one.unlink()
                content = make()
                with atomic_write(file) as temporary:
                    temporary.write_bytes(content)
                write_text(_checksum_file(file), hashlib.sha256(content).hexdigest())
                for one in (file, _checksum_file(file)):
                    one.chmod(0o600)
    return file


def _is_whole(file: Path) -> bool:
    """Whether a file of the cache, which will be run, is this user's own and as it was written."""
    try:
        return all(map(_is_own_file, (file, _checksum_file(file)))) and (
            _checksum_file(file).read_bytes()[:_DIGITS] == file_checksum(file).encode()
        )
    except OSError:
        return False


def _is_own_file(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _BY_OTHERS


def _checksum_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A block for one process at a time of those that name the folder; for all of them at once on a file system that
    cannot lock it. A process that ends, however it ends, lets the next one in."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _folder() -> Path:
    """The folder of compiled code in the user's cache. Raises OSError or InputError if it cannot be written, belongs to
    somebody else, or keeps no permissions."""
    folder = runtime.cache_folder() / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    if os.stat(folder).st_mode & _BY_OTHERS:
        os.chmod(folder, 0o700)
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        os.chmod(probe.name, 0o600)
        if os.stat(folder).st_uid == os.getuid() and _is_own_file(Path(probe.name)):
            return folder
    raise InputError(f"{folder} belongs to another user, or is on a file system that keeps no permissions")


@cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="ms_vireid-cuda-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]

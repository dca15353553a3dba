"""Numba's `njit`, with a folder for `cache=True`: beside the source, in the user's cache or, if neither can be written
(a read-only image without a home), a temporary one that this process shares with its children. What it keeps is checked
before it is loaded."""

import atexit
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ms_vireid.command.errors import InputError, shown
from ms_vireid.devices.runtime import set_for_children
from ms_vireid.files.checks import note

try:
    import numba
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ValueError as error:
    raise InputError(f"Numba does not start ({error}); unset NUMBA_NUM_THREADS or other NUMBA_*") from None

_DIGEST = hashlib.sha256().digest_size  # bytes at the end of each file
_BY_OTHERS = 0o022  # permission to write


class _Files(IndexDataCacheFile):
    """A function's compiled code, each file with a SHA-256 of its content. What is damaged is not loaded: it is
    compiled anew, and replaced."""

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _load_index(self) -> dict:
        return super()._load_index() if self._is_whole(self._index_path) else {}

    def _load_data(self, name: str) -> tuple:
        if not self._is_whole(self._data_path(name)):
            raise FileNotFoundError  # as if it had been removed, which Numba expects
        return super()._load_data(name)

    def _is_whole(self, path: str) -> bool:
        try:
            content = Path(path).read_bytes() if os.path.isfile(path) else b""
        except OSError:
            content = b""
        if whole := hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]:
            return whole
        if os.path.lexists(path):
            note(path, "is damaged or not this project's; recompiling it")
            with suppress(OSError):  # a folder, or one that cannot be written: it is compiled each time
                os.unlink(path)
        return False


class _Cache(FunctionCache):
    """Numba's, of such files. A folder beside the source is as safe as the source; another one must be the user's own
    and not writable by others, or is not used."""

    def __init__(self, function: Callable):
        super().__init__(function)
        base, folder = f"{self._impl.filename_base}.checked", Path(function.__code__.co_filename).parent
        stamp = self._impl.locator.get_source_stamp(), _sources(folder)
        self._cache_file = _Files(cache_path=self.cache_path, filename_base=base, source_stamp=stamp)
        beside = Path(self.cache_path).is_relative_to(folder)
        if not beside and os.path.exists(self.cache_path):
            status = os.stat(self.cache_path)
            if status.st_uid != os.getuid() or status.st_mode & _BY_OTHERS:
                self.disable()

    def save_overload(self, sig: object, data: object) -> None:
        with suppress(OSError):  # a full disk: it is compiled each time
            super().save_overload(sig, data)


@cache
def _sources(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The files beside a function's own, of which its compiled code may hold functions and numbers: Numba looks at that
    one alone."""
    found = [(path.name, path.stat()) for path in folder.glob("*.py") if path.is_file()]
    return tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in found))


def njit(*signature: object, cache: bool = False, **options) -> Callable:
    """As Numba's, as a decorator with arguments."""

    def compiled(function: Callable) -> Callable:
        dispatcher = numba.njit(**options)(function)
        if dispatcher is function:  # NUMBA_DISABLE_JIT=1
            return function
        if cache:
            dispatcher._cache = _Cache(function)  # as its `enable_caching`, with ours
        for one in signature:
            dispatcher.compile(one)
        if signature:
            dispatcher.disable_compile()
        return dispatcher

    return compiled


if not re.fullmatch("([+-][^,]+(,|$))*", features := numba.config.CPU_FEATURES or ""):  # LLVM ends the process
    raise InputError(f"NUMBA_CPU_FEATURES {shown(features)}: must be like '+avx2,-fma'; unset it")
try:
    numba.njit(cache=True)(lambda: None)
except RuntimeError as error:  # Numba finds no folder
    if "NUMBA_CACHE_LOCATOR_CLASSES" in str(error):
        raise InputError(f"{error}; unset it") from None
    # A new folder: whatever code lies in it is run.
    numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="ms_vireid-kernels-")
    set_for_children({"NUMBA_CACHE_DIR": numba.config.CACHE_DIR})
    atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)
    note("no writable folder for compiled kernels", "each run compiles them; set NUMBA_CACHE_DIR to one")

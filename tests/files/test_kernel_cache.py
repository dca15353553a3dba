"""Compiled kernels have a place to be kept, even where no folder can be written, and are checked before they are
loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import numba, os
from ms_vireid.evaluation import counting
print(numba.config.CACHE_DIR, oct(os.stat(numba.config.CACHE_DIR).st_mode)[-3:])
"""


def run(**further):
    """As where neither the source's folder nor the user's can be written."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | further
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_without_a_place_there_is_one_of_the_process_alone_and_a_note():
    done = run()
    folder, mode = done.stdout.split()
    assert mode == "700"
    assert not Path(folder).exists()
    assert done.stderr.startswith("note: no writable folder for compiled kernels")


def test_a_place_that_is_named_is_taken(tmp_path):
    done = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout.split()[0] == str(tmp_path)
    assert done.stderr == ""


BACKEND = """
from ms_vireid.files.kernel_cache import njit

@njit("float64(float64)", cache=True)
def half(x):
    return x / 2

@njit(cache=True)
def product(x, y):
    return half(x) * y

print(product(3.0, 4.0), product(3.0, 4))
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder of a program and its compiled functions."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "backend.py").write_text(BACKEND)
    assert run_backend(folder) == ["6.0 6.0"]
    return folder


def run_backend(folder, **variables):
    done = subprocess.run(
        [sys.executable, folder / "backend.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines() + done.stderr.splitlines()


def files(folder):
    return sorted(folder.rglob("*.nb[ic]"))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced(path, make):
    path.unlink()
    make(path)


DAMAGE = {
    "a bit": flipped,
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a pipe": lambda path: replaced(path, os.mkfifo),
    "a folder": lambda path: replaced(path, Path.mkdir),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_compiled_anew_and_said(kept, tmp_path, kind):
    folder = shutil.copytree(kept, tmp_path / "copy")
    shutil.copystat(kept / "backend.py", folder / "backend.py")
    spoiled = files(folder)
    assert len(spoiled) == 5  # two indices, three signatures
    for path in spoiled:
        DAMAGE[kind](path)
    said = run_backend(folder)
    assert said[0] == "6.0 6.0"
    noted = [line for line in said[1:] if line.endswith("is damaged or not this project's; recompiling it")]
    assert said[1:] == noted
    named = {line.removeprefix("note: ").partition(": ")[0] for line in noted}
    assert named >= {str(path) for path in spoiled if path.suffix == ".nbi"}
    if kind != "a folder":
        assert run_backend(folder) == ["6.0 6.0"]


def test_what_is_whole_is_loaded(kept):
    before = {path: path.stat().st_mtime_ns for path in files(kept)}
    assert run_backend(kept) == ["6.0 6.0"]
    assert {path: path.stat().st_mtime_ns for path in files(kept)} == before


HELPERS = """
from ms_vireid.files.kernel_cache import njit

TWO = 2

@njit()
def halved(x):
    return x / TWO
"""


def test_an_edit_of_a_file_beside_it_is_compiled(tmp_path):
    """Compiled code holds the functions and numbers of other files that it uses."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "backend.py").write_text("from helpers import halved\n" + BACKEND.replace("x / 2", "halved(x)"))
    assert run_backend(tmp_path) == ["6.0 6.0"]
    helpers = tmp_path / "helpers.py"
    helpers.write_text(helpers.read_text().replace("TWO = 2", "TWO = 4"))
    assert run_backend(tmp_path) == ["3.0 3.0"]


@pytest.mark.parametrize(("mode", "used"), [(0o700, True), (0o777, False)])
def test_a_folder_that_others_can_write_is_not_used(kept, tmp_path, mode, used):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    old = os.umask(0o777 & ~mode)
    try:
        assert run_backend(kept, NUMBA_CACHE_DIR=str(cache)) == ["6.0 6.0"]
    finally:
        os.umask(old)
    for folder in cache.iterdir():
        folder.chmod(mode)
    for path in files(cache):
        path.write_bytes(b"")
    said = run_backend(kept, NUMBA_CACHE_DIR=str(cache))
    assert (len(said) > 1) == used

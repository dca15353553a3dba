"""Compiled kernels have a place to be kept, even where no folder can be written."""

import os
import subprocess
import sys
from pathlib import Path

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
    assert done.stderr.startswith("note: no folder can be written to keep compiled kernels in")


def test_a_place_that_is_named_is_taken(tmp_path):
    done = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout.split()[0] == str(tmp_path)
    assert done.stderr == ""

"""A command killed at moments drawn from a seed: given again, it ends as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ms_vireid.files.writing import TEMPORARY

SAVE = ("-m", "ms_vireid.retrieve", "--gallery", "a.npz", "--index", "flat", "--save-index", "saved.index")


def begun(folder):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, *SAVE], cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def saved(folder):
    assert begun(folder).wait() == 0
    return (folder / "saved.index").read_bytes()


def test_a_killed_command_loses_nothing_and_makes_nothing_wrong(good, tmp_path):
    place = shutil.copytree(good, tmp_path / "place", symlinks=True)
    saved(place)  # what Python and Numba keep is there from now on
    (place / "saved.index").unlink()
    first = time.monotonic()
    expected = saved(place)
    seconds, draw, killed = time.monotonic() - first, random.Random(1), 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        (place / "saved.index").unlink()
        process = begun(place)
        time.sleep(draw.uniform(0, seconds))
        process.send_signal(number)
        killed += process.wait(30) != 0  # it may have ended before
        assert saved(place) == expected
        assert not [path for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    assert killed

"""Processes side by side: they end with the one that they work for, which says how they ended."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from ms_vireid.command.errors import InputError
from parity import processes

SLEEPS = 60


def announced(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(SLEEPS)


def main(folder):
    with processes.executor(2, os.getpid) as others:
        list(others.map(announced, [folder] * 2))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends processes with their parent")
def test_processes_end_with_one_that_is_killed(tmp_path):
    with processes.session([sys.executable, "-m", "tests.parity.test_processes", str(tmp_path)]) as process:
        deadline = time.monotonic() + SLEEPS
        while len(numbers := [int(path.name) for path in tmp_path.iterdir()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [psutil.Process(number) for number in numbers]
        assert len(workers) == 2
        process.kill()
        assert not psutil.wait_procs(workers, timeout=60)[1]


def kill(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_of_the_benchmark_is_one_line():
    with processes.OneProcess() as process:
        assert process.ask(abs, -1) == 1
        for _ in range(2):
            with pytest.raises(InputError, match="a process was killed, as Linux does when memory runs out; try"):
                process.ask(kill)


if __name__ == "__main__":
    main(sys.argv[1])

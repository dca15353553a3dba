"""What ends with other processes."""

import os
import signal
import subprocess
import sys
import time

LAUNCHER = """
import subprocess, sys
scheduler = "from ms_vireid.command.stopping import *; end_with_workers(1); time.sleep(60)"
worker = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({sys.argv[1]})"])
print(subprocess.Popen([sys.executable, "-c", scheduler]).wait())
worker.kill()
"""


def launched(tmp_path, name, seconds):
    (tmp_path / name).write_text(LAUNCHER)
    return subprocess.Popen(
        [sys.executable, tmp_path / name, str(seconds)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_worker_leaves_ctrl_c_and_sigterm_to_its_parent():
    script = (
        "import os; from ms_vireid.command.stopping import *\nleave_to_parent()\n"
        "for number in STOPS: os.kill(os.getpid(), number)\nprint(len(STOPS))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n")


def test_a_scheduler_ends_after_its_workers(tmp_path):
    begun = time.monotonic()
    with launched(tmp_path, "msrun", 2) as process:
        said, _ = process.communicate(timeout=120)
    assert said.strip() == str(-signal.SIGTERM)
    assert 2 < time.monotonic() - begun < 15


def test_a_scheduler_stays_while_a_worker_lives_and_where_no_launcher_is_known(tmp_path):
    processes = [launched(tmp_path, name, seconds) for name, seconds in (("msrun", 60), ("another", 0))]
    time.sleep(3)
    assert [process.poll() for process in processes] == [None, None]
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

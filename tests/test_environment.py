"""What a container, a locale, a file system or the system's memory takes away: each in one line."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import synchronize
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import progress, say
from ms_vireid.command.stopping import how_ended
from ms_vireid.data import processes
from ms_vireid.data.loader import iterate
from ms_vireid.devices import runtime
from ms_vireid.files.writing import atomic_write, check_output
from ms_vireid.search.feature_files import check_feature_folder
from parity.processes import OneProcess, executor
from tests.data import tree

ROOT = Path(__file__).parents[1]
FULL = os.strerror(errno.ENOSPC)
CHECKS = "from ms_vireid.check_data import main; from ms_vireid.command.running import run; run(main)"


def python(code, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def no_semaphores(monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", full)


@pytest.mark.usefixtures("no_semaphores")
def test_workers_that_cannot_share_memory_are_refused_and_one_process_checks(monkeypatch, caplog):
    said = rf"/dev/shm, which processes share, cannot be written \({FULL}\); give a container more by --shm-size, or "
    with pytest.raises(InputError, match=f"{said}read in this process .data.workers=0, --workers 0"):
        next(iterate(range(3), 1))
    with pytest.raises(InputError, match=said), executor(1, print):
        pass
    with pytest.raises(InputError, match=said):
        OneProcess()
    monkeypatch.setattr(processes, "FEW", 0)
    with caplog.at_level(logging.WARNING):
        assert list(processes.in_processes(abs, [-1, 2], 1, "two")) == [1, 2]
    assert "note: one process works on two: /dev/shm" in caplog.text


@pytest.mark.parametrize("code", [CHECKS, "import ms_vireid; ms_vireid.create_model('pmt_vit_tiny', 3)"])
def test_a_locale_without_utf8_is_refused(code):
    done = python(code, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    said = "this locale reads file names as ascii, not UTF-8; set PYTHONUTF8=1"
    assert done.stderr.decode().splitlines()[-1].endswith(f": {said}")


@pytest.mark.parametrize("command", ["ms_vireid.evaluate", "ms_vireid", "parity.report", "torch_ref.train"])
def test_a_folder_that_was_deleted_is_one_line(tmp_path, command):
    begin = f"import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, '-m', '{command}'])"
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", begin],
        cwd=tmp_path / "gone",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "error: the working folder no longer exists (No such file or directory); cd to another one\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_names_that_are_too_long_are_refused_before_the_work(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    fits, too_long = (tmp_path / f"{'n' * (length - 4)}.npz" for length in (longest, longest + 1))
    check_output(fits)
    with atomic_write(fits) as temporary:
        temporary.write_text("written")
    with pytest.raises(InputError, match=rf"its name is too long \({longest + 1} bytes\)"):
        check_output(too_long)
    with pytest.raises(InputError, match="its name is too long"):
        check_output(fits, beside=".partial")
    with pytest.raises(InputError, match="its name is too long"):
        check_output(tmp_path / f"a.{'n' * (longest - 20)}")  # whose temporary name is longer
    wide = tmp_path / f"{'写' * 80}.json"
    check_output(wide)
    with atomic_write(wide) as temporary:
        temporary.write_text("written")


def test_how_a_process_ended_is_said():
    said = [how_ended(code) for code in (3, -signal.SIGSEGV, -signal.SIGKILL)]
    assert said == ["ended with exit code 3", "was ended by SIGSEGV", "was killed, as Linux does when memory runs out"]


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_and_no_file_takes_their_place(tmp_path, closed):
    tree.write_folder(tmp_path / "people")
    given = f"{sys.executable} -m ms_vireid.check_data data.name=folder --data-root people --json found.json {closed}"
    done = subprocess.run(["sh", "-c", given], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "found.json").read_text())
    wrong = given.replace("people", "nowhere")
    assert subprocess.run(["sh", "-c", wrong], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 2


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        *[
            (name, level, "MindSpore's log level")
            for name in ("GLOG_v", "GLOG_stderrthreshold")
            for level in ("a", "5")
        ],
        ("GLOG_logtostderr", "=", "MindSpore's logs go"),
        ("GLOG_logtostderr", "0", "sends MindSpore's logs to files"),
        ("logger_maxBytes", "-1", "MindSpore's size"),
        ("logger_backupCount", "٣", "MindSpore's number"),
    ],
)
def test_what_ends_mindspores_import_is_one_line(monkeypatch, name, value, meaning):
    monkeypatch.delenv("GLOG_log_dir", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name}={value}: {meaning}.*unset it$"):
        runtime.set_up("CPU")


def test_a_user_without_a_home_and_a_name_has_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(InputError, match="no home folder is known to keep a cache in; set HOME or XDG_CACHE_HOME"):
        runtime.cache_folder()


class WriteAndFlush:
    """A notebook's stream."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("stream", [WriteAndFlush(), None])
def test_streams_that_are_no_files_change_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    assert list(progress([1, 2], 2, "two", "")) == [1, 2]
    say("said")
    assert stream is None or stream.text == "said\n"


READS = "from ms_vireid.command.running import run; run(lambda: __import__('ms_vireid.data.transforms'))"


@pytest.mark.parametrize(
    ("name", "value"),
    [("NUM_THREADS", "0"), ("NUM_THREADS", "-1"), ("CPU_FEATURES", "avx2"), ("CACHE_LOCATOR_CLASSES", "nowhere")],
)
def test_what_numba_does_not_start_with_is_one_line(name, value):
    done = python(READS, **{f"NUMBA_{name}": value})
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2, line
    assert f"NUMBA_{name}" in line
    assert "; unset " in line


TRAINS = "from ms_vireid.train import main; from ms_vireid.command.running import run; run(main)"
HERE = {"MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": "8118"}


@pytest.mark.parametrize(("role", "number"), [("MS_WORKER", signal.SIGTERM), ("MS_SCHED", signal.SIGINT)])
def test_a_role_that_was_left_over_says_what_it_waits_for_and_ends_at_once(tmp_path, role, number):
    variables = {"PYTHONPATH": str(ROOT), "MS_ROLE": role, **HERE}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINS, "--device", "CPU"],
        cwd=tmp_path,
        env=os.environ | variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        (late := threading.Timer(30, waiting.kill)).start()
        said = waiting.stderr.readline()
        time.sleep(1)  # it is in MindSpore by now
        waiting.send_signal(number)
    late.cancel()
    assert waiting.returncode == -number
    assert said == (
        f"note: waiting for other processes (MS_ROLE={role}, MS_WORKER_NUM=2, MS_SCHED_HOST=127.0.0.1, "
        "MS_SCHED_PORT=8118); unset MS_ROLE to start without them\n"
    )


@pytest.mark.parametrize("variables", [{"MS_ROLE": "MS_SCHED"}, {"MS_ROLE": "x"}, {"DEVICE_ID": "3"}])
def test_a_role_that_was_left_over_does_not_end_without_a_word(monkeypatch, variables):
    for name, value in ({"MS_ROLE": "MS_WORKER"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="said"), runtime.print_once_per_machine():
        raise InputError("said")


def test_a_folder_of_features_refuses_pictures_whose_files_it_cannot_hold(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    fits = Path("a", f"{'n' * (longest - 8)}.jpg")
    check_feature_folder(tmp_path / "out", [fits])
    said = r"out: pictures whose names are too long for files of a folder: 1 \(.*; write a \.npz or \.csv file"
    with pytest.raises(InputError, match=said):
        check_feature_folder(tmp_path / "out", [fits, Path("a", f"{'n' * (longest - 7)}.jpg")])
    with pytest.raises(InputError, match=said):  # each name is short, the path is not
        check_feature_folder(tmp_path / "out", [Path(*["deep" * 10] * 100, "0.jpg")])

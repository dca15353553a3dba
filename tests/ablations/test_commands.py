"""Commands in processes of their own: what is printed and logged, why one failed, and how Ctrl-C reaches it."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from ms_vireid.ablations import commands
from ms_vireid.ablations.commands import handing_stops_on, side_by_side, start


@pytest.fixture
def stand_in(tmp_path):
    """A command that runs these lines."""

    def write(text):
        path = tmp_path / "command.py"
        path.write_text("import os, signal, sys, time\n" + text)
        return SimpleNamespace(__file__=str(path))

    return write


def test_output_is_printed_and_appended_to_the_log(stand_in, tmp_path, capfd):
    command = stand_in("print('one', *sys.argv[1:])\nprint('two', file=sys.stderr)")
    log = tmp_path / "run" / "log.txt"
    assert start(command, ["a b"], log) is None
    assert start(command, ["c"], log) is None
    assert log.read_text() == "one a b\ntwo\none c\ntwo\n"
    assert capfd.readouterr().out == log.read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print('error: loss=nan', file=sys.stderr); sys.exit(2)", "loss=nan"),
        ("raise RuntimeError('out of device memory')", "RuntimeError: out of device memory"),
        ("sys.exit(3)", "exit code 3"),
        ("print('step 1'); os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL (out of memory?)"),
    ],
)
def test_a_failure_is_one_line(stand_in, tmp_path, text, reason):
    assert start(stand_in(text), [], tmp_path / "log.txt") == reason


SAVING = (
    "count = []\n"
    "for number in (signal.SIGINT, signal.SIGTERM):\n"
    "    signal.signal(number, lambda number, _: count.append(number))\n"
    "print('ready')\n"
    "while not count: time.sleep(0.01)\n"
    "time.sleep(0.2)\n"
    "print('saved after', *count)\n"
    "sys.exit(130)\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_handed_on_once_and_waited_for(stand_in, tmp_path, monkeypatch, number):
    monkeypatch.setattr(commands.tqdm, "write", lambda line: line == "ready" and os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), handing_stops_on():
        start(stand_in(SAVING), [], tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == f"ready\nsaved after {int(number)}\n"
    assert signal.getsignal(number) is before


def test_a_stop_ends_all_that_run_side_by_side_and_starts_no_other(stand_in, tmp_path, monkeypatch):
    ready = []

    def write(line):
        ready.append(line)
        if ready == ["ready", "ready"]:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(commands.tqdm, "write", write)
    command, logs = stand_in(SAVING), [tmp_path / name for name in "abc"]
    with pytest.raises(KeyboardInterrupt), handing_stops_on():
        list(side_by_side(lambda log: start(command, [], log), logs, 2))
    assert [log.read_text() for log in logs[:2]] == ["ready\nsaved after 2\n"] * 2
    assert not logs[2].exists()
    assert start(stand_in("print('another')"), [], logs[2]) is None  # the stop is over with its block


def test_side_by_side_is_at_the_same_time_with_titles_and_results(stand_in, tmp_path, capfd):
    meeting = "open(sys.argv[1], 'w').close()\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)\nprint('met')"
    command = stand_in(f"{meeting}\nsys.exit(int(sys.argv[3]))")
    others = {"a": ("b", 0), "b": ("a", 3)}  # each waits for the other

    def make(name):
        other, code = others[name]
        return start(command, [tmp_path / name, tmp_path / other, str(code)], tmp_path / f"{name}.log", f"{name}: ")

    assert dict(side_by_side(make, list(others), 2)) == {"a": None, "b": "met"}
    assert sorted(capfd.readouterr().out.splitlines()) == ["a: met", "b: met"]
    assert (tmp_path / "a.log").read_text() == "met\n"


def test_the_cores_are_shared_out(monkeypatch):
    shares = []
    monkeypatch.setattr(commands.runtime, "cores", lambda: (0, 1, 4))
    monkeypatch.setattr(commands.os, "sched_setaffinity", lambda _, share: shares.append(share), raising=False)
    meeting = threading.Barrier(2)
    list(side_by_side(lambda _: meeting.wait(60), range(2), 2))
    assert sorted(shares) == [(0, 4), (1,)]

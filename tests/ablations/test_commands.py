"""Commands in processes of their own: what is printed and logged, why one failed, and how Ctrl-C reaches it."""

import os
import signal

import pytest

from ms_vireid.ablations import runs
from ms_vireid.ablations.runs import start


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A command of these lines, by its name."""

    def write(text):
        (tmp_path / "ms_vireid").mkdir(exist_ok=True)
        (tmp_path / "ms_vireid/__init__.py").touch()
        (tmp_path / "ms_vireid/stand_in.py").write_text("import os, signal, sys, time\n" + text)
        monkeypatch.chdir(tmp_path)  # where -m looks first
        return "stand_in"

    return write


def test_output_is_printed_and_appended_to_the_log(stand_in, tmp_path, capfd):
    command = stand_in("print('one', *sys.argv[1:])\nprint('two', file=sys.stderr)")
    log = tmp_path / "row" / "run" / "log.txt"  # neither folder is there yet
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
        ("print('step 1'); os.kill(os.getpid(), signal.SIGKILL)", "was killed, as Linux does when memory runs out"),
    ],
)
def test_a_failure_is_one_line(stand_in, tmp_path, text, reason):
    assert start(stand_in(text), [], tmp_path / "log.txt") == reason


SAVING = """
count = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: count.append(number))
print('ready')
while not count: time.sleep(0.01)
time.sleep(0.2)
print('saved after', *count)
sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_handed_on_once_and_waited_for(stand_in, tmp_path, monkeypatch, number):
    monkeypatch.setattr(runs, "say", lambda line: line == "ready" and os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        start(stand_in(SAVING), [], tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == f"ready\nsaved after {int(number)}\n"
    assert signal.getsignal(number) is before

"""Commands of this project, each in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ms_vireid.command.stopping import STOPS


def start(command: str, arguments: Sequence[str], log: Path) -> str | None:
    """Run `python -m ms_vireid.COMMAND`, print what it prints, and append that to `log`.

    A process of its own gives its memory back, and takes no other with it when it is killed. It is in a session of its
    own, so that Ctrl-C reaches it once, through this process; if this process is killed outright, it ends with its next
    line of output.

    Returns: None, or the reason of its failure in one line.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the command has ended.
    """
    words = [sys.executable, "-u", "-m", f"ms_vireid.{command}", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    log.parent.mkdir(parents=True, exist_ok=True)
    last = ""
    children: list[subprocess.Popen] = []
    with log.open("a", encoding="utf-8") as file, _handing_on_to(children) as stops:
        with subprocess.Popen(words, start_new_session=True, **output) as child:
            children.append(child)
            if stops:  # while it was being started, with nothing to save yet
                child.terminate()
            for line in child.stdout:
                file.write(line)
                file.flush()
                tqdm.write(line.rstrip("\n"))
                last = line.strip() or last
        if stops:
            raise KeyboardInterrupt
    if child.returncode < 0:
        return f"killed by {signal.Signals(-child.returncode).name} (out of memory?)"
    return (last.removeprefix("error: ") or f"exit code {child.returncode}") if child.returncode else None


@contextmanager
def _handing_on_to(children: list[subprocess.Popen]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to these processes, which save and end; a list of those that came."""
    stops: list[int] = []

    def hand_on(number, _frame):
        stops.append(number)
        for child in children:
            child.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in STOPS}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

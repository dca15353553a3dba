"""A process on a stand-in that runs one case after another: starting one takes MindSpore seconds."""

import json
import select
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ms_vireid.command.stopping import how_ended
from parity.stand_in import StandIn

LIMIT_S = 240.0  # of a case: several times what the longest takes on one core
ROOT = Path(__file__).parents[2]


class CaseError(Exception):
    """What went wrong in a case: its traceback there, or how its process ended, with the end of the log."""


class Worker:
    """Does what functions of `tests.device.probe` do, in a process that is started when it is needed.

    A case that hangs or crashes the process fails alone: the next one has a new process.

    Args:
        folder: where it works, an absolute path; printed.txt there holds what is printed.
        blocking: as `probe.set_up`. values: as `StandIn.environment`.
    """

    def __init__(self, stand_in: StandIn, folder: Path, blocking: bool = False, values: bool = True):
        self.stand_in = stand_in
        self.folder = folder
        self.blocking = blocking
        self.values = values
        self.log = folder / "printed.txt"
        self._process: subprocess.Popen | None = None
        self._stack = ExitStack()

    def do(self, function: str, *arguments, limit_s: float = LIMIT_S):
        """Call a function of the probe; returns what it returns.

        Raises:
            CaseError: it raised something, was still running after `limit_s` seconds, or took the process with it.
        """
        if self._process is None:
            self._start()
            self._ask("set_up", [self.stand_in.device, self.blocking], LIMIT_S)
        return self._ask(function, arguments, limit_s)

    def close(self) -> None:
        self._stack.close()
        self._process = None

    def _start(self) -> None:
        variables = self.stand_in.environment(values=self.values) | {"PYTHONPATH": str(ROOT)}
        log = self._stack.enter_context(self.log.open("a"))
        command = [sys.executable, "-m", "tests.device.probe"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        self._process = self._stack.enter_context(
            self.stand_in.start(command, variables, cwd=self.folder, text=True, **pipes)
        )

    def _ask(self, function: str, arguments, limit_s: float):
        print(json.dumps({"do": function, "with": arguments}), file=self._process.stdin, flush=True)
        readable, _, _ = select.select([self._process.stdout], [], [], limit_s)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            code = self._process.wait() if readable else None
            self.close()
            case = f"{function}({', '.join(map(repr, arguments))})"
            how = f"still running after {limit_s:g} s, and killed" if code is None else f"its process {how_ended(code)}"
            raise CaseError(f"{case}: {how}; the last it printed:\n{self._tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise CaseError(answer["error"])
        return answer["value"]

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

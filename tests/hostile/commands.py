"""Commands run by the hundred, each in a process of its own: one that crashes, hangs or takes all memory is seen.

A server process imports everything once, and forks for each command. Run as a program it is that server.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0  # of a processor, that a command may take to refuse its input
MEMORY = 2 << 30  # bytes, that it may take besides what is imported
REFUSED_SECONDS, REFUSED_MEMORY = 5.0, 192 << 20  # besides four times the size of the files
OUTPUTS = "stdout", "stderr"
PRELOADED = (  # the work of all commands, which they import only when it begins
    *("ms_vireid.engine.trainer", "ms_vireid.search.trained_model", "ms_vireid.search.extraction"),
    *("ms_vireid.ablations.output", "ms_vireid.data.picture_paths", "ms_vireid.search.sources"),
    *("ms_vireid.search.local_gallery", "ms_vireid.search.faiss_index", "ms_vireid.exports.mindir"),
    *("ms_vireid.visualization.page", "ms_vireid.visualization.curves", "ms_vireid.visualization.maps"),
    *("ms_vireid.exports.onnx_graph", "parity.conversion"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a command: its exit code (negative: the signal that killed it; None: it was stopped at the limit),
    what it printed, its seconds of processor time, and the bytes of memory that it took besides what is imported."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    memory: int = 0


class Commands:
    """The server, from here. file_limit: bytes that a command may write to a file, as on a full disk. patient: with ten
    times the seconds, as a training may have kernels to compile. environment: variables of it."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.hostile.commands"]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self,
        folder: Path,
        module: str,
        *argv: str,
        file_limit: int | None = None,
        patient: bool = False,
        environment: dict[str, str] | None = None,
    ) -> Outcome:
        request = {"folder": str(folder), "module": module, "argv": list(map(str, argv)), "file_limit": file_limit}
        request |= {"seconds": 10 * SECONDS if patient else SECONDS, "environment": environment or {}}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Outcome(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


def assert_refused(outcome: Outcome) -> str:
    """Exit code 2 and one line of at most 300 characters that can be printed; returns it."""
    lines = [line for line in outcome.stderr.splitlines() if not line.startswith("note: ")]
    assert outcome.code == 2, (outcome.code, outcome.stderr[-2000:])
    assert len(lines) == 1, outcome.stderr[-2000:]
    assert lines[0].startswith("error: ")
    assert len(lines[0]) <= 300
    assert lines[0].isprintable()
    return lines[0]


def assert_frugal(outcome: Outcome, folder: Path, more: int = 0) -> None:
    """A line about what is wrong costs little, and no more memory than four times the files it may be about, and
    `more`."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if outcome.code == 2:
        assert outcome.seconds <= REFUSED_SECONDS, outcome.seconds
        assert outcome.memory <= REFUSED_MEMORY + 4 * size + more, (outcome.memory, size)


def assert_no_crash(outcome: Outcome) -> None:
    """Done, or refused in one line."""
    if outcome.code != 0:
        assert_refused(outcome)


def _serve() -> None:
    from ms_vireid.devices import runtime

    runtime.set_up("CPU")
    runtime.cap_convolutions()
    for name in PRELOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(request: dict) -> dict:
    pipes = {name: os.pipe() for name in OUTPUTS}
    printed = dict.fromkeys(OUTPUTS, b"")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(request, {name: write for name, (_, write) in pipes.items()})
    for read, write in pipes.values():
        os.close(write)
        os.set_blocking(read, False)
    code = None
    while code is None and time.monotonic() - began < 12 * request["seconds"]:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.005)
        _read_into(printed, pipes)
    if code is None:
        os.kill(child, signal.SIGKILL)
        _, _, usage = os.wait4(child, 0)
    elif code == -signal.SIGXCPU:
        code = None
    _read_into(printed, pipes)
    for read, _ in pipes.values():
        os.close(read)
    texts = {name: content.decode(errors="replace") for name, content in printed.items()}
    imported, _, texts["stderr"] = texts["stderr"].partition("\n")  # as it says first
    memory = max(0, (usage.ru_maxrss << 10) - int(imported or 0))
    return {"code": code, **texts, "seconds": round(usage.ru_utime + usage.ru_stime, 2), "memory": memory}


def _read_into(printed: dict[str, bytes], pipes: dict[str, tuple[int, int]]) -> None:
    for name, (read, _) in pipes.items():
        with suppress(BlockingIOError):
            while piece := os.read(read, 1 << 16):
                printed[name] += piece


def _become(request: dict, outputs: dict[str, int]) -> None:
    """Run the command in this process, and end it."""
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # to be looked up anew
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in enumerate(OUTPUTS, 1):
        os.dup2(outputs[name], number)
        setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    size, resident, *_ = (int(pages) * resource.getpagesize() for pages in Path("/proc/self/statm").read_text().split())
    print(resident, file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    seconds = int(request["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if request["file_limit"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    from ms_vireid.command.running import run

    module = importlib.import_module(request["module"])
    sys.argv = [module.__name__, *request["argv"]]
    code = 1
    try:
        run(module.main)
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()

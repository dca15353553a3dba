"""What a command's process needs before all else. Ctrl-C and SIGTERM end it with exit code 130 and no traceback, from
its first import on; its standard streams are open.

A command's file imports this module before all else. Python raises KeyboardInterrupt anywhere, also in a library that
is being imported, where the C++ of MindSpore and PyTorch ends the process by SIGABRT. So where nothing is begun yet the
process leaves at once; elsewhere it is interrupted, as Python does, and cleans up. Backends that import this project
keep their own handlers.
"""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)
CODE = 130
_FOLDERS = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]  # of this project's commands
_FOLDERS += [os.path.join(os.path.dirname(_FOLDERS[0]), name) for name in ("parity", "torch_ref")]
_interrupted = False


def interrupted() -> bool:
    """Whether a signal has interrupted this command: what is raised then is no fault."""
    return _interrupted


@contextmanager
def at_once() -> Iterator[None]:
    """Within the block, in which libraries are imported, the signals end this command at once."""
    before = {number: signal.getsignal(number) for number in STOPS}
    ours = [number for number, handler in before.items() if handler is _interrupt]
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def begin() -> None:
    """The command runs: from now on the signals interrupt it."""
    _replace(_leave, _interrupt)


def end() -> None:
    """The command is done: what libraries still do is not interrupted."""
    _replace(_interrupt, _leave)


def _replace(handler: object, by: object) -> None:
    for number in STOPS:
        if signal.getsignal(number) is handler:
            signal.signal(number, by)


def _leave(_number: int, _frame: object) -> None:
    os._exit(CODE)


def _interrupt(_number: int, _frame: object) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _is_command() -> bool:
    """Whether this process was started as one of this project's commands."""
    script = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
    folder, name = os.path.split(script)
    return name == "ms-vireid" or any(folder == one or folder.startswith(one + os.sep) for one in _FOLDERS)


def _open_streams() -> None:
    """Open /dev/null for standard streams that are closed (`2>&-`): the next file that is opened would become one."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # as the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115, as long as the process lives


def _ignore() -> None:
    """Python's own end takes the handlers away, and a signal would then end a command that has done its work."""
    _replace(_leave, signal.SIG_IGN)


if _is_command():
    _open_streams()
    atexit.register(_ignore)  # as the first, it is called as the last
    _replace(signal.default_int_handler, _leave)  # unless whoever started this process has it ignored
    _replace(signal.SIG_DFL, _leave)

"""What all commands share: one-line errors, exit codes, and the arguments that several take."""

import argparse
import io
import os
import re
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import NoReturn

from ms_vireid.command.errors import InputError, one_line

DEVICES = ("auto", "CPU", "GPU", "Ascend")
# Outside errors that nothing deeper has caught.
OUTSIDE = (InputError, OSError, MemoryError, RecursionError, UnicodeError, EOFError, zlib.error, zipfile.BadZipFile)

# MindSpore raises this anywhere in the main process as soon as a process that reads pictures is killed.
_WORKER = re.compile(r"DataLoader worker .*(killed|exited)")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; `--help` shows defaults."""

    def __init__(self, description: str, **options):
        super().__init__(description=description, formatter_class=_Help, **options)

    def error(self, message: str):
        raise InputError(f"{message}; see --help")


def require_extra(what: str, extra: str, *packages: str) -> None:
    """Raise InputError unless these packages, part of an extra of this project, are installed."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"{what} needs {' and '.join(missing)}: pip install -e '.[{extra}]'")


def check_least(arguments: argparse.Namespace, **least: int) -> None:
    """Raise InputError for a number that is given and too small."""
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least {smallest}")


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to run; auto takes Ascend, else GPU, else CPU"
    )


def add_inference(parser: Parser) -> None:
    """The arguments that `start_inference` reads."""
    add_device(parser)
    parser.add_argument(
        "--kernels", choices=("auto", "off"), default="auto", help="off: MindSpore's operators alone, on a CPU too"
    )


def run(main: Callable[[], None]) -> None:
    """Run a command. Exit code 0; 2 and one line if something outside is wrong (a user's mistake, a file, the system);
    130 if interrupted; 1 and the traceback for a bug of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name on disk may hold any bytes
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (*OUTSIDE, RuntimeError) as error:
        if not isinstance(error, OUTSIDE) and not _WORKER.search(str(error)):
            _end_as_bug()
        if os.environ.get("MS_VIREID_TRACEBACK", "") not in ("", "0"):
            traceback.print_exc()
        print(one_line(f"error: {_what(error)}"), file=sys.stderr)
        sys.exit(2)
    except Exception:
        _end_as_bug()


def _end_as_bug() -> NoReturn:
    traceback.print_exc()
    print("this is a bug of ms_vireid; please report it with the lines above", file=sys.stderr)
    sys.exit(1)


def _what(error: BaseException) -> str:
    """The outside error in words."""
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and the space there"
    if isinstance(error, MemoryError):
        return f"out of memory ({error or 'no size is known'}); try smaller sizes, or a machine with more"
    if isinstance(error, RecursionError):
        return "what was read is nested too deeply; use another copy"
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, RuntimeError):
        return "a process that reads pictures was killed (out of memory?); go on with the same command, --resume auto"
    return f"what was read cannot be decoded ({type(error).__name__}: {error}); use another copy"

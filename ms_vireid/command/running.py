"""How all commands run: their parsers, one-line errors, exit codes, and the arguments that several share.

A command's file has its parser and, behind it, its work. What takes time to import, such as NumPy and the schema, is
imported by the functions that use it: `--help` and a mistake in the arguments do not wait for it.
"""

import argparse
import io
import os
import re
import select
import shlex
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ms_vireid.command import starting
from ms_vireid.command.arguments import SEED, Bounds
from ms_vireid.command.errors import FULL, InputError, one_line, printable
from ms_vireid.command.names import BACKENDS, CONFIG_ROOT

CHECKOUT = Path(__file__).resolve().parents[2] / "pyproject.toml"
DEVICES = ("auto", "CPU", "GPU", "Ascend")
UNDECODABLE = (UnicodeError, EOFError, zlib.error, zipfile.BadZipFile)
_LINKS = "Symlink loop"  # what pathlib raises, until Python 3.13
# MindSpore raises this anywhere in the main process as soon as a process that reads pictures is killed.
_WORKER = re.compile(r"DataLoader worker .*(killed|exited)")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, [], "") else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; `--help` shows defaults."""

    def __init__(self, description: str, **options):
        super().__init__(description=description, formatter_class=_Help, **options)

    def add_number(self, option: str, bounds: Bounds, **options) -> None:
        """Add an option that takes a number within its bounds."""
        self.add_argument(option, type=partial(bounds.read, option), **{"metavar": "N"} | options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        args = sys.argv[1:] if args is None else args
        for word in args:
            option, equals, value = word.partition("=")
            if not word or (option.startswith("--") and equals and value in ("", "--")):  # argparse takes it for none
                what = f"{option} has no value" if word else "an argument is empty"
                raise InputError(f"{what}: is a shell variable unset? See --help")
        return super().parse_known_args(args, namespace)

    def refuse(self, arguments: argparse.Namespace, why: str, *options: str) -> None:
        """Raise InputError if one of the options, which would do nothing, is given. why: the reason."""
        given = [
            name
            for action in self._actions
            for name in action.option_strings[-1:] or [action.metavar]
            if name in options and getattr(arguments, action.dest, None) not in (action.default, None, [])
        ]
        if given:
            raise InputError(f"{', '.join(given)}: {why}; leave {'it' if len(given) == 1 else 'them'} out")

    def refuse_others(self, arguments: argparse.Namespace, why: str, *options: str) -> None:
        """Refuse all options but these."""
        names = (action.option_strings[-1] if action.option_strings else action.metavar for action in self._actions)
        self.refuse(arguments, why, *(name for name in names if name not in options))

    def error(self, message: str):
        raise InputError(f"{message}; see --help")


def require_extra(what: str, extra: str, *packages: str) -> None:
    """Raise InputError unless these packages, which an extra of this project installs, are there."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"{what} needs {' and '.join(missing)}: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that installs an extra: in a checkout as in the README, else by the names of its packages."""
    if CHECKOUT.is_file():
        return f"pip install -e '.[{extra}]'"
    mark = re.compile(rf"""extra == ["']{extra}["']""")
    wanted = [line.partition(";")[0].strip() for line in metadata.requires("ms_vireid") or () if mark.search(line)]
    return f"pip install {shlex.join(wanted)}"


def project_version() -> str:
    """This project's version: the installed one, or pyproject.toml's in a checkout that was never installed."""
    try:
        return metadata.version("ms_vireid")
    except metadata.PackageNotFoundError:
        if not CHECKOUT.is_file():
            raise
        return re.search(r'^version = "(.+)"$', CHECKOUT.read_text(encoding="utf-8"), re.MULTILINE)[1]


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to run; auto takes Ascend, else GPU, else CPU"
    )


def add_config(parser: Parser) -> None:
    """Add the arguments that `config.reading.config_from_arguments` reads."""
    parser.add_argument("--config", type=Path, default=CONFIG_ROOT / "demo.yaml", help="YAML file with the recipe")
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (data.root)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, for example optimizer.lr=1e-4"
    )


def add_recipe(parser: Parser) -> None:
    """Add the arguments that `config.reading.recipe` reads."""
    add_config(parser)
    parser.add_number("--seed", SEED, help="seed of all random numbers (seed)")


def add_checkpoint(parser: Parser, more: str = "", required: bool = True, **options) -> None:
    """Add --checkpoint, a path for `weight_file`. more: the end of its help."""
    what = f"run folder, or its model.safetensors or last.safetensors{more}"
    parser.add_argument("--checkpoint", type=Path, required=required, metavar="P", help=what, **options)


def add_layout(parser: Parser) -> None:
    """Add --layout, as `find_layout` takes it."""
    parser.add_argument(
        "--layout",
        default="auto",
        metavar="L",
        help="how the paths say who is in the pictures: a template such as '{identity}/{modality}/{camera}/*' (also "
        "{site}, {split}, **), or sysu_mm01, regdb, llcm, market1501, dukemtmc, msmt17, mars; auto: one of the trees "
        "in docs/data.md, known by its names",
    )


def add_inference(parser: Parser) -> None:
    """Add the arguments that `search.start.start_inference` reads."""
    add_device(parser)
    parser.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help="what computes the model, as train.backend; auto: numba on a CPU; cuda on a GPU, or graph if its kernels "
        "cannot be compiled; graph on an Ascend",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="round matrix products on a GPU or an Ascend, as train.tf32"
    )


def run(main: Callable[[], None]) -> None:
    """Run a command. Its exit code is 0; 2, with one line, if something outside is wrong (a user's mistake, a file, the
    system); 130 if it was interrupted; 141 if nothing reads its output any more, as after `| head`; and 1, with the
    traceback, for a bug of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold any bytes
    try:
        starting.begin()
        _require_utf8()
        try:  # where the folder that we are in was deleted, MindSpore's import ends the process
            os.getcwd()
        except OSError as error:
            raise InputError(f"the working folder no longer exists ({error.strerror}); cd to another one") from None
        main()
        if sys.stdout is not None:  # closed by the shell's >&-
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(starting.CODE)
    except Exception as error:
        if starting.interrupted():
            sys.exit(starting.CODE)
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(141)  # the shell's code for a command that SIGPIPE ended
        if (problem := _outside(error)) is None:
            _print_traceback()
            print("this is a bug of ms_vireid; please report it with the lines above", file=sys.stderr)
            sys.exit(1)
        if os.environ.get("MS_VIREID_TRACEBACK", "") not in ("", "0"):  # here, as `runtime` imports this module
            _print_traceback()
        print(one_line(f"error: {problem}"), file=sys.stderr)
        sys.exit(2)
    finally:
        starting.end()


def _require_utf8() -> None:
    """Raise InputError in a locale that misreads names of files."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise InputError(f"this locale reads file names as {encoding}, not UTF-8; set PYTHONUTF8=1")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn whatever is wrong outside into an InputError with the line that `run` prints: in a block, or as a decorator
    in a function that is called from Python."""
    try:
        _require_utf8()
        yield
    except Exception as error:
        if (problem := _outside(error)) is None:
            raise
        raise InputError(one_line(problem)) from (None if isinstance(error, InputError) else error)


def _print_traceback() -> None:
    """Print the traceback of the current error, escaped: its texts may hold names of files."""
    print(*map(printable, traceback.format_exc().splitlines()), sep="\n", file=sys.stderr)


def _unread() -> bool:
    """Whether standard output is a pipe without a reader. If so, discard the rest of the output."""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    if unread := any(event & select.POLLERR for _, event in watched.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return unread


def _outside(error: Exception) -> str | None:
    """Say in words what is wrong outside; None for a bug of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and the space there"
    if isinstance(error, RuntimeError) and str(error).startswith(_LINKS):
        return f"{error}: links form a loop; give the path of a file or folder"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; use another copy"
    if isinstance(error, RuntimeError) and _WORKER.search(str(error)):
        remedy = "use fewer (data.workers, --workers); rerun to continue, a training with --resume auto"
        return f"a process that reads pictures was killed, as Linux does when memory runs out; {remedy}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and FULL.search(str(error))):
        said = str(error).partition("\n")[0] or "size unknown"
        return f"out of memory ({said}); make the model, the batch or data.image_size smaller, or use a larger machine"
    if isinstance(error, UNDECODABLE):
        return f"the input cannot be decoded ({type(error).__name__}: {error}); use another copy"
    return None

"""All commands under one name: `ms-vireid train ...`, or `python -m ms_vireid train ...`."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import platform
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from ms_vireid.command.errors import DeviceError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, project_version, run

COMMANDS = ("train", "evaluate", "ablate", "extract", "retrieve", "visualize", "export", "report")
COMMANDS += ("check-data", "convert")
ELSEWHERE = {"convert": "parity.convert"}  # imports both frameworks


class _Version(argparse.Action):
    """Print the versions in use and the devices, line by line."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        for line in installation():
            say(line)
        parser.exit()


def installation() -> Iterator[str]:
    """Yield lines for the report of a bug: the versions in use, each device or why it cannot be used, and last, as it
    takes longest and may end the process, whether MindSpore can be imported."""
    with at_once():
        from ms_vireid.command.checkout import git_commit
        from ms_vireid.devices import cpu, runtime

    commit = git_commit()
    yield f"ms_vireid {project_version()}" + (f", commit {commit}" if commit else "")
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(f"{name} {_version_of(name)}" for name in ("MindSpore", "NumPy"))
    for device in ("Ascend", "GPU"):
        try:
            yield f"{device}: {runtime.look_for(device)}"
        except DeviceError as problem:
            yield f"{device}: {problem}"
    yield f"CPU: {cpu.processor_name()}, {len(runtime.cores())} cores, {cpu.instruction_sets()}"
    if problem := runtime.import_problem():
        yield f"MindSpore cannot be imported: {problem}"


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"


def main() -> None:
    run(_main)


def _main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("command", choices=COMMANDS, help="each has its own --help")
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and devices, for a report of a bug")
    name = parser.parse_args(sys.argv[1:2]).command
    module = import_module(ELSEWHERE.get(name, f"ms_vireid.{name.replace('-', '_')}"))
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    module.main()


if __name__ == "__main__":
    main()

"""What each program computes otherwise than models, losses and optimisers say: the tables of `ms_vireid.programs`."""

from collections import defaultdict
from collections.abc import Callable

from ms_vireid.command.printing import say
from ms_vireid.devices.replaceable import DECLARED, Table
from ms_vireid.programs import eager, graph, numba
from ms_vireid.programs.cuda.table import TABLE as CUDA

TABLES = {"numba": numba.Numba.tables, "eager": eager.TABLES, "graph": graph.TABLES, "cuda": {"GPU": CUDA}}
HEADINGS = ("computed otherwise", "program", "devices", "by")


def rows(tables: dict[str, dict[str, Table]] = TABLES) -> list[tuple[str, str, str, str]]:
    """What is replaced, the program, its devices and the replacement, in the order of the sources."""
    listed = []
    for function, declaration in sorted(DECLARED.items(), key=lambda item: _name(item[0])):
        for program in declaration.programs:
            devices = defaultdict(list)
            for device, table in tables[program].items():
                if function in table:
                    devices[table[function]].append(device)
            listed += [(_name(function), program, ", ".join(on), _name(by)) for by, on in devices.items()]
    return listed


def _name(function: Callable) -> str:
    """models.vit.Block.construct, or MindSpore's nn.Dense.construct."""
    module = function.__module__
    if module.startswith("mindspore."):
        group = "nn" if ".nn." in module or "." in function.__qualname__ else "ops"
        return f"{group}.{function.__qualname__.strip('_')}"
    return f"{module.removeprefix('ms_vireid.')}.{function.__qualname__}"


def main() -> None:
    lines = [HEADINGS, *rows()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    for line in lines:
        say("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())

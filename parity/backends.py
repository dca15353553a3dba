"""What each backend computes otherwise than models, losses and optimisers say, and what that stands for."""

import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import get_args

from mindspore import nn

from ms_vireid.backends import cuda, eager, graph, numba, proven
from ms_vireid.backends.graph import ELEMENTWISE
from ms_vireid.backends.reading import code_of_method, qualified
from ms_vireid.command.printing import say
from ms_vireid.config import LossConfig
from ms_vireid.engine.distributed import synchronise_batch_norm
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import create_model
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.groups import GroupOptimizer, ParameterGroup
from ms_vireid.optimizers.sgd import SGD
from ms_vireid.replaceable import DECLARED, Table
from parity.rungs.models import CLASSES, MODELS

TABLES = {"numba": numba.Numba.tables, "eager": eager.Eager.tables, "graph": graph.TABLES, "cuda": cuda.Cuda.tables}
HEADINGS = ("computed otherwise", "backend", "devices", "by")


def rows(tables: dict[str, dict[str, Table]] = TABLES) -> list[tuple[str, str, str, str]]:
    """What is replaced, the backend, its devices and the replacement, in the order of the sources."""
    listed = []
    for function, declaration in sorted(DECLARED.items(), key=lambda item: _name(item[0])):
        for backend in declaration.backends:
            devices = defaultdict(list)
            for device, table in tables[backend].items():
                if function in table:
                    devices[table[function].by].append(device)
            listed += [(_name(function), backend, ", ".join(on), _name(by)) for by, on in devices.items()]
    return listed


def samples() -> Iterator[nn.Cell]:
    """Cells that have every part that this project's models, losses and optimisers can have."""
    for name, model in MODELS.items():
        if "small" in name:
            parts = {} if model.parts == 2 else {"parts": model.parts}
            for recompute in (False, True):
                cell = create_model(model.name, CLASSES, model.image_size, **model.settings, **parts)
                if recompute:
                    synchronise_batch_norm(cell, SimpleNamespace(world_size=2, rank=0))
                yield cell
    yield nn.CellList([nn.LayerNorm([4])])  # of MindSpore's layers, what only a model of somebody's own has
    yield StageLoss(LossConfig.model_validate({name: _required(name) for name in LossConfig.model_fields}), 2)
    group = ParameterGroup("full", 1.0, tuple(nn.Dense(2, 3).trainable_params()))
    yield AdamW([group], (0.9, 0.999), 1e-8, 0.01)
    yield SGD([group], 0.9, True, 5e-4)


def _required(term: str) -> dict[str, int]:
    """The options that a loss term does not go without: a margin or a stage, which may be 1."""
    section, _ = get_args(LossConfig.model_fields[term].annotation)
    return {name: 1 for name, option in section.model_fields.items() if option.is_required()}


def record() -> dict[str, dict[str, proven.Records]]:
    """Read what each replacement stands for."""
    cells = [part for sample in samples() for _, part in sample.cells_and_names()]
    return {
        backend: {device: _of_table(table, cells) for device, table in tables.items() if table}
        for backend, tables in TABLES.items()
        if any(tables.values())
    }


@contextmanager
def renewed(sides: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Write down what the replacements of backends and devices stand for now, for as long as the block ends without an
    error. sides: (backend, device)."""
    before, now = proven.record(), record()
    after = {backend: dict(devices) for backend, devices in before.items()}
    for backend, device in sides:
        if device in now.get(backend, {}):
            after.setdefault(backend, {})[device] = now[backend][device]
    proven.write(after)
    try:
        yield
    except BaseException:
        proven.write(before)
        raise


def _of_table(table: Table, cells: list[nn.Cell]) -> proven.Records:
    found = {}
    for key in table:
        if DECLARED[key].module is not None:
            found[qualified(key)] = proven.recorded([proven.read(None, key)])
            continue
        name = DECLARED[key].name
        read = [proven.read(cell, key) for cell in cells if getattr(type(cell), name, None) is key]
        found[qualified(key)] = proven.recorded(read)
    for key in ELEMENTWISE:
        read = [code_of_method(cell, key.__name__) for cell in cells if isinstance(cell, GroupOptimizer)]
        found.setdefault(qualified(key), proven.recorded(read))
    return found


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
    say("", "what a replacement stands for: a cell whose code or parts differ runs as it is written", "")
    for backend, devices in proven.record().items():
        for device, table in devices.items():
            for name, row in table.items():
                say(*_stands_for(f"{_short(name)}, {backend} on {device}:", row))


def _stands_for(heading: str, row: dict) -> list[str]:
    """What is on record of a row, without MindSpore's operators."""
    functions = [_short(name) for name, digest in row["functions"].items() if digest and "." in name]
    parts = [
        f"{path} {' or '.join(map(_short, classes))}"
        for path, classes in row["parts"].items()
        if path and all("." in each for each in classes)
    ]
    text = ", ".join(functions) + (f"; its {', '.join(parts)}" if parts else "")
    return [heading, *textwrap.wrap(text, 116, initial_indent="    ", subsequent_indent="    "), ""]


def _short(name: str) -> str:
    """A name without the files of MindSpore's layers."""
    return re.sub(r"mindspore\.(nn)\.layer\.\w+\.", r"\1.", name)

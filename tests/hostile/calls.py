"""A public function called from Python with one argument of another kind: run with a function's name, a parameter and
the number of a value. docs/python.md has the functions; their parameters are found in the code."""

import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .generators import VALUES

MORE = (b"x", Path("run"), ("x",), {1, 2}, object(), int, np.int64(2), np.float32(0.5), np.zeros((2, 2)), np.array(3))
MORE += (np.zeros((8, 8, 3), np.uint8), np.array(["a"]), float, iter([1]), lambda: None)
GIVEN = (*VALUES, *MORE)
# What a loss or a model has no default for.
GOOD = {"num_instances": 2, "margin": 0.3, "weights": "released", "over": "modalities", "name": "pmt_vit_tiny"}
GOOD |= {"num_classes": 3, "image_size": (32, 16), "query": "a.npz", "gallery": "a.npz", "pictures": "a.npz"}
GOOD |= {"checkpoint": "run", "device": "CPU", "data_root": "sysu", "path": "a.npz"}
BY_NAME = ("image_size", "batch", "parts")  # what `create_model` takes besides a model's keys


def functions(searcher: object) -> dict[str, Callable]:
    """By their names. searcher: the class, or one whose methods are called."""
    import ms_vireid
    from ms_vireid import losses
    from ms_vireid.search.feature_files import load_features, save_features
    from ms_vireid.search.result import format_result

    found = {"Searcher": ms_vireid.Searcher, "features": searcher.features, "rank": searcher.rank}
    found |= {"evaluate": ms_vireid.evaluate, "create_model": ms_vireid.create_model}
    found |= {one.__name__: one for one in (load_features, save_features, format_result)}
    found |= {name: one for name, one in vars(losses).items() if isinstance(one, type)}
    return found


def parameters(function: Callable) -> list[str]:
    """A function's, and of `create_model` and `evaluate` those that they take by other names."""
    from ms_vireid.api import OPTIONS, SWITCHES
    from ms_vireid.config.models import MODELS

    names = [name for name, one in inspect.signature(function).parameters.items() if one.kind != one.VAR_KEYWORD]
    if function.__name__ == "evaluate":
        names = [name for name in names if name != "options"] + [*OPTIONS, *SWITCHES]
    if function.__name__ == "create_model":
        models = dict.fromkeys(map(type, MODELS.values()))
        names += [*BY_NAME, *(name for model in models for name in model.model_fields)]
    return [name for name in dict.fromkeys(names) if name not in ("self", "args", "kwargs")]


@cache
def drawn() -> tuple[tuple[str, str], ...]:
    """All functions with each of their parameters."""
    from ms_vireid import Searcher

    return tuple((name, parameter) for name, one in functions(Searcher).items() for parameter in parameters(one))


def called(rng) -> tuple[str, ...]:
    """A generator, as those of generators.py."""
    return ("tests.hostile.calls", *rng.choice(drawn()), str(rng.randrange(len(GIVEN))))


def main() -> None:
    from ms_vireid import Searcher
    from ms_vireid.config.models import MODELS
    from ms_vireid.search.feature_files import load_features

    name, parameter, number = sys.argv[1:]
    searcher = Searcher("run", "CPU")
    good = GOOD | {"content": load_features("a.npz"), "found": searcher.rank("a.npz", "a.npz")[0]}
    function = functions(searcher)[name]
    if name == "save_features":
        good["path"] = "new.npz"
    given = {key: good[key] for key in parameters(function) if key in good} | {parameter: GIVEN[int(number)]}
    if name == "create_model":
        if parameter == "checkpoint":  # which says everything else
            given = {key: given[key] for key in ("checkpoint", "device")}
        else:
            del given["checkpoint"]
            if parameter not in (*inspect.signature(function).parameters, *BY_NAME):
                given["name"] = next(one for one, config in MODELS.items() if parameter in type(config).model_fields)
    function(**given)

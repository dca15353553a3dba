"""The benchmark's section of serving: requests of one picture each from several threads, to a `Searcher` and to ONNX
Runtime on the exported graph, each in a process of its own, in turn."""

import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.data.transforms import fitted, normalise
from ms_vireid.devices import runtime
from parity.measure.steps import Rows
from parity.measure.work import CLASSES, MODELS, Work
from parity.processes import OneProcess

THREADS = (1, 4, 16)
SERVING_ROWS = {f"{name}, {count} at once": (name, count) for name in MODELS for count in THREADS}
REQUESTS = 32  # of a measurement
AGREEMENT = 1e-4  # of entries of features whose length is 1
GRAPH = "graph.onnx"
_answer: Callable[[np.ndarray], np.ndarray]  # of this process


def serving(names: Sequence[str], options: Namespace) -> Rows:
    """Yield requests a second and the 99th percentile of a request's time, both as medians over the repeats.

    Raises:
        InputError: the answers differ.
    """
    for model in dict.fromkeys(SERVING_ROWS[name][0] for name in names):
        with tempfile.TemporaryDirectory() as folder, OneProcess() as searcher, OneProcess() as onnx:
            config, overrides, _ = MODELS[model]
            work = Work("inference", config, (*overrides, *CLASSES, *options.overrides), options.device, folder)
            searcher.ask(_begin_searcher, work)
            onnx.ask(_begin_onnx_runtime, work)
            difference = np.abs(searcher.ask(_answers) - onnx.ask(_answers)).max()
            if not difference < AGREEMENT:
                raise InputError(f"{model}: both sides' features differ by {difference:.1e}")
            for name in (name for name in names if SERVING_ROWS[name][0] == model):
                threads, count = SERVING_ROWS[name][1], max(REQUESTS, SERVING_ROWS[name][1])
                sides = {"ours": searcher, "onnx": onnx}
                figures = {side: [] for side in sides}
                for _repeat in range(options.repeats + 1):
                    for side, process in sides.items():
                        figures[side].append(process.ask(_serve, threads, count))
                yield (
                    name,
                    {"threads": threads, "requests": count}
                    | {
                        f"{side}_{figure}": median(measured[i] for measured in figures[side][1:])
                        for side in sides
                        for i, figure in enumerate(("per_s", "p99_s"))
                    },
                )


def _pictures() -> list[np.ndarray]:
    """Pictures as a detector would cut them out, uint8 [H, W, 3]."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (8, 300, 120, 3), np.uint8))


def _begin_searcher(work: Work) -> None:
    global _answer
    runtime.set_up(work.device)
    # Only now: it imports mindspore.
    _answer = import_module("parity.measure.searcher_side").begin(work, Path(work.folder) / GRAPH)


def _begin_onnx_runtime(work: Work) -> None:
    global _answer
    import onnxruntime  # in a process of its own

    graph = onnxruntime.InferenceSession(Path(work.folder) / GRAPH, providers=["CPUExecutionProvider"])
    size = work.load().data.image_size
    _answer = lambda picture: graph.run(None, {"images": normalise(fitted(picture, size))[None]})[0]  # noqa: E731


def _answers() -> np.ndarray:
    return np.concatenate([_answer(picture) for picture in _pictures()])


def _serve(threads: int, count: int) -> tuple[float, float]:
    """Answer `count` requests of so many threads. Returns requests a second and the 99th percentile in seconds."""
    pictures, seconds = _pictures(), []
    requests: Iterator[int] = iter(range(count))
    begun = time.perf_counter()

    def ask() -> None:
        for number in requests:  # each is one thread's: `next` of a range does not give way to another
            asked = time.perf_counter()
            _answer(pictures[number % len(pictures)])
            seconds.append(time.perf_counter() - asked)

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return count / (time.perf_counter() - begun), float(np.percentile(seconds, 99))

"""The benchmark's sections without a model: reading pictures beside torch.utils.data with torchvision, ranking beside
numpy's argsort, and the cost of corruptions.

Neither framework is imported into this process: MindSpore sets OMP_NUM_THREADS to 1, and processes begun later inherit
it, PyTorch's among them.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import mean
from timeit import repeat

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run, work
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ms_vireid.evaluation import evaluate_ranking
from parity.measure.steps import Rows, ratio

Batches = Iterator[tuple]  # images [2PK, 3, H, W] and labels [2PK], as arrays or tensors

WORKERS = 2
DATA_ROWS = {  # PyTorch's side decodes every picture anew
    "PMT, 256x128, decoded": ("pmt/sysu.yaml", "none"),
    "PMT, 256x128, kept in memory": ("pmt/sysu.yaml", "memory"),
    "AGW, 288x144, decoded": ("agw/sysu.yaml", "none"),
    "AGW, 288x144, kept in memory": ("agw/sysu.yaml", "memory"),
    "MUN, 288x144, decoded": ("mun/sysu.yaml", "none"),
    "MUN, 288x144, kept in memory": ("mun/sysu.yaml", "memory"),
}
RANKING_ROWS = {"SYSU-MM01 multi-shot, 3803 x 3010": (3803, 3010, 96), "LLCM, 7166 x 8680": (7166, 8680, 351)}


def data(names: Sequence[str], options: Namespace) -> Rows:
    """Yield `images_per_second` of each row, measured in its own process.

    Raises:
        InputError: it has failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            given = name, folder, str(10 if options.quick else 60), str(options.repeats)
            done = subprocess.run([sys.executable, "-m", __name__, *given], stdout=subprocess.PIPE, check=False)
            if done.returncode:
                raise InputError(f"{name}: its process has ended with {done.returncode}; what it said is above")
            yield name, json.loads(done.stdout)


def images_per_second(name: str, folder: str, iterations: int, repeats: int) -> dict:
    """Time both loaders from disk to training batches, on the same files and batches with equally many worker
    processes."""
    config, cache = DATA_ROWS[name]
    overrides = [
        "data={name: synthetic, synthetic: {train_identities: 24, val_identities: 2, test_identities: 4, "
        f"images_per_camera: 4, image_size: [384, 192]}}, workers: {WORKERS}}}",
        f"data.root={json.dumps(f'{folder}/pictures')}",
        f"data.cache={cache}",
        f"data.image_size={list(load_config(CONFIG_ROOT / config).data.image_size)}",
        f"train.iterations={iterations}",
        "model.num_classes=26",
    ]
    *both, images = work("parity.measure.loaders").loaders(load_config(CONFIG_ROOT / config, overrides))
    row = _in_turn(*(lambda read=read: sum(1 for _ in read()) for read in both), repeats)
    return {
        "mindspore_images_per_s": images / row["mindspore_s"],
        "torch_images_per_s": images / row["torch_s"],
        "speedup": 1 / row["ratio"],
        "spread": [1 / quotient for quotient in reversed(row["spread"])],
        "workers": WORKERS,
    }


def ranking(names: Sequence[str], options: Namespace) -> Rows:
    """Time CMC, mAP and mINP of a distance matrix beside numpy's argsort of that matrix."""
    for name in names:
        queries, gallery, identities = RANKING_ROWS[name]
        rng = np.random.default_rng(0)
        case = (
            rng.random((queries, gallery), np.float32),
            rng.integers(0, identities, queries),
            np.arange(gallery) * identities // gallery,
            rng.choice([3, 6], queries),
            np.resize(np.repeat([1, 2, 4, 5], 10), gallery),
        )
        evaluate_ranking(*case)  # unmeasured: Numba compiles it
        row = _in_turn(lambda c=case: evaluate_ranking(*c), lambda c=case: np.argsort(c[0], axis=1), options.repeats)
        yield name, {"ours_s": row.pop("mindspore_s"), "argsort_s": row.pop("torch_s"), **row}


def corruptions(names: Sequence[str], options: Namespace) -> Rows:
    """Measure the processor time of each corruption at 288x144, mean over severities, in ms a picture."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (288, 144, 3), dtype=np.uint8)
    costs = {}
    for name in CORRUPTIONS:
        works = [partial(corrupt, pixels, name, severity, rng) for severity in SEVERITIES]
        runs = [repeat(work, timer=time.process_time, number=1, repeat=options.repeats) for work in works]
        costs[name] = mean(map(min, runs))
    costs["mean"] = sum(costs.values()) / len(costs)
    for name in names:
        yield name, {"ms_per_picture": 1000 * costs[name]}


def _in_turn(ours: Callable, theirs: Callable, repeats: int) -> dict:
    return ratio(*zip(*([seconds(ours), seconds(theirs)] for _ in range(repeats)), strict=True))


def seconds(task: Callable) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def main() -> None:
    name, folder, iterations, repeats = sys.argv[1:]
    print(json.dumps(images_per_second(name, folder, int(iterations), int(repeats))))


if __name__ == "__main__":
    run(main)

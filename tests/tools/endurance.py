"""Long trainings and many searches: whether memory, open files and the time of a step grow.

    python -m tests.tools.endurance [--steps N] [--searches N] [--only NAME ...]

A training is the demonstration's model on batches of eight pictures, with its two loader processes, which are counted
in. Of each there are the figures of the first tenth that is all at work, and of the last: memory, open files, and
milliseconds of a core for a step or a search.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parents[2]
SMALL = ("train.num_identities=2", "train.num_instances=2", "train.log_steps=100", "data.synthetic.train_identities=96")
PROGRAMS = ("numba", "graph")
SEARCHES = ("exact", "faiss", "milvus")
EVERY_S = 1.0  # of the samples


def train(folder: Path, program: str, steps: int) -> list[dict]:
    """Samples of a training: its step, and what `held` says of all its processes."""
    iterations = max(1, steps // 20)
    epochs = [f"stages.{stage}.epochs=10" for stage in (0, 1)]
    options = (*SMALL, *epochs, f"train.iterations={iterations}", f"train.program={program}")
    output = folder / program
    argv = ("-m", "ms_vireid.train", "--device", "CPU", "--output", output, "--data-root", folder / "data", *options)
    samples = []
    with (folder / f"{program}.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, *map(str, argv)], cwd=ROOT, stdout=log, stderr=log)
    while process.poll() is None:
        time.sleep(EVERY_S)
        step = sum(1 for _ in (output / "metrics.jsonl").open()) * 100 if (output / "metrics.jsonl").exists() else 0
        with suppress(psutil.Error):
            samples.append({"step": step} | held(psutil.Process(process.pid)))
    if process.returncode:
        sys.exit((folder / f"{program}.txt").read_text())
    return samples


def held(process: psutil.Process) -> dict:
    """MiB of memory, open files, and seconds of a core, with its children's; of a child's memory what it does not
    share. What other processes share of it changes nothing."""
    everyone = [process, *process.children(recursive=True)]
    own = process.memory_info().rss + sum(one.memory_full_info().uss for one in everyone[1:])
    return {
        "mib": own / 2**20,
        "files": sum(one.num_fds() for one in everyone),
        "seconds": sum(sum(one.cpu_times()[:2]) for one in everyone),
    }


def search(folder: Path, kind: str, count: int) -> list[dict]:
    """Samples of a process that searches so often."""
    options = ("--here", str(folder), "--only", kind, "--searches", str(count))
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.endurance", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def search_here(folder: Path, kind: str, count: int) -> list[dict]:
    """exact: `Searcher.rank` of a picture among a folder's features. faiss: an index that is read anew each time.
    milvus: an embedded gallery that is opened anew."""
    import ms_vireid
    from ms_vireid.search.faiss_index import build_index, load_index, save_index
    from ms_vireid.search.local_gallery import LocalGallery
    from ms_vireid.search.milvus_gallery import MilvusGallery

    searcher = ms_vireid.Searcher(folder / "numba/model.safetensors", device="CPU")
    gallery = searcher.features(folder / "data/cam1")
    picture = next((folder / "data/cam3").rglob("*.jpg"))
    query = searcher.features(picture)
    index, database = folder / "gallery.index", str(folder / "gallery.db")
    save_index(index, build_index("ivf", gallery.features), gallery)
    with closing(MilvusGallery(database, "people", create=True)) as filled:
        filled.add(gallery)

    def once() -> list:
        if kind == "exact":
            return searcher.rank(picture, gallery)
        if kind == "faiss":
            loaded, content = load_index(index)
            return LocalGallery(str(index), content, loaded).search(query, 10)
        with closing(MilvusGallery(database, "people")) as opened:
            return opened.search(query, 10)

    samples = []
    for number in range(1, count + 1):
        assert once()
        if number % max(1, count // 100) == 0:
            samples.append({"step": number} | held(psutil.Process()))
    return samples


def row(name: str, samples: list[dict], steps: int) -> str:
    """First tenth at work and last: median MiB and files, and milliseconds a step."""
    ended = samples[-1]["step"] if name in PROGRAMS else steps + 1  # a training's last line comes with its evaluation
    at_work = [one for one in samples if 0 < one["step"] < ended]
    tenth = max(2, len(at_work) // 10)
    parts = at_work[:tenth], at_work[-tenth:]
    cells = [f"{name:<10}{steps:>8,}"]
    for key, form in (("mib", ",.0f"), ("files", ".0f")):
        cells += [f"{np.median([one[key] for one in part]):{form}}" for part in parts]
    for part in parts:
        moved = [(b["seconds"] - a["seconds"], b["step"] - a["step"]) for a, b in pairwise(part)]
        seconds, count = map(sum, zip(*moved, strict=True))
        cells.append(f"{1000 * seconds / count:.1f}" if count else "-")
    return "".join(f"{cell:>10}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, metavar="N")
    parser.add_argument("--searches", type=int, default=1000, metavar="N")
    parser.add_argument("--only", nargs="+", choices=(*PROGRAMS, *SEARCHES), default=(*PROGRAMS, *SEARCHES))
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(search_here(arguments.here, arguments.only[0], arguments.searches)))
        return
    print("".join(f"{word:>10}" for word in (f"{'':<10}{'steps':>8}", *("MiB", "", "files", "", "core ms", ""))))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for program in PROGRAMS:
            if program in arguments.only:
                print(row(program, train(folder, program, arguments.steps), arguments.steps), flush=True)
        if wanted := [kind for kind in SEARCHES if kind in arguments.only]:
            if "numba" not in arguments.only:
                train(folder, "numba", 20)
            for kind in wanted:
                print(row(kind, search(folder, kind, arguments.searches), arguments.searches), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("GLOG_v", "3")
    main()

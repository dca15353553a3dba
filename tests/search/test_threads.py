"""Threads that share a device: their turns, requests that are computed together, searchers, and forked processes."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ms_vireid
from ms_vireid.backends.choosing import backend_named
from ms_vireid.command.errors import InputError
from ms_vireid.devices.turns import DEVICE, Turns
from ms_vireid.engine.train_step import build_step
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.search.requests import RequestQueue
from tests.data.tree import write_folder
from tests.tiny_models import tiny_config, write_checkpoint

BATCH = 4


def wait_until(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def in_threads(function, items):
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


def test_threads_get_their_turns_in_the_order_in_which_they_asked():
    turns, order, threads = Turns(), [], []

    def ask(number):
        with turns:
            order.append(number)

    with turns:
        for number in range(5):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: len(turns._waiting) == number + 1)
        assert not in_threads(lambda wait: turns.take(wait), [False])[0]
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4]


def test_a_holder_may_take_its_turn_again_and_gives_it_back_after_an_error():
    turns = Turns()
    with pytest.raises(ValueError, match="inner"), turns, turns:
        raise ValueError("inner")
    assert in_threads(lambda wait: turns.take(wait), [False]) == [True]


INTERRUPTED = """
import os, signal, threading
from ms_vireid.devices.turns import Turns
turns, has_it, free = Turns(), threading.Event(), threading.Event()
def hold():
    with turns:
        has_it.set()
        free.wait(20)
holder = threading.Thread(target=hold)
holder.start()
has_it.wait(20)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with turns:
        print("not interrupted")
except KeyboardInterrupt:
    free.set()
    holder.join(20)
    print(turns.take(wait=False))
"""


def test_ctrl_c_while_waiting_leaves_the_turn_to_others(tmp_path):
    assert in_a_script(tmp_path, INTERRUPTED) == (0, ["True"])


class Rows:
    """What a backend would queue: a feature for each picture, its first number."""

    def __init__(self, pixels):
        self.pixels = pixels

    def read(self):
        return self.pixels[:, 0, 0, :1].copy()


def pictures(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 2, 2), np.float32)


def asked_at_once(queue, batches):
    """Read requests of several threads, all of which wait before the first is computed."""
    requests = []
    with DEVICE, ThreadPoolExecutor(len(batches)) as pool:
        for number, batch in enumerate(batches):
            requests.append(pool.submit(queue.put, batch).result())
            batch[:] = -1.0  # a loader writes the next batch there
            assert len(queue._waiting) == number + 1
    return in_threads(lambda request: request.read(), requests)


def test_what_waits_is_computed_as_one_batch():
    sizes = []
    queue = RequestQueue(lambda pixels: sizes.append(len(pixels)) or Rows(pixels), BATCH)
    answers = asked_at_once(queue, [pictures(1), pictures(2, 3), pictures(4), pictures(5, 6, 7), pictures(8, 9)])
    assert [answer[:, 0].tolist() for answer in answers] == [[1], [2, 3], [4], [5, 6, 7], [8, 9]]
    assert sizes == [4, 3, 2]


def test_nothing_waits_for_a_free_device():
    sizes = []
    queue = RequestQueue(lambda pixels: sizes.append(len(pixels)) or Rows(pixels), BATCH)
    first = queue.put(pictures(1))
    assert sizes == [1]
    assert first.read().tolist() == [[1.0]]


def test_an_error_is_that_of_each_request_of_its_batch_and_of_no_other():
    def features(pixels):
        if (pixels == 2).any():
            raise InputError("out of memory")
        return Rows(pixels)

    queue = RequestQueue(features, 2)
    requests = []
    with DEVICE, ThreadPoolExecutor(1) as pool:
        requests += [pool.submit(queue.put, pictures(value)).result() for value in (1, 2, 3)]
    for request in requests[:2]:
        with pytest.raises(InputError, match="out of memory"):
            request.read()
    assert requests[2].read().tolist() == [[3.0]]


def test_ctrl_c_while_one_thread_computes_leaves_what_others_asked_for():
    interrupted = [True]

    def features(pixels):
        if interrupted.pop() if interrupted else False:
            raise KeyboardInterrupt
        return Rows(pixels)

    queue = RequestQueue(features, BATCH)
    with DEVICE, ThreadPoolExecutor(1) as pool:
        requests = [pool.submit(queue.put, pictures(value)).result() for value in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        requests[0].read()
    assert requests[1].read().tolist() == [[2.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threads")
    write_checkpoint(folder / "run/model.safetensors", "pmt", folder / "data")
    write_checkpoint(folder / "agw/model.safetensors", "agw", folder / "data")
    write_folder(folder / "people", ("anna", "ben"), pictures=3)
    return folder


def asked_from_threads(*searchers):
    """Ask searchers for pictures, by path and in memory, one after the other and from eight threads."""
    rng = np.random.default_rng(0)
    asked = [(s, picture, modality) for s in searchers for modality in ("visible", "infrared") for picture in PATHS]
    asked += [(s, rng.integers(0, 256, (60, 30, 3), np.uint8), "infrared") for s in searchers for _ in range(4)]
    right = [s.features(picture, modality).features for s, picture, modality in asked]

    def ask(thread):
        order = np.random.default_rng(thread).permutation(len(asked))
        return max(np.abs(one.features(*given).features - right[i]).max() for i in order for one, *given in [asked[i]])

    return max(in_threads(ask, range(8)))


PATHS = "people/visible/anna/0.jpg", "people/visible/ben"


@pytest.mark.parametrize("name", ["numba", "eager", "graph"])
def test_threads_share_a_searcher(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    assert asked_from_threads(ms_vireid.Searcher("run", device="CPU", backend=name)) < 1e-5


def test_threads_share_two_searchers_of_different_backends(folder, monkeypatch):
    monkeypatch.chdir(folder)
    searchers = [ms_vireid.Searcher(*given, "CPU", name) for *given, name in (("run", "numba"), ("agw", "eager"))]
    assert asked_from_threads(*searchers) < 1e-5


def losses_of_steps(config, count, with_search=lambda: None):
    model = build_model(config).set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[-1].losses, config.train.num_instances)
    step = build_step(model, loss, optimizer, backend_named("numba"), 0.0)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(8, 3, *config.data.image_size)).astype(np.float32)
    labels = np.array([0, 0, 1, 1] * 2, np.int32)
    scalars = [optimizer.scalars(number, [1e-3] * len(optimizer.groups)) for number in range(1, count + 1)]
    with_search()
    return [step(images, labels, 5, 0.5, each).asnumpy() for each in scalars]


def test_a_training_goes_on_beside_a_search_and_an_evaluation(folder, monkeypatch):
    import mindspore as ms

    monkeypatch.chdir(folder)
    config, searcher = tiny_config("agw", folder / "data"), ms_vireid.Searcher("run", device="CPU")
    ms.set_seed(1)
    alone = losses_of_steps(config, 6)
    right, evaluated = searcher.features("people/visible").features, ms_vireid.evaluate("agw", device="CPU").mean
    found, ended = [], threading.Event()

    def search():
        while not ended.is_set() or not found:
            found.append(np.abs(searcher.features("people/visible").features - right).max())

    searching = threading.Thread(target=search)
    evaluating = ThreadPoolExecutor(1)
    ms.set_seed(1)
    try:
        beside = losses_of_steps(config, 6, searching.start)
        assert evaluating.submit(ms_vireid.evaluate, "agw", device="CPU").result().mean == evaluated
    finally:
        ended.set()
        searching.join(60)
        evaluating.shutdown()
    assert np.abs(np.array(beside) - np.array(alone)).max() < 1e-4
    assert max(found) < 1e-5


def in_a_script(folder, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


FORKED = """
import os, time, warnings, ms_vireid
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
searcher = ms_vireid.Searcher("run", device="CPU")
day = searcher.features("people/visible")
asked = {
    "features": lambda: searcher.features("people/visible"),
    "new": lambda: ms_vireid.Searcher("run", device="CPU"),
    "evaluate": lambda: ms_vireid.evaluate("run", device="CPU"),
    "create": lambda: ms_vireid.create_model("pmt_vit_base", 3, device="CPU"),
    "rank": lambda: searcher.rank(day, day),
}
for name, ask in asked.items():
    child = os.fork()
    if not child:
        begun = time.monotonic()
        try:
            ask()
            print(name, "done", flush=True)
        except ms_vireid.InputError as error:
            print(name, time.monotonic() - begun < 5, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_forked_process_says_at_once_that_it_cannot_compute(folder):
    code, lines = in_a_script(folder, FORKED)
    assert code == 0
    assert len(lines) == 5
    for line in lines[:4]:
        assert " True process " in line
        assert "was forked from" in line
        assert "get_context('spawn')" in line
    assert lines[4] == "rank done"


SPAWNED = """
import multiprocessing, ms_vireid
multiprocessing.set_start_method("{method}")
print(ms_vireid.evaluate("workers", device="CPU").num_queries, multiprocessing.get_start_method())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pictures_are_read_by_workers_whatever_the_script_starts_processes_by(folder, method):
    data = "data.workers=2"
    write_checkpoint(folder / "workers/model.safetensors", "pmt", folder / "data", data)
    code, lines = in_a_script(folder, SPAWNED.format(method=method))
    assert code == 0
    assert lines[-1].endswith(f" {method}")


ENDS_EARLY = """
import threading, ms_vireid
searcher = ms_vireid.Searcher("run", device="CPU", backend="{backend}")
searcher.features("people/visible")
def ask():
    while True:
        searcher.features("people/visible")
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
"""


@pytest.mark.parametrize("name", ["numba", "graph"])
def test_a_process_ends_orderly_while_threads_compute(folder, name):
    code, _ = in_a_script(folder, ENDS_EARLY.format(backend=name))
    assert code == 0

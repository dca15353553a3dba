"""How MindSpore's host is set up for compiled steps: a thread launches all in order."""

import os
import sys

import pytest

from ms_vireid.devices import runtime
from tests.device.test_stand_in_training import arguments, require_one_thread

MANY_CORES = os.cpu_count() >= 12  # for which MindSpore has two threads itself

SET_UP = """
import os
import sys
from pathlib import Path
import mindspore
from ms_vireid.command.running import run
from ms_vireid.devices import runtime
device, threads = sys.argv[1:]
if threads:
    mindspore.runtime.dispatch_threads_num(int(threads))
run(lambda: runtime.set_up(device))
graph = mindspore.jit(mindspore.ops.relu)
ran = []
for _ in range(2):
    graph(mindspore.Tensor([0.0])).asnumpy()
    tasks = {}
    while not {"ActorThread_0", "launch_queue"} <= tasks.keys():  # they name themselves
        tasks = {(task / "comm").read_text().strip(): task for task in Path("/proc/self/task").iterdir()}
    ran.append((tasks["launch_queue"] / "schedstat").read_text().split()[0])
print("beside:", ran[0] != ran[1])
def places():
    threads = 0, int(tasks["ActorThread_0"].name), int(tasks["launch_queue"].name)
    return [sorted(os.sched_getaffinity(thread)) for thread in threads]
places_by = [places()]
for compiled in (True, False):
    with runtime.bound_threads(compiled):
        places_by.append(places())
print("places:", *places_by, places(), sep="; ")
print("plan:", mindspore.get_context("memory_optimize_level") == 1)
print("queue:", "frontend_queue" in tasks)
"""


def set_up(stand_in, device, threads="", shown=("beside:", "plan:", "queue:", "error:"), **variables):
    done = stand_in.run([sys.executable, "-c", SET_UP, device, threads], 300.0, variables)
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith(shown)]


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_it_is_set_unless_the_user_sets_it_or_says_no(device, request):
    stand_in = request.getfixturevalue({"GPU": "stand_in", "Ascend": "ascend"}[device])
    as_set_up = 0, ["beside: True", "plan: True", "queue: False"]
    assert set_up(stand_in, device) == as_set_up
    assert set_up(stand_in, device, "1") == (0, ["beside: False", *as_set_up[1][1:]])
    off = {runtime.MEMORY_PLAN: "plan: False", runtime.ONE_THREAD: "queue: True"}
    assert set_up(stand_in, device, **dict.fromkeys(off, "0")) == (0, ["beside: True", *off.values()])
    on = {runtime.MEMORY_PLAN: "1", runtime.ONE_THREAD: "1", runtime.LAUNCH_THREAD: "0"}
    assert set_up(stand_in, device, **on) == (0, [f"beside: {MANY_CORES}", *as_set_up[1][1:]])
    assert set_up(stand_in, device, MS_ROLE="MS_WORKER") == (0, ["beside: True", "plan: False", "queue: False"])
    for switch in (runtime.LAUNCH_THREAD, runtime.MEMORY_PLAN):
        assert set_up(stand_in, device, **{switch: "2,8"}) == (2, [f"error: {switch}=2,8: is not 0 or 1"])


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_each_switch_changes_nothing_else(device, request):
    stand_in = request.getfixturevalue({"GPU": "stand_in", "Ascend": "ascend"}[device])
    as_set_up = ["beside: True", "plan: True", "queue: False"]
    off = {
        runtime.LAUNCH_THREAD: f"beside: {MANY_CORES}",
        runtime.MEMORY_PLAN: "plan: False",
        runtime.ONE_THREAD: "queue: True",
    }
    for switch, shown in off.items():
        found = set_up(stand_in, device, **{switch: "0"})
        assert found == (0, [shown if shown.startswith(line[:5]) else line for line in as_set_up])
    assert set_up(stand_in, device, **dict.fromkeys(off, "1")) == (0, as_set_up)


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_a_process_with_one_core_has_one_thread_for_graphs(device, request):
    stand_in = request.getfixturevalue({"GPU": "stand_in", "Ascend": "ascend"}[device])
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert set_up(stand_in, device, shown="beside:") == (0, ["beside: False"])
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_the_threads_of_a_compiled_graph_keep_to_two_cores_of_a_small_host(device, request):
    """The cores of the main thread, of the one that goes through graphs and of the one that launches: before, bound for
    compiled graphs, bound for others, and after."""
    stand_in = request.getfixturevalue({"GPU": "stand_in", "Ascend": "ascend"}[device])
    cores = sorted(os.sched_getaffinity(0))
    free = [cores] * 3
    bound = [[cores[0]], [cores[0]], [cores[1]]] if 2 <= len(cores) <= runtime.MAX_BOUND_CORES else free
    for places, variables in ((bound, {}), (free, {runtime.LAUNCH_THREAD: "0"}), (free, {"MS_ROLE": "MS_WORKER"})):
        line = "; ".join(map(str, ("places:", free, places, free, free)))
        assert set_up(stand_in, device, shown="places:", **variables) == (0, [line])


@pytest.mark.parametrize("amp", ["false", "float16"])
def test_one_thread_launches_all_operators_on_one_stream(ascend_worker, tmp_path, amp):
    """So does a GPU: tests/device/test_stand_in_training.py."""
    before = ascend_worker.do("launching")
    options = ["train.iterations=4", "stages.1.epochs=1", f"train.amp={amp}"]
    ascend_worker.do("run_command", "train", *arguments("pmt", tmp_path / "run", *options))
    require_one_thread(before, ascend_worker.do("launching"))

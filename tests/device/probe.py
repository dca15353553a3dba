"""The process on a stand-in that tests of tests/device give their cases to, by `tests.device.worker`.

It reads a line of JSON for each case, {"do": name of a function below, "with": its arguments}, and answers with one:
{"value": what it returned} or {"error": its traceback, cut short}.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from ms_vireid.devices import runtime
from parity.stand_in import DEVICES as STAND_INS
from parity.stand_in import counts, functions, gpu
from parity.stand_in.counts import calls, plant
from tests.ablations.in_process import start
from tests.device.test_kernels import kernel_error  # noqa: F401, a function that tests ask for
from tests.device.test_mindspores_layers import launched_by_name, layer_refusals, save_joined, save_layers, save_scaled  # noqa: F401

DEVICES = []  # the one of this process, once it is set up


def run_command(name: str, *arguments: str) -> None:
    """A command of the project on the device; raises RuntimeError with the line of its error."""
    if reason := start(name, [*arguments, "--device", DEVICES[0]], Path("log.txt")):
        raise RuntimeError(reason)


def launching() -> dict:
    """Threads of MindSpore that launch groups side by side, whether one runs steps behind the main thread, ms of a core
    that the one that launches a graph's operators has run, and how often a stream was to wait for an event."""
    threads = {(task / "comm").read_text().strip(): task for task in Path("/proc/self/task").iterdir()}
    launching = threads.get("launch_queue")
    return {
        "groups": [name for name in threads if name.startswith("batch_launch")],
        "queue": any(name.startswith("frontend_queue") for name in threads),
        "launching_ms": int((launching / "schedstat").read_text().split()[0]) / 1e6 if launching else 0.0,
        "waits": functions()["cudaStreamWaitEvent"] + functions()["aclrtStreamWaitEvent"],
    }


def train_counted(*arguments: str) -> list[tuple[int, ...]]:
    """A training; what each of its steps has launched, copied, waited for and allocated, the last one left out, with
    which an epoch ends."""
    from ms_vireid.engine import trainer

    moments = []
    progress = trainer.progress

    def watched(*given):
        for item in progress(*given):
            moments.append(counts())
            yield item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "progress", watched)
        run_command("train", *arguments)
    return [astuple(after - before) for before, after in itertools.pairwise(moments)]


def train_steps(number: int, *arguments: str) -> None:
    """A training that gets Ctrl-C with the batch of step `number`, which it makes; it leaves a checkpoint."""
    from ms_vireid.engine import trainer

    progress = trainer.progress

    def interrupted(*given):
        for step, item in enumerate(progress(*given), 1):
            if step == number:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "progress", interrupted)
        try:
            run_command("train", *arguments)
        except KeyboardInterrupt:
            return
    raise RuntimeError("it was not stopped")


def run_case(name: str, backend: str, error: str = "") -> list[str]:
    """A case of the ladder by a backend, with an error planted on the way to the device, or none: its comparisons that
    are over their tolerances."""
    from parity import cases

    plant(error)
    try:
        outcome = cases.run(_case(name), [backend])
    finally:
        plant("")
    return [str(comparison) for comparison in outcome.comparisons if not comparison.passed]


def _case(name: str):
    from parity import cases

    return next(case for case in cases.LADDER if str(case) == name)


def run_case_by_kernels(name: str, right: str, wrong: str) -> list[str]:
    """`run_case` by CUDA kernels in whose source `wrong` stands for `right`; without optimisations they compile in a
    fifth of the time. Not a training: those are computed once in a process, by whatever kernels."""
    from ms_vireid.backends.cuda import build, declarations, use_kernels

    assert not _case(name).training
    use_kernels()  # the right ones, which stay until others are used
    source = declarations.kernel_source()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_OPTIONS", (*build._OPTIONS, "--device-debug"))
        build.use_kernels(source.replace(right, wrong))
    try:
        return run_case(name, "cuda")
    finally:
        build.use_kernels(source)


def changed_by_updates(name: str, scales: list[float]) -> list[list]:
    """Updates in float16 by the backend `cuda`, one for each of these scales of the gradients; whether each has changed
    all weights and states (true), none (false), or only some (None), and the loss's scale after it."""
    from mindspore import Parameter, Tensor, nn

    from ms_vireid.backends import half
    from ms_vireid.backends.choosing import backend_named
    from ms_vireid.engine.train_step import loss_scaler
    from ms_vireid.optimizers.adamw import AdamW
    from ms_vireid.optimizers.groups import ParameterGroup
    from ms_vireid.optimizers.sgd import SGD

    rng = np.random.default_rng(0)
    weights = [Tensor(rng.normal(size=shape).astype(np.float32)) for shape in [(3, 4), (130,)]]
    groups = [ParameterGroup("full", 1.0, tuple(Parameter(each, name=f"{each.shape}") for each in weights))]
    optimizer = AdamW(groups, (0.9, 0.999), 1e-8, 0.1) if name == "AdamW" else SGD(groups, 0.9, True, 0.1)
    computation = backend_named("cuda", "float16").accelerate(nn.Cell(), None, optimizer)
    scaler, layout = loss_scaler("float16"), computation.layout(optimizer)

    def update(first, second, scalars):
        gradients, finite = half.unscaled(scaler, layout.joined((first, second)))
        return optimizer(layout.parts, gradients, scalars, finite)

    step = computation.compile(update)

    def held():
        return np.concatenate([parameter.asnumpy().ravel() for parameter in (*layout.weights, *optimizer.state())])

    changes = []
    for number, scale in enumerate(scales, 1):
        before = held()
        gradients = [Tensor(scale * rng.normal(size=weight.shape).astype(np.float32)) for weight in layout.weights]
        step(*gradients, Tensor(optimizer.scalars(number, [0.1])))
        changed = held() != before
        all_or_none = None if changed.any() != changed.all() else bool(changed.all())
        changes.append([all_or_none, float(scaler.scale_value.asnumpy())])
    return changes


def kernels_differ_by(network: str, evaluated: list[str]) -> float:
    """`networks.difference`."""
    from tests.device import networks

    return networks.difference(network, evaluated)


def joins_differ() -> dict[str, list[str]]:
    """Calls of `tests.device.joins` by what MindSpore's own functions do, compute or refuse, and below "differ" those
    of which the backend `cuda` has other results or gradients, or refuses what they compute or the other way round."""
    import mindspore as ms
    from mindspore import Tensor, nn

    from ms_vireid.backends.choosing import backend_named
    from tests.device import joins

    x, y = (Tensor(np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)) for rows in (2, 4))
    computation = backend_named("cuda").accelerate(nn.Cell())

    def result(function, compute):
        def weighed(a, b):
            joined = function(a, b)
            return (joined.astype(ms.float32) * joined.astype(ms.float32)).sum(), joined

        try:
            (_, joined), gradients = compute(ms.value_and_grad(weighed, (0, 1), has_aux=True))(x, y)
            return [str(joined.dtype), *(tensor.asnumpy() for tensor in (joined, *gradients))]
        except (RuntimeError, TypeError, ValueError):
            with suppress(RuntimeError):
                ms.runtime.synchronize()
            return []

    found = {"computed": [], "refused": [], "differ": []}
    for call, function in joins.functions(Path.cwd()).items():
        expected, actual = result(function, ms.jit), result(function, computation.compile)
        found["computed" if expected else "refused"].append(call)
        if len(expected) != len(actual) or not all(map(np.array_equal, expected, actual)):
            found["differ"].append(call)
    return found


def called_by(method: str) -> list[str]:
    """What a small training step of a method, and its evaluation, put on the device."""
    from parity.stand_in import computations

    before = functions()
    for owner, compute in computations.computations():
        if owner == method:
            compute()
    return list(filter(STAND_INS[DEVICES[0]].is_launch, functions() - before))


def launched() -> list[str]:
    """What this process has put on the device so far."""
    return list(filter(STAND_INS[DEVICES[0]].is_launch, functions()))


def count_product() -> dict:
    """What x * x asks for the second time, from the copy of x to the device to the copy of the result."""
    import mindspore

    for _ in range(2):
        before, called = counts(), functions()
        x = mindspore.Tensor(np.ones(3, np.float32))
        (x * x).asnumpy()
    return {"counts": astuple(counts() - before), "launched": list(filter(gpu.is_launch, functions() - called))}


def calls_of_operators() -> list[str]:
    """What some operators put on the device, with the tensors that they work on."""
    from mindspore import Tensor, mint, ops

    def some(*shape: int) -> Tensor:
        return Tensor(np.ones(shape, np.float32))

    before = calls()
    mint.matmul(some(4, 6), some(6, 8)).asnumpy()
    (some(4, 6) * some(4, 1)).asnumpy()
    mint.permute(some(4, 6, 8), (2, 0, 1)).asnumpy()
    ops.conv2d(some(2, 3, 6, 6), some(8, 3, 3, 3)).asnumpy()
    mint.sum(some(4, 6), 0).asnumpy()
    return sorted(call for call in calls() - before if "\t" in call)


def staged(sizes: list[int], rows: int, error: str = "") -> list:
    """Send arrays of so many rows, each of its number, one by one, with an error planted; return the first column of
    what arrived, and the calls that brought it, which waited for nothing."""
    from ms_vireid.devices.staging import Staging

    plant(error)
    before, staging, arrived = calls(), Staging(), []
    array = np.empty((max(sizes), 3), np.float32)
    for number, size in enumerate(sizes, 1):
        array[:size] = number
        arrived.append(staging.send(array[:size], rows))
        array[:] = -1
    rows = [tensor.asnumpy()[:, 0].tolist() for tensor in arrived]
    del staging
    plant("")
    called = {name: made for name, made in (calls() - before).items() if name == "aclrtMemcpyAsync" or "Host" in name}
    to_device = {name: made for name, made in (calls() - before).items() if "to the device" in name}
    return [rows, called | to_device]


def written_inputs(operator: str, numbers: dict) -> list[str]:
    """Those of an operator's inputs that MindSpore is told it writes, where they stand."""
    from mindspore.ops.signature import make_sig, sig_rw

    from ms_vireid.backends.cuda import operators

    numbers, told = {name: tuple(v) if isinstance(v, list) else v for name, v in numbers.items()}, []

    def telling(name, use):
        told.append((name, use))
        return make_sig(name, use)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "make_sig", telling)
        operators.made(operator, numbers)
    return [name for name, use in told if use == sig_rw.RW_WRITE] + [f"of {len(told)}"]


def end(code: int) -> None:
    """Of the process, with no answer."""
    os._exit(code)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def load_libraries(paths: list[str]) -> None:
    for path in paths:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def wait(seconds: float) -> None:
    time.sleep(seconds)


def add(dtype: str, compiled: bool) -> None:
    def function(x):
        return x + x

    _call(function, dtype, compiled)


def multiply(dtype: str, compiled: bool) -> None:
    """Matrices."""

    def function(x):
        return x @ x

    _call(function, dtype, compiled)


def _call(function, dtype: str, compiled: bool) -> None:
    import mindspore

    x = mindspore.Tensor(np.ones((4, 4), np.float32)).astype(getattr(mindspore, dtype))
    try:
        (mindspore.jit(function) if compiled else function)(x).asnumpy()
    finally:  # what is refused in PyNative may be told of a second time, by whatever comes next
        with suppress(RuntimeError):
            mindspore.runtime.synchronize()


def edited(run: str, edit: str, backend: str) -> dict:
    """What a backend makes of an edit, or of a model of one's own without one (`tests.edits.runs.judge`)."""
    from tests.edits import runs, sites  # import mindspore: after the device is set up

    return runs.judge(run, sites.Edit.named(edit) if edit else None, [backend])


def set_up(device: str, blocking: bool) -> None:
    """blocking: PyNative launches in the thread that calls, which spares its others. What is launched is the same."""
    runtime.set_up(device)
    runtime.use_full_float32()
    DEVICES.append(device)
    import mindspore

    if blocking:
        mindspore.runtime.launch_blocking()
    if os.environ.get("STAND_IN_VALUES") == "0":  # then features are zeros, which are refused
        from ms_vireid.search import feature_files, features

        for module in (feature_files, features):
            module.first_fault = lambda rows: None


def main() -> None:
    # Answers alone go to what was standard output; all else that is printed goes to the log.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"value": globals()[asked["do"]](*asked["with"])}
        except (Exception, SystemExit) as error:
            # MindSpore's messages may hold a line for every call that it has unrolled.
            answer = {"error": "".join(traceback.format_exception(error, limit=-5))[:5000]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

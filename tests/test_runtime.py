"""Device choice and process set-up, in fresh processes where an environment is at stake."""

import ctypes
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mindspore
import pytest
from mindspore import nn

from ms_vireid import train
from ms_vireid.backends.choosing import OF_DEVICE, backend_named
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import gpu, runtime
from ms_vireid.search.start import start_inference
from tests.driver import Driver, Loader

BACKENDS = OF_DEVICE["CPU"]


def environments(**variables):
    """oneDNN's instruction set and the log level, once a process is set up and once its convolutions are capped."""
    script = (
        "import os; from ms_vireid.devices import runtime; names = 'ONEDNN_MAX_CPU_ISA', 'GLOG_v';"
        "runtime.set_up('CPU'); print(*map(os.environ.get, names));"
        "runtime.cap_convolutions(); print(*map(os.environ.get, names))"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in ("ONEDNN_MAX_CPU_ISA", "GLOG_v")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=inherited | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("convolves", [True, False])
def test_operators_and_graphs_with_convolutions_are_capped(backend, convolves, monkeypatch):
    """A ViT's products keep AVX-512, and so do the kernels'."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    backend_named(backend).accelerate(nn.SequentialCell(nn.Conv2d(3, 4, 3) if convolves else nn.Dense(3, 4)))
    expected = "AVX2" if convolves and backend != "numba" else None
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == expected


def test_only_convolutions_are_capped_and_a_users_own_environment_wins():
    assert environments() == ["None 3", "AVX2 3"]
    assert environments(GLOG_v="1", ONEDNN_MAX_CPU_ISA="AVX512_CORE") == 2 * ["AVX512_CORE 1"]


CORES_WHILE_ITERATING = """
import json, os, time
from contextlib import suppress
import numpy as np
os.sched_setaffinity(0, range(os.cpu_count()))
cores = sorted(os.sched_getaffinity(0))[:COUNT]
os.sched_setaffinity(0, cores)
from ms_vireid.devices import runtime
runtime.set_up("CPU")
import mindspore
from ms_vireid.data.loader import iterate

class Batches:
    nbytes = 1024
    def __len__(self):
        return 2
    def read(self, index, memory):
        allowed = sorted(os.sched_getaffinity(0))
        pixels = np.ndarray(len(allowed), np.int64, memory)
        pixels[:] = allowed
        return pixels, index

def threads():
    computing = sorted(runtime._threads(b"ActorThread_") + runtime._threads(b"KernelThread_"))
    return [sorted(os.sched_getaffinity(thread)) for thread in (0, *computing)]

def measured(compiled):
    for worker, number in iterate(Batches(), workers=1, compiled=compiled):
        if number == 0:
            mindspore.ops.relu(mindspore.Tensor([0.0])).asnumpy()
            time.sleep(0.5)  # its threads name themselves
            continue
        before = threads()
        for nested, _ in iterate(Batches(), workers=1, compiled=compiled):
            pass
        again = threads()
        with suppress(ZeroDivisionError), runtime.own_core():
            alone = threads()
            1 / 0
        restored = threads()
    return before, again, restored, alone, worker.tolist(), nested.tolist(), threads()

print(json.dumps([cores, measured(False), measured(True)]))
"""


@pytest.mark.parametrize("count", [2, 1])
def test_threads_keep_to_a_core_each_while_batches_are_used_where_there_are_several_and_it_is_wanted(count):
    """The cores of the calling thread and of MindSpore's, before and after a nested loop and a failed block of its own
    core, within that, of a worker, of the nested loop's worker, and of the threads at the end."""
    script = CORES_WHILE_ITERATING.replace("COUNT", str(count))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    cores, *measured = json.loads(done.stdout)
    if len(cores) < count:
        pytest.skip("needs two cores")
    for bound, (at_work, again, restored, alone, worker, nested, after) in zip((True, False), measured, strict=True):
        kept = [[cores[0]], [cores[0]], [cores[1]]] if count == 2 and bound else [cores] * 3
        assert at_work == again == restored == kept
        assert alone == [kept[0], kept[2], kept[2]]
        assert worker == nested == cores
        assert after == 3 * [cores]


def unusable(problem):
    def start():
        raise DeviceError(problem, "install it")

    return start


@pytest.mark.parametrize(
    ("device", "looked_for"), [("GPU", r"libcuda\.so\.1\); install it"), ("Ascend", r"/dev/davinci\*\); run on")]
)
def test_a_device_that_is_not_there_is_one_line_with_what_was_looked_for(monkeypatch, device, looked_for):
    monkeypatch.setattr(ctypes, "CDLL", Loader(broken=("libascendcl.so",)))
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    with pytest.raises(InputError, match=f"^device {device}: no .*{looked_for}.*, or use --device CPU$"):
        runtime.set_up(device)


@pytest.mark.parametrize(
    ("npus", "chip", "said"),
    [
        (8, "ascend910b", r"^Ascend \(ascend910b\)$"),
        (8, "ascend910_93", r"^Ascend \(ascend910_93\)$"),
        (8, "Ascend950", r"^Ascend \(Ascend950\)$"),
        (0, "ascend910b", r"^device Ascend: no Ascend NPU \(looked for /dev/davinci\*\); run on"),
        (8, "ascend910", r"^device Ascend: .*GE.* ascend910, .* 910B or newer.* --device CPU$"),
    ],
)
def test_an_npu_that_cann_counts_is_taken_but_not_one_of_whole_graphs(monkeypatch, npus, chip, said):
    """Without device files or MindSpore's plugin."""
    cann = SimpleNamespace(aclrtGetDeviceCount=lambda count: setattr(count._obj, "value", npus))
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: cann)
    monkeypatch.setattr(runtime, "_select", lambda name: None)
    monkeypatch.setattr(runtime, "_ascend_chip", lambda: chip)
    try:
        found = runtime.set_up("Ascend")
    except InputError as error:
        found = str(error)
    assert re.search(said, found)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("numpy.__version__", "2.2.6", r"NumPy 2\.2\.6 is installed.*'numpy<2'"),
        ("sys.platform", "win32", r"Windows lacks the forked processes.*use WSL 2"),
    ],
)
def test_what_mindspore_cannot_run_on_is_one_line(monkeypatch, name, value, said):
    monkeypatch.setattr(name, value)
    with pytest.raises(InputError, match=said):
        runtime.set_up("CPU")


def test_auto_takes_the_first_device_that_can_be_used_and_says_why(monkeypatch):
    monkeypatch.setitem(runtime._START, "Ascend", unusable("no Ascend NPU"))
    monkeypatch.setitem(runtime._START, "GPU", unusable("no NVIDIA driver"))
    assert runtime.set_up("auto") == "CPU (auto: no Ascend NPU; no NVIDIA driver)"
    monkeypatch.setitem(runtime._START, "GPU", lambda: "NVIDIA A100; CUDA 11.8")
    assert runtime.set_up("auto") == "GPU (auto: NVIDIA A100; CUDA 11.8; no Ascend NPU)"
    assert runtime.set_up("GPU") == "GPU (NVIDIA A100; CUDA 11.8)"


@pytest.fixture
def gpu_machine(tmp_path, monkeypatch):
    """A driver with a GPU, and CUDA 11.8 as packages."""
    monkeypatch.setattr(ctypes, "CDLL", Loader(Driver()))
    libraries = tuple(tmp_path / "lib" / name for name in ("libcudart.so.11.0", "libcudnn.so.8"))
    toolkit = gpu.Toolkit("11.8", "the gpu extra", libraries)
    monkeypatch.setattr(gpu, "find_toolkit", lambda environment: toolkit)
    for name in ("CUDA_HOME", "LD_LIBRARY_PATH", "CUDA_CACHE_MAXSIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_mindspore_sees_its_cuda_while_it_takes_the_device_and_the_users_environment_comes_back(
    gpu_machine, monkeypatch
):
    seen = {}

    def select(name):
        compiler = Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc"
        seen[name] = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
        seen["libraries"] = os.environ["LD_LIBRARY_PATH"]

    monkeypatch.setattr(runtime, "_select", select)
    monkeypatch.setenv("CUDA_HOME", "/users/own")
    found = runtime.set_up("GPU")
    assert found == "GPU (NVIDIA A100-SXM4-40GB, compute capability 8.0; CUDA 11.8 from the gpu extra)"
    assert "release 11.8," in seen["GPU"]
    assert seen["libraries"] == str(gpu_machine / "lib")
    assert os.environ["CUDA_HOME"] == "/users/own"
    assert "LD_LIBRARY_PATH" not in os.environ


def test_a_plugin_that_does_not_load_is_one_line_and_auto_goes_on_to_the_cpu(gpu_machine, monkeypatch):
    monkeypatch.setattr("mindspore.device_context.gpu.device.is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device GPU: MindSpore .* cannot load its GPU plugin .*GLOG_v=2"):
        runtime.set_up("GPU")
    monkeypatch.setitem(runtime._START, "Ascend", unusable("no Ascend NPU"))
    assert runtime.set_up("auto").startswith("CPU (auto: no Ascend NPU; MindSpore ")


@pytest.fixture(params=["GPU", "Ascend"])
def precisions(request, monkeypatch):
    """A device, to what it rounds float32, and whether its products and convolutions were told to or not to."""
    device, kind, told = request.param, {"GPU": "TF32", "Ascend": "HF32"}[request.param], {}
    monkeypatch.setattr(mindspore, "get_context", {"device_target": device}.__getitem__)
    settings = getattr(mindspore.device_context, device.lower()).op_precision
    for operator in ("matmul", "conv"):
        name = f"{operator}_allow_{kind.lower()}"
        monkeypatch.setattr(settings, name, partial(told.__setitem__, operator))
    monkeypatch.setattr(runtime, "set_up", lambda _device: device)
    return device, kind, told


def test_products_round_as_they_are_told(precisions):
    _, kind, told = precisions
    assert runtime.round_products() == f"products in {kind}"
    assert told == {"matmul": True}
    assert runtime.round_products(False) == ""
    assert told == {"matmul": False}
    runtime.use_full_float32()
    assert told == {"matmul": False, "conv": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mindspore, "get_context", {"device_target": "CPU"}.__getitem__)
        assert runtime.round_products() == ""


@pytest.mark.parametrize("rounded", [True, False])
def test_a_training_and_a_trained_model_let_products_round_if_asked_to(precisions, capsys, rounded):
    device, kind, told = precisions
    words = f"{device}; products in {kind}; eager" if rounded else f"{device}; eager"
    config = load_config(CONFIG_ROOT / "demo.yaml", [f"train.tf32={rounded}", "train.backend=eager"])
    assert train.start(device, config)[0] == words
    assert told.pop("matmul") is rounded
    start_inference(Namespace(device=device, backend="eager", tf32=rounded))
    assert capsys.readouterr().out == 2 * f"device: {words}\n"
    assert told == {"matmul": rounded}

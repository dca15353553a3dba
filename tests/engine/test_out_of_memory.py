"""A device without enough memory: MindSpore's own errors become one line, and all others stay what they are."""

import mmap
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from ms_vireid import train
from ms_vireid.backends.backend import Step
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT
from ms_vireid.engine.trainer import SMALLER, explain_out_of_memory
from tests.tiny_models import DATA, RECIPES

COLUMN = np.ones((1 << 22, 1), np.float32)  # 16 MiB, whose products with each other take 64 TiB


def in_pynative():
    column = ms.Tensor(COLUMN)
    return ops.matmul(column, column.T).asnumpy()


@ms.jit
def product(column):
    return ops.matmul(column, column.T)


def in_a_graph():
    return product(ms.Tensor(COLUMN)).asnumpy()


@pytest.mark.parametrize("fill", [in_pynative, in_a_graph])
def test_mindspores_refusal_of_memory_is_one_line(fill):
    with (
        pytest.raises(InputError, match=r"^out of memory in the test; try train.recompute=true, "),
        explain_out_of_memory("the test"),
    ):
        fill()


# As the GPU plugin and the libraries under it word it; what is in brackets varies.
ON_GPU = [
    "\n- Memory not enough:\nDevice(id:0) memory isn't enough and alloc failed, kernel name: MatMul, alloc size: 8B.",
    "Memory not enough: Current free memory size[8] is smaller than required size[9].",
    "Memory not enough: Alloc device memory[1024] failed.",
    "Allocate memory failed",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED: Resource allocation failed inside the cuBLAS library",
    "The cudaGetLastError[2], out of memory",
]


@pytest.mark.parametrize("text", ON_GPU)
def test_a_gpus_refusal_of_memory_is_one_line(text):
    with pytest.raises(InputError, match="out of memory"), explain_out_of_memory("the test"):
        raise RuntimeError(text)


def test_the_installed_gpu_plugin_words_it_so():
    libraries = Path(ms.__file__).parent / "lib"
    for library, wording in (
        ("plugin/libmindspore_gpu.so.11.6", b"Memory not enough:#umsg#Alloc device memory["),
        ("plugin/libmindspore_gpu.so.11.6", b"Memory not enough:#umsg#Current free memory size["),
        ("libmindspore_ms_backend.so", b") memory isn't enough and alloc failed, kernel name: "),
        ("libmindspore_backend_common.so", b"Allocate memory failed"),
    ):
        with (libraries / library).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            assert content.find(wording) >= 0, wording


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("For primitive[MatMul], the input shapes differ"),
        RuntimeError("Shared memory segment not found"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error).replace("[", r"\[")), explain_out_of_memory("the test"):
        raise error


def test_the_command_says_which_step_was_too_large_and_what_to_try(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Step, "__call__", lambda *arguments: in_pynative())
    recipe, sizes = RECIPES["mun"]
    where = ["--config", str(CONFIG_ROOT / recipe), "--device", "CPU", "--output", str(tmp_path / "run")]
    settings = [DATA % (tmp_path / "data"), *sizes, "train.num_identities=3", "train.num_instances=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *where, *settings])
    with pytest.raises(SystemExit) as ended:
        run(train.main)
    assert ended.value.code == 2
    printed = capfd.readouterr().err.splitlines()[-1]
    assert printed == f"error: out of memory in training step 1 of 12 images; try {SMALLER}"

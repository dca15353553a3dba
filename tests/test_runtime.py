"""Device choice and process set-up, in fresh processes where an environment is at stake."""

import os
import subprocess
import sys

import pytest

from ms_vireid import runtime
from ms_vireid.errors import InputError


def environment_after(device, model, **variables):
    """oneDNN's instruction set and the log level as set_up leaves them."""
    script = (
        f"import os; from ms_vireid import runtime; runtime.set_up({device!r}, {model!r});"
        "print(os.environ.get('ONEDNN_MAX_CPU_ISA'), os.environ['GLOG_v'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in ("ONEDNN_MAX_CPU_ISA", "GLOG_v")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=inherited | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_convolutional_models_get_the_instruction_set_cap_and_the_transformer_none():
    assert environment_after("CPU", "mun")[0] == "AVX2"
    assert environment_after("CPU", "pmt")[0] == "None"


def test_a_model_that_is_known_later_still_gets_its_instruction_set(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    runtime.set_up("CPU", None)
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ
    runtime.choose_instruction_set("agw")
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_a_users_own_environment_wins():
    assert environment_after("CPU", "mun", ONEDNN_MAX_CPU_ISA="AVX512_CORE", GLOG_v="1") == ["AVX512_CORE", "1"]


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.setattr(runtime, "_gpu_problem", lambda: "no NVIDIA driver (looked for libcuda.so.1)")
    monkeypatch.setattr(runtime, "_ascend_problem", lambda: "no Ascend NPU (looked for /dev/davinci*)")


@pytest.mark.parametrize(("device", "looked_for"), [("GPU", "libcuda.so.1"), ("Ascend", "/dev/davinci")])
def test_a_device_that_is_not_there_is_one_line_with_what_was_looked_for(no_accelerator, device, looked_for):
    with pytest.raises(InputError, match=f"device {device}: .*{looked_for}.*--device CPU"):
        runtime.set_up(device, "pmt")


def test_auto_says_what_it_chose_and_why(no_accelerator):
    chosen = runtime.set_up("auto", "pmt")
    assert chosen.startswith("CPU (auto: ")
    assert "libcuda.so.1" in chosen


def test_a_plugin_that_does_not_load_is_one_line(monkeypatch):
    monkeypatch.setattr(runtime, "_gpu_problem", lambda: None)
    monkeypatch.setattr("mindspore.set_device", _refuse)
    with pytest.raises(InputError, match="cannot load its GPU plugin"):
        runtime.set_up("GPU", "pmt")


def _refuse(_device):
    raise RuntimeError("Unsupported device target GPU.\n\n- C++ Call Stack: (For framework developers)")


def fake_nvcc(folder, release):
    folder.mkdir()
    (folder / "bin").mkdir()
    compiler = folder / "bin" / "nvcc"
    compiler.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    compiler.chmod(0o755)


@pytest.mark.parametrize(("release", "problem"), [("13.0", "is release 13.0"), ("11.6", None)])
def test_the_gpu_needs_a_cuda_11_toolkit(tmp_path, monkeypatch, release, problem):
    fake_nvcc(tmp_path / "cuda", release)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)  # a driver that loads
    found = runtime._gpu_problem()
    assert (found is None) if problem is None else (problem in found)

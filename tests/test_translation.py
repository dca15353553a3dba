"""What is said while a driver translates MindSpore's kernels, by the folder that a real driver would fill."""

import time
from types import SimpleNamespace

import pytest

from ms_vireid.devices import runtime, translation

ONCE = (
    "407 modules of kernels for this GPU (195 s on an H100 beside a Xeon); it keeps them in {}, 361 MB: this happens "
)
ONCE += "once for this MindSpore, GPU and driver\n"


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """A function that starts a GPU whose driver adds files to its cache, and gives what was said."""
    monkeypatch.setattr(translation, "POLL_S", 0.01)

    def started(adds=0, seconds=0.3, **environment):
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        with translation.announced({"CUDA_CACHE_PATH": str(cache), "CUDA_CACHE_MAXSIZE": "4000000000"} | environment):
            said_before = capsys.readouterr().err
            for number in range(adds):
                (cache / f"{time.monotonic_ns()}-{number}").touch()
            time.sleep(seconds)
        said = said_before + capsys.readouterr().err
        return SimpleNamespace(cache=cache, before=said_before, said=said)

    return started


def test_the_first_start_is_announced_before_it_and_later_ones_are_not(start):
    first = start(adds=translation.MODULES)
    assert first.before == first.said == f"note: the driver translates MindSpore's {ONCE.format(first.cache)}"
    assert start().said == ""


def test_a_start_for_another_driver_is_announced_once_its_files_come(start):
    start(adds=translation.MODULES)
    second = start(adds=1)
    assert second.before == ""
    assert second.said.count("\n") == 1
    assert second.said.endswith(ONCE.format(second.cache))


def test_a_long_start_is_announced_though_nothing_new_is_kept(start, monkeypatch):
    start(adds=translation.MODULES)
    monkeypatch.setattr(translation, "LONG_S", 0.03)
    assert "every start takes as long" in start(CUDA_CACHE_DISABLE="1").said


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"CUDA_CACHE_DISABLE": "1"}, "CUDA_CACHE_DISABLE=1 has it keep nothing"),
        ({"CUDA_CACHE_MAXSIZE": "268435456"}, "CUDA_CACHE_MAXSIZE=268435456 is too small for their 361000000 bytes"),
        ({"CUDA_CACHE_PATH": "/dev/null/x"}, "/dev/null/x cannot be written to keep them (CUDA_CACHE_PATH names"),
        ({"CUDA_CACHE_PATH": ""}, "it has no folder to keep them in (CUDA_CACHE_PATH names one)"),
    ],
)
def test_a_driver_that_cannot_keep_them_takes_as_long_at_every_start(start, environment, why):
    said = start(**environment).said
    assert f"beside a Xeon); {why}" in said
    assert said.endswith(", so that every start takes as long\n")


def test_the_cache_is_in_the_users_home_unless_told_otherwise(start, tmp_path):
    home = {"HOME": str(tmp_path), "CUDA_CACHE_PATH": "", "CUDA_CACHE_DISABLE": "0"}
    assert ONCE.format(tmp_path / ".nv/ComputeCache") in start(**home).said


@pytest.mark.parametrize(("number", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_the_first_speaks(monkeypatch, capsys, tmp_path, number, lines):
    monkeypatch.setattr("mindspore.get_context", {"device_target": "GPU"}.__getitem__)
    monkeypatch.setattr(runtime.gpu, "find_gpu", lambda environment: runtime.gpu.Gpu("NVIDIA X", 9.0))
    for name, value in {"MS_ROLE": "MS_WORKER", "DEVICE_ID": number, "CUDA_CACHE_PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with runtime.device_starting():
        pass
    assert capsys.readouterr().err.count("\n") == lines

"""What is said before a driver translates MindSpore's kernels, by the folder that a real driver would fill."""

import pytest

from ms_vireid.devices import runtime, translation

NOTE = "note: the driver now translates MindSpore's 407 modules of kernels for this GPU (3 to 4 minutes on an H100); "
ONCE = NOTE + "it keeps them in {}, 361 MB: this happens once for this MindSpore, GPU and driver\n"


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def said(cache, capsys):
    """A function that gives what is said before a start."""

    def said(**environment):
        translation.announce({"CUDA_CACHE_PATH": str(cache), "CUDA_CACHE_MAXSIZE": "4000000000"} | environment)
        return capsys.readouterr().err

    return said


def test_a_start_is_announced_until_each_module_has_its_file(cache, said):
    for number in range(translation.MODULES):
        folder = cache / str(number % 16)
        folder.mkdir(exist_ok=True)
        if number in (0, translation.MODULES - 1):
            assert said() == ONCE.format(cache)
        (folder / str(number)).touch()
    assert said() == ""
    assert "CUDA_CACHE_DISABLE=1 has it keep nothing" in said(CUDA_CACHE_DISABLE="1")


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"CUDA_CACHE_DISABLE": "1"}, "CUDA_CACHE_DISABLE=1 has it keep nothing"),
        ({"CUDA_CACHE_MAXSIZE": "268435456"}, "CUDA_CACHE_MAXSIZE=268435456 is too small for their 361000000 bytes"),
        ({"CUDA_CACHE_PATH": "/dev/null/x"}, "/dev/null/x cannot be written to keep them (CUDA_CACHE_PATH names"),
        ({"CUDA_CACHE_PATH": ""}, "it has no folder to keep them in (CUDA_CACHE_PATH names one)"),
    ],
)
def test_a_driver_that_cannot_keep_them_takes_as_long_at_every_start(said, environment, why):
    line = said(**environment)
    assert line.startswith(NOTE + why)
    assert line.endswith(", so that every start takes as long\n")


def test_the_cache_is_in_the_users_home_unless_told_otherwise(said, tmp_path):
    home = {"HOME": str(tmp_path), "CUDA_CACHE_PATH": "", "CUDA_CACHE_DISABLE": "0"}
    assert said(**home) == ONCE.format(tmp_path / ".nv/ComputeCache")


@pytest.mark.parametrize(("number", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_the_first_speaks(monkeypatch, capsys, tmp_path, number, lines):
    monkeypatch.setattr("mindspore.get_context", {"device_target": "GPU"}.__getitem__)
    monkeypatch.setattr(runtime.gpu, "find_gpu", lambda environment: runtime.gpu.Gpu("NVIDIA X", 9.0))
    for name, value in {"MS_ROLE": "MS_WORKER", "DEVICE_ID": number, "CUDA_CACHE_PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    runtime.announce_start()
    assert capsys.readouterr().err.count("\n") == lines

"""What is said before a driver translates MindSpore's kernels, by the folder that a real driver would fill."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.devices import runtime, translation

NOTE = "note: the driver now translates MindSpore's 407 modules of kernels for this GPU (3 to 4 minutes on an H100); "
LIBRARY = Path(find_spec("mindspore").origin).parent / translation.LIBRARY
ONCE = NOTE + "it keeps them in {}, 361 MB: this happens once for this MindSpore, GPU and driver\n"


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def said(cache, capsys):
    """A function that gives what is said before a start on so many cores."""

    def said(cores=1, library=LIBRARY, **environment):
        limits = {"CUDA_CACHE_PATH": str(cache), "CUDA_CACHE_MAXSIZE": "4000000000"}
        translation.prepare(limits | environment, library, cores)
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
    monkeypatch.setattr("mindspore.get_context", {"device_target": "GPU", "device_id": 0}.__getitem__)
    monkeypatch.setenv(translation.TRANSLATORS, "0")
    monkeypatch.setattr(runtime.gpu, "find_gpu", lambda environment: runtime.gpu.Gpu("NVIDIA X", 9.0))
    for name, value in {"MS_ROLE": "MS_WORKER", "DEVICE_ID": number, "CUDA_CACHE_PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    runtime.prepare_start()
    assert capsys.readouterr().err.count("\n") == lines


def test_each_module_of_mindspores_kernels_is_found():
    places = translation.modules(LIBRARY)
    assert len(places) == len(set(places)) == translation.MODULES
    with LIBRARY.open("rb") as file:
        assert {os.pread(file.fileno(), 4, place) for place in places} == {bytes.fromhex("50ed55ba")}  # a fat binary


@pytest.mark.parametrize("kept", [0, 10, 64, 5000, 30_000_000])
def test_a_library_that_breaks_off_has_no_modules(tmp_path, kept):
    with LIBRARY.open("rb") as file:
        (tmp_path / "library").write_bytes(file.read(kept))
    assert translation.modules(tmp_path / "library") == []


@pytest.mark.parametrize("file", ["/bin/ls", "/nonexistent", "/", __file__])
def test_other_files_have_no_modules(file, said):
    assert translation.modules(Path(file)) == []
    assert said(cores=4, library=Path(file)).startswith(NOTE)


@pytest.mark.parametrize("chosen", ["", "-1", "2.5", "many", "\u0663", "1" * 5, "1" * 5000])
def test_no_number_of_processes(said, chosen):
    with pytest.raises(InputError, match=f"^{translation.TRANSLATORS}=.{{0,80}}: is no number of processes"):
        said(**{translation.TRANSLATORS: chosen})


def test_processes_that_the_driver_refuses_leave_the_modules_to_mindspore(said, monkeypatch, tmp_path):
    monkeypatch.setattr(translation, "_TRANSLATOR", tmp_path / "none.py")
    first, second = said(cores=3).splitlines()
    assert "(3 to 4 minutes on an H100 by one process, here by 3); it keeps them in" in first
    assert second == "note: 0 of 407 modules have been translated in 0 s; MindSpore has the rest translated"


def test_modules_that_are_translated_twice_are_said_to_be(cache, capsys):
    environment = {"CUDA_CACHE_PATH": str(cache)}
    for number in range(2 * translation.MODULES):
        translation.check(environment, translation.MODULES)
        assert capsys.readouterr().err == ""
        (cache / str(number)).touch()
    translation.check(environment, 0)
    assert capsys.readouterr().err == ""
    translation.check(environment, translation.MODULES)
    assert capsys.readouterr().err.startswith("note: the driver has not found in its cache what it translated: ")

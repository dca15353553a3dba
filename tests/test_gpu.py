"""The choice of a GPU and of its CUDA libraries, and each reason against them, without either."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid.command.errors import DeviceError
from ms_vireid.devices import gpu
from tests.driver import Driver, Loader


def with_driver(monkeypatch, driver, environment=()):
    monkeypatch.setattr(ctypes, "CDLL", Loader(driver))
    return gpu.find_gpu(dict(environment))


@pytest.mark.parametrize("version", [11000, 11080, 13000])
@pytest.mark.parametrize("capability", [(6, 0), (8, 6), (9, 0)])
def test_a_gpu_that_the_kernels_cover_is_found_with_every_driver_since_cuda_11(monkeypatch, version, capability):
    found = with_driver(monkeypatch, Driver(version, capability=capability, name="NVIDIA X"))
    assert str(found) == f"NVIDIA X, compute capability {capability[0]}.{capability[1]}"


@pytest.mark.parametrize(
    ("driver", "environment", "problem"),
    [
        (None, {}, r"no NVIDIA driver \(looked for libcuda.so.1\)"),
        (Driver(version=10020), {}, r"the NVIDIA driver supports CUDA only up to 10\.2"),
        (Driver(init=100), {}, "shows no GPU$"),
        (Driver(init=100), {"CUDA_VISIBLE_DEVICES": ""}, "shows no GPU with CUDA_VISIBLE_DEVICES=''"),
        (Driver(count=0), {"CUDA_VISIBLE_DEVICES": "7"}, "shows no GPU with CUDA_VISIBLE_DEVICES='7'"),
        (Driver(init=803), {}, "cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        (Driver(init=4242), {}, "cuInit: error 4242"),
        (Driver(capability=(5, 2)), {}, r"A100.*, compute capability 5\.2: .* covers 6\.0 to 9\.0"),
        (Driver(capability=(12, 0)), {}, r"A100.*, compute capability 12\.0: .* covers 6\.0 to 9\.0"),
    ],
)
def test_what_is_wrong_with_driver_or_gpu_is_said(monkeypatch, driver, environment, problem):
    with pytest.raises(DeviceError, match=problem) as raised:
        with_driver(monkeypatch, driver, environment)
    assert raised.value.remedy


def write_script(home, line):
    compiler = home / "bin" / "nvcc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(f"#!/bin/sh\n{line}\n")
    compiler.chmod(0o755)


def write_toolkit(home, release="11.6", without=()):
    write_script(home, f"echo 'Cuda compilation tools, release {release}, V{release}.1'")
    (home / "lib64").mkdir()
    for soname in gpu.PACKAGES:
        if soname not in without:
            (home / "lib64" / soname).write_text(soname)
    return home


def write_packages(site, without=()):
    """The gpu extra's packages as pip leaves them, with small libraries."""
    files = {}
    for soname, package in gpu.PACKAGES.items():
        if package not in without:
            files.setdefault(package, []).append(Path("nvidia") / package / "lib" / soname)
    for package, paths in files.items():
        records = site / f"{package.replace('-', '_')}-11.8.89.dist-info"
        records.mkdir(parents=True)
        (records / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 11.8.89\n")
        (records / "RECORD").write_text("".join(f"{path},sha256=x,{len(path.name)}\n" for path in paths))
        for path in paths:
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(path.name)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No CUDA anywhere, and a folder for Python packages."""
    monkeypatch.setattr(gpu, "SYSTEM_LIBRARIES", ())
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    monkeypatch.setattr(gpu, "_plugin_folder", lambda: tmp_path / "plugin")
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "libmindspore_gpu.so.11.6").touch()
    return tmp_path


def test_the_gpu_extra_is_found_and_comes_after_cuda_home(bare):
    write_packages(bare / "site")
    toolkit = gpu.find_toolkit({})
    assert (str(toolkit), toolkit.home) == ("CUDA 11.8 from the gpu extra", None)
    assert [path.name for path in toolkit.libraries] == list(gpu.PACKAGES)
    assert all(path.is_file() for path in toolkit.libraries)
    home = write_toolkit(bare / "cuda-11.7", "11.7")
    toolkit = gpu.find_toolkit({"CUDA_HOME": str(home)})
    assert (toolkit.home, str(toolkit)) == (home, f"CUDA 11.7 from CUDA_HOME={home}")
    assert {path.parent for path in toolkit.libraries} == {home / "lib64"}
    with toolkit.announced({}) as variables:
        assert variables == {"CUDA_HOME": str(home), "LD_LIBRARY_PATH": str(home / "lib64")}


def test_libraries_may_lie_elsewhere_and_cuda_11_1_has_its_own_name_for_nvrtc(bare):
    home = write_toolkit(bare / "cuda", "11.1", without=("libcudnn.so.8", "libnvrtc.so.11.2"))
    (home / "lib64" / "libnvrtc.so.11.1").touch()
    (home / "targets" / "x86_64-linux").mkdir(parents=True)  # the folder of a platform
    (home / "lib64").rename(home / "targets" / "x86_64-linux" / "lib")
    (bare / "cudnn").mkdir()
    (bare / "cudnn" / "libcudnn.so.8").touch()
    toolkit = gpu.find_toolkit({"CUDA_HOME": str(home), "LD_LIBRARY_PATH": f"/nowhere::{bare / 'cudnn'}"})
    assert toolkit.home == home
    assert toolkit.libraries[1].name == "libnvrtc.so.11.1"
    assert toolkit.libraries[-1] == bare / "cudnn" / "libcudnn.so.8"


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda home: write_toolkit(home, "12.6"), "is release 12.6"),
        (lambda home: write_toolkit(home, "11.4"), "is release 11.4"),
        (lambda home: write_toolkit(home, without=("libcudnn.so.8",)), "is release 11.6 without libcudnn.so.8"),
        (lambda home: home.mkdir(), "has no bin/nvcc that names its release"),
        (lambda home: write_script(home, "sleep 60"), "has no bin/nvcc that names its release"),
    ],
)
def test_a_cuda_home_that_mindspore_cannot_use_is_passed_over_and_named(bare, monkeypatch, write, why):
    monkeypatch.setattr(gpu, "_COMPILER_S", 0.5)
    home = bare / "cuda"
    write(home)
    environment = {"CUDA_HOME": str(home)}
    with pytest.raises(DeviceError, match=f"CUDA_HOME={home} {why}; .* not installed") as raised:
        gpu.find_toolkit(environment)
    assert raised.value.remedy == "pip install -e '.[gpu]' brings it, or set CUDA_HOME to one with cuDNN 8"

    write_packages(bare / "site")
    assert str(gpu.find_toolkit(environment)) == f"CUDA 11.8 from the gpu extra, as CUDA_HOME={home} {why}"


def test_on_a_cpu_no_compiler_is_asked(tmp_path):
    """MindSpore, which asks it at its import, would wait for ever for one that prints nothing."""
    write_script(tmp_path, f"touch {tmp_path}/asked; exit 3")
    command = [sys.executable, "-c", "from ms_vireid.devices import runtime; print(runtime.set_up('CPU'))"]
    environment = os.environ | {"CUDA_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "CPU\n", "")
    assert not (tmp_path / "asked").exists()


def test_a_missing_package_and_a_library_that_another_has_replaced_are_named(bare, monkeypatch):
    with pytest.raises(DeviceError, match=r"\(CUDA_HOME is not set; nvidia-cuda-runtime-cu11 is not installed\)"):
        gpu.find_toolkit({})
    write_packages(bare / "site", without=("nvidia-cudnn-cu11",))
    with pytest.raises(DeviceError, match=r"nvidia-cudnn-cu11 is not installed\)"):
        gpu.find_toolkit({})
    write_packages(bare / "whole")
    monkeypatch.setattr("sys.path", [str(bare / "whole")])
    (bare / "whole/nvidia/nvidia-curand-cu11/lib/libcurand.so.10").write_text("of CUDA 12")
    with pytest.raises(DeviceError, match=r"libcurand.so.10 is not the file that nvidia-curand-cu11 installed"):
        gpu.find_toolkit({})


def test_a_mindspore_without_gpu_plugin_is_named_and_the_installed_one_has_it(bare, monkeypatch):
    (bare / "plugin" / "libmindspore_gpu.so.11.6").unlink()
    with pytest.raises(DeviceError, match="no GPU plugin"):
        gpu.find_toolkit({})
    monkeypatch.undo()
    assert (gpu._plugin_folder() / "libmindspore_gpu.so.11.6").is_file()


@pytest.fixture
def toolkit(bare):
    write_packages(bare / "site")
    return gpu.find_toolkit({})


@pytest.mark.parametrize(
    ("loader", "problem"),
    [
        (Loader(broken=("libcudnn.so.8",)), r"the gpu extra does not load \(.*libcudnn.so.8: file too short\)"),
        (Loader(cudnn_for=12020), r"libcudnn.so.8 is for CUDA 12, not for CUDA 11.8 from the gpu extra"),
        (Loader(status=35), r"does not run with the NVIDIA driver \(CUDA driver version is insufficient"),
    ],
)
def test_libraries_that_do_not_work_are_named(toolkit, monkeypatch, loader, problem):
    monkeypatch.setattr(ctypes, "CDLL", loader)
    with pytest.raises(DeviceError, match=problem):
        toolkit.load()


def test_libraries_are_loaded_in_order_for_the_plugin_to_see_and_the_parts_of_a_cudnn_from_beside_it(
    toolkit, monkeypatch
):
    """Whatever LD_LIBRARY_PATH has: cuDNN looks for its parts by name."""
    folder = toolkit.libraries[-1].parent
    parts = [folder / "libcudnn_ops_infer.so.8", folder / "libcudnn_cnn_infer.so.8"]
    for part in parts:
        part.touch()
    monkeypatch.setattr(ctypes, "CDLL", loader := Loader())
    toolkit.load()
    expected = [*toolkit.libraries[:-1], *parts, toolkit.libraries[-1]]
    assert loader.loaded == [(str(path), ctypes.RTLD_GLOBAL) for path in expected]


def test_libraries_of_another_cuda_that_came_before_are_named(toolkit, monkeypatch, tmp_path):
    monkeypatch.setattr(ctypes, "CDLL", Loader())
    others = {"libcurand.so.10": tmp_path / "libcurand.so.10"}  # the same in CUDA 11, 12 and 13
    monkeypatch.setattr(gpu, "loaded", others.get)
    others["libcurand.so.10"].touch()
    toolkit.load()
    others |= {library.name: library for library in toolkit.libraries if "cudnn" not in library.name}
    others["libcudnn.so.8"] = tmp_path / "libcudnn.so.8"
    others["libcudnn.so.8"].touch()
    with pytest.raises(DeviceError, match=r"has loaded .*libcudnn.so.8, not that of CUDA 11.8 from") as raised:
        toolkit.load()
    assert "before importing PyTorch" in raised.value.remedy


def test_a_library_is_found_by_its_exact_name(tmp_path):
    """A link of another name, as in NVIDIA's own installations, and another version of it beside it."""
    file = gpu.loaded("libc.so.6")
    assert file.is_file()
    assert gpu.loaded("libc.so") is None
    assert gpu.loaded("libc.so.5", "libc.so.6") == file
    assert gpu.loaded("libc.so.61", "no such library") is None


def test_mindspore_is_told_the_release_by_a_private_compiler_that_goes_away(toolkit):
    with toolkit.announced({"LD_LIBRARY_PATH": "/users/own"}) as variables:
        home = Path(variables["CUDA_HOME"])
        printed = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True)
        assert "Cuda compilation tools, release 11.8," in printed.stdout
        assert home.stat().st_mode & 0o777 == 0o700
        folders = variables["LD_LIBRARY_PATH"].split(":")
        assert folders[-1] == "/users/own"
        assert set(folders[:-1]) == {str(path.parent) for path in toolkit.libraries}
    assert not home.exists()


def refuse(path, mode):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("chmod", [lambda path, mode: None, refuse])  # as a folder mounted noexec, or without modes
def test_a_temporary_folder_that_runs_no_programs_is_named(toolkit, monkeypatch, chmod):
    monkeypatch.setattr(Path, "chmod", chmod)
    with pytest.raises(DeviceError, match=r"programs in .* cannot be run") as raised, toolkit.announced({}):
        pass
    assert "TMPDIR" in raised.value.remedy


@pytest.mark.parametrize(("capability", "lines"), [(9.0, 1), (8.9, 0)])
def test_a_first_start_of_minutes_is_announced_also_where_no_home_is_known(monkeypatch, capsys, capability, lines):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container that runs as any user
    gpu.Gpu("NVIDIA X", capability).announce_translation({})
    assert capsys.readouterr().err.count("for 3 to 4 minutes on an H100") == lines

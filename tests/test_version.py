"""What records and `--version` say of this machine and this checkout."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid import __main__ as version
from ms_vireid.command import checkout
from ms_vireid.devices import gpu, runtime
from tests.driver import Driver, Loader


@pytest.mark.parametrize(
    ("repository", "project", "named"),
    [(".", "pyproject.toml", True), (".", "lib/pyproject.toml", False), ("..", "pyproject.toml", False)],
)
def test_a_commit_is_that_of_this_projects_checkout_alone(repository, project, named, tmp_path, monkeypatch):
    """Not of a repository that it is installed or unpacked in."""
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    git = ["git", "-C", str(folder / repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(checkout, "CHECKOUT", folder / project)
    assert checkout.git_commit() is None  # nothing is committed yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert checkout.git_commit() == (said if named else None)


def test_changed_files_are_said_and_the_index_is_not_written(tmp_path, monkeypatch):
    """A command that is killed meanwhile would leave its lock, and git would refuse to work."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    file, index = tmp_path / "pyproject.toml", tmp_path / ".git/index"
    file.write_text("a")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(checkout, "CHECKOUT", file)
    os.utime(file, (1, 1))  # which git would write down
    before = index.read_bytes()
    commit = checkout.git_commit()
    assert not commit.endswith("-dirty")
    (tmp_path / "untracked").touch()
    assert checkout.git_commit() == commit
    file.write_text("b")
    assert checkout.git_commit() == f"{commit}-dirty"
    assert index.read_bytes() == before


@pytest.mark.parametrize("repository", ["here", "elsewhere"])
def test_a_hook_of_another_repository_changes_no_commit(repository, tmp_path, monkeypatch):
    for name in ("here", "elsewhere"):
        git = ["git", "-C", str(tmp_path / name), "-c", "user.name=a", "-c", "user.email=a@b"]
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(name)
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", name]):
            subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(checkout, "CHECKOUT", tmp_path / "here/pyproject.toml")
    commit = checkout.git_commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    other = tmp_path / repository / ".git"
    values = {"DIR": other, "COMMON_DIR": other, "WORK_TREE": other.parent, "INDEX_FILE": other / "index"}
    values |= {"OBJECT_DIRECTORY": other / "objects", "CONFIG_COUNT": 1, "CONFIG_PARAMETERS": "'core.bare=true'"}
    for name in checkout.ELSEWHERE:
        with monkeypatch.context() as caller:
            caller.setenv(f"GIT_{name}", str(values.get(name, other / "none")))
            caller.setenv("GIT_CONFIG_KEY_0", "core.worktree")
            caller.setenv("GIT_CONFIG_VALUE_0", str(other.parent))
            assert checkout.git_commit() == commit, name
    local = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True).stdout
    assert {name.removeprefix("GIT_") for name in local.split()} <= {*checkout.ELSEWHERE}


VERSIONS = r"""ms_vireid \d+\.\d+\.\d+(, commit [0-9a-f]{40}(-dirty)?)?
Python 3\.\d+\.\d+ on .+
MindSpore 2\.\d+\.\d+, NumPy 1\.\d+\.\d+
Ascend: .+
GPU: .+
CPU: .*\d+ cores, .+
"""


def run_version(folder, **variables):
    command = [sys.executable, "-m", "ms_vireid", "--version"]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}"} | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_version_is_that_of_all_that_a_report_needs(tmp_path):
    done = run_version(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(VERSIONS, done.stdout)


def test_the_version_says_why_mindspore_cannot_be_imported(tmp_path):
    (tmp_path / "mindspore").mkdir()
    (tmp_path / "mindspore/__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open')")
    done = run_version(tmp_path, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[1]}")
    assert (done.returncode, done.stderr) == (0, "")
    problem = "MindSpore cannot be imported: ImportError: libgomp.so.1: cannot open\n"
    assert re.fullmatch(VERSIONS + problem, done.stdout)


def test_a_gpu_is_named_with_its_cuda_and_what_is_missing_with_the_reason(monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_MAXSIZE", "1")
    monkeypatch.setattr(ctypes, "CDLL", Loader(Driver(), broken=("libascendcl.so",)))
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    libraries = Path("lib/libcudart.so.11.0"), Path("lib/libcudnn.so.8")
    monkeypatch.setattr(gpu, "find_toolkit", lambda environment: gpu.Toolkit("11.8", "the gpu extra", libraries))
    monkeypatch.setattr(version.metadata, "version", lambda package: "1.0")
    monkeypatch.setattr(runtime, "import_problem", lambda: None)
    lines = list(version.installation())
    assert lines[3] == "Ascend: no Ascend NPU (looked for /dev/davinci*)"
    assert lines[4] == "GPU: NVIDIA A100-SXM4-40GB, compute capability 8.0; CUDA 11.8 from the gpu extra"
    assert len(lines) == 6


def test_libraries_that_lack_a_function_are_named(monkeypatch):
    """As stubs and other versions do; each function in turn."""
    monkeypatch.setenv("CUDA_CACHE_MAXSIZE", "1")
    monkeypatch.setattr(runtime, "import_problem", lambda: None)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    for name in [*vars(Driver()), "none"]:
        driver = Driver(init=803) if name == "cuGetErrorName" else Driver()
        if name != "none":
            delattr(driver, name)
        monkeypatch.setattr(ctypes, "CDLL", Loader(driver))
        ascend, nvidia = list(version.installation())[3:5]
        assert ascend == "Ascend: a library lacks a function ('Loader' object has no attribute 'aclrtGetDeviceCount')"
        assert (
            name == "none" or f"GPU: a library lacks a function ('Driver' object has no attribute '{name}')" == nvidia
        )


def test_without_mindspore_the_version_says_so(monkeypatch):
    """Also where there is a GPU, whose plugin is MindSpore's."""

    def installed(package):
        if package == "MindSpore":
            raise version.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setenv("CUDA_CACHE_MAXSIZE", "1")
    monkeypatch.setattr(version.metadata, "version", installed)
    monkeypatch.setattr(ctypes, "CDLL", Loader(Driver(), broken=("libascendcl.so",)))
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runtime, "import_problem", lambda: "ModuleNotFoundError: No module named 'mindspore'")
    lines = list(version.installation())
    assert lines[2] == "MindSpore is not installed, NumPy 1.0"
    assert lines[4] == "GPU: MindSpore is not installed"
    assert lines[-1] == "MindSpore cannot be imported: ModuleNotFoundError: No module named 'mindspore'"

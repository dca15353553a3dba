"""What records say of this machine and this checkout."""

import os
import subprocess

import pytest

from ms_vireid.devices import host


@pytest.mark.parametrize(
    ("repository", "checkout", "named"),
    [(".", "pyproject.toml", True), (".", "lib/pyproject.toml", False), ("..", "pyproject.toml", False)],
)
def test_a_commit_is_that_of_this_projects_checkout_alone(repository, checkout, named, tmp_path, monkeypatch):
    """Not of a repository that it is installed or unpacked in."""
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    git = ["git", "-C", str(folder / repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(host, "CHECKOUT", folder / checkout)
    assert host.git_commit() is None  # nothing is committed yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert host.git_commit() == (said if named else None)


def test_changed_files_are_said_and_the_index_is_not_written(tmp_path, monkeypatch):
    """A command that is killed meanwhile would leave its lock, and git would refuse to work."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    file, index = tmp_path / "pyproject.toml", tmp_path / ".git/index"
    file.write_text("a")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(host, "CHECKOUT", file)
    os.utime(file, (1, 1))  # which git would write down
    before = index.read_bytes()
    commit = host.git_commit()
    assert not commit.endswith("-dirty")
    (tmp_path / "untracked").touch()
    assert host.git_commit() == commit
    file.write_text("b")
    assert host.git_commit() == f"{commit}-dirty"
    assert index.read_bytes() == before

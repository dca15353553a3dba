"""What records say of this machine and this checkout."""

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
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(host, "CHECKOUT", folder / checkout)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert host.git_commit() == (said if named else None)

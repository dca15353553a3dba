"""The commit that this project runs from, for records and reports."""

import subprocess

from ms_vireid.command.running import CHECKOUT


def git_commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" if files differ from it; None if this is not a git checkout,
    even if it is installed inside another repository."""
    folder = CHECKOUT.parent
    if not CHECKOUT.is_file() or not (folder / ".git").exists():
        return None
    # Without locks, which a killed command would leave to the user: `describe --dirty` takes one all the same.
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        status = [*git, "status", "--porcelain=v2", "--branch", "-uno"]
        head, *lines = subprocess.run(status, capture_output=True, check=True).stdout.splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    commit = head.removeprefix(b"# branch.oid ").decode()
    if commit == "(initial)":
        return None
    return commit if all(line.startswith(b"#") for line in lines) else f"{commit}-dirty"

"""The commit that this project runs from, for records and reports."""

import subprocess

from ms_vireid.command.running import CHECKOUT

# By `git rev-parse --local-env-vars`: a hook's, or another caller's, which would lead to another repository.
ELSEWHERE = ("ALTERNATE_OBJECT_DIRECTORIES", "CONFIG", "CONFIG_COUNT", "CONFIG_PARAMETERS", "OBJECT_DIRECTORY", "DIR")
ELSEWHERE += ("WORK_TREE", "IMPLICIT_WORK_TREE", "GRAFT_FILE", "INDEX_FILE", "NO_REPLACE_OBJECTS", "REPLACE_REF_BASE")
ELSEWHERE += ("PREFIX", "INTERNAL_SUPER_PREFIX", "SHALLOW_FILE", "COMMON_DIR")


def git_commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" if files differ from it; None if this is not a git checkout,
    even if it is installed inside another repository."""
    folder = CHECKOUT.parent
    if not CHECKOUT.is_file() or not (folder / ".git").exists():
        return None
    # Without locks, which a killed command would leave to the user: `describe --dirty` takes one all the same.
    git = ["env", *(f"-uGIT_{name}" for name in ELSEWHERE), "git", "--no-optional-locks", "-C", str(folder)]
    try:
        status = [*git, "status", "--porcelain=v2", "--branch", "-uno"]
        head, *lines = subprocess.run(status, capture_output=True, check=True).stdout.splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    commit = head.removeprefix(b"# branch.oid ").decode()
    if commit == "(initial)":
        return None
    return commit if all(line.startswith(b"#") for line in lines) else f"{commit}-dirty"

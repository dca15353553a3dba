"""What killed processes leave of a file is removed by the next that writes it; a place that cannot be written."""

import errno
import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.files.writing import atomic_write, check_output, lock, staged_folder, write_text

KILLED = """
import os, pathlib, signal, sys
from ms_vireid.files import writing
with getattr(writing, sys.argv[1])(pathlib.Path(sys.argv[2])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(block, path):
    """What a process leaves that is killed within a block; returns the name."""
    subprocess.run([sys.executable, "-c", KILLED, block, path], check=False)
    (left,) = os.listdir(path.parent)
    return left


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_that_writes_it_and_no_other_file(tmp_path):
    path = tmp_path / "a[1].json"
    left = killed("atomic_write", path)
    number = re.search(r"-(\d+)\.tmp", left)[1]
    names = [left.replace(number, other) for other in ("1", str(os.getppid()), "x", "9" * 10)]
    names += [left.replace(".ms_vireid-", ".ms_vireid-elsewhere"), left.replace(".a", ".b"), ".notes.tmp.json"]
    for name in names:
        (tmp_path / name).touch()
    earlier = tmp_path / left.replace(number, str(os.getpid()))  # in a container for example
    earlier.touch()
    write_text(tmp_path / "other.json", "{}")
    assert (tmp_path / left).exists()
    write_text(path, "{}")
    assert set(os.listdir(tmp_path)) == {path.name, "other.json", *names}


@pytest.mark.parametrize("name", ["features", "a.b", "x" * 200])
def test_what_a_killed_process_left_of_a_folder_is_removed_by_the_next(tmp_path, name):
    left = tmp_path / killed("staged_folder", tmp_path / name)
    mine = tmp_path / left.name.replace("ms_vireid", "x.ms_vireid")  # of the same kind of name
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with staged_folder(tmp_path / name) as folder:
        assert not left.exists()
        (folder / "b.npy").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {name, "b.npy", mine.name, "thesis.tex"}


def test_a_folder_that_fails_or_has_no_place_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"a: cannot be written \(.*not empty\); free space"), staged_folder(path):
        pass
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "b"):
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "thesis.tex"}


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "read-only", "pipe"])
def test_what_is_no_plain_file_of_the_users_is_not_replaced(tmp_path, kind):
    path, other = tmp_path / "a.json", tmp_path / "other"
    other.write_text("mine")
    make = {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(other),
        "dangling link": lambda: path.symlink_to(tmp_path / "gone"),
        "read-only": lambda: (path.write_text("mine"), path.chmod(0o444)),
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    before = os.lstat(path)
    for write in (lambda: write_text(path, "{}"), lambda: check_output(path)):
        with pytest.raises(InputError, match=f"{path}"):
            write()
    assert os.lstat(path) == before
    assert other.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_two_files_whose_names_begin_alike_have_two_temporary_ones(tmp_path):
    first, second = tmp_path / f"{'a' * 50}-visible.json", tmp_path / f"{'a' * 50}-infrared.json"
    with atomic_write(first) as one, atomic_write(second) as other:
        one.write_text("visible")
        other.write_text("infrared")
    assert (first.read_text(), second.read_text()) == ("visible", "infrared")


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set/cam1").mkdir(parents=True)
    (tmp_path / "set/1.jpg").touch()
    (tmp_path / "alias").symlink_to("set")


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("set/a.json", "set"),
        ("set/cam1/a.json", "set"),
        ("set/../set/1.jpg", "set/1.jpg"),
        ("alias/a.json", "set"),
        ("set/a.json", "alias"),
    ],
)
def test_an_output_that_is_read_or_lies_where_is_read_is_refused(data_set, path, read):
    with pytest.raises(InputError, match="which this command reads; choose another place"):
        check_output(Path(path), reads=[read])
    check_output(Path("beside.json"), reads=[read, "gone", None])


@pytest.mark.parametrize("name", ["file/a.json", "nowhere/a.json", "a" * 300 + ".json"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(.*\); nothing was written"):
        write_text(tmp_path / name, "{}")


def refuse(monkeypatch, name, number, fits=lambda *_: True, module=os):
    """Let a function of `os` fail with this error wherever its arguments fit."""
    original = getattr(module, name)

    def refusing(*arguments, **options):
        if fits(*arguments):
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, refusing)


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_file(descriptor):
    return not is_folder(descriptor)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EBADF])
@pytest.mark.parametrize(
    ("name", "fits", "lack"),
    [
        ("fsync", is_folder, "does not sync: a power loss"),
        ("fsync", is_file, "does not sync: a power loss"),
        ("chmod", lambda *_: True, "sets no permissions"),
    ],
)
def test_a_file_system_that_refuses_to_sync_or_to_set_permissions_is_written_to_with_one_note(
    tmp_path, monkeypatch, caplog, name, fits, lack, number
):
    refuse(monkeypatch, name, number, fits)
    for text in ("first", "second"):
        write_text(tmp_path / "a.json", text)
    assert (tmp_path / "a.json").read_text() == "second"
    (said,) = caplog.messages
    assert said.startswith(f"note: {tmp_path} is on a file system that {lack}")
    assert said.endswith(f"({os.strerror(number)})")


EARLIER, NEW = r"cannot be written \(.*\); the earlier a\.json is intact; ", r"the new file is there, but its folder "
STEPS = {
    "write": ("open", lambda path, *_: ".ms_vireid-" in str(path), EARLIER, "earlier"),
    "permissions": ("chmod", lambda *_: True, EARLIER, "earlier"),
    "sync": ("fsync", is_file, EARLIER, "earlier"),
    "replace": ("replace", lambda *_: True, EARLIER, "earlier"),
    "sync of the folder": ("fsync", is_folder, NEW, "new"),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", STEPS)
def test_an_error_of_the_disk_says_which_file_is_there_at_each_step(tmp_path, monkeypatch, step, number):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    name, fits, said, there = STEPS[step]
    refuse(monkeypatch, name, number, fits)
    with pytest.raises(InputError, match=said):
        write_text(path, "new")
    assert path.read_text() == there
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="nothing was written" if there == "earlier" else said):
        write_text(tmp_path / "b.json", "new")


HOLDER = """
import errno, fcntl, os, pathlib, sys
number = int(sys.argv[2])
def without(*_):
    raise OSError(number, os.strerror(number))
if number:
    fcntl.flock = without
from ms_vireid.files.writing import lock
held = lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""
WITHOUT_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EIO, errno.EBADF, errno.EPERM, errno.EACCES]


def holder(path, number):
    """A process that holds a lock until it reads a line, where `flock` fails with this error (0: works)."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [0, errno.ENOSYS, errno.EINVAL])
def test_two_processes_are_kept_apart_and_a_killed_one_lets_the_next_in(tmp_path, monkeypatch, caplog, number):
    path = tmp_path / "lock"
    if number:
        refuse(monkeypatch, "flock", number, module=fcntl)
    with holder(path, number) as first:
        assert first.stdout.readline() == "held\n"
        remedy = f"choose another --output, or remove {path} if nobody is" if number else "choose another --output"
        with pytest.raises(InputError) as refused:
            lock(path)
        here = f"process {first.pid} of {socket.gethostname()}"
        assert str(refused.value).startswith(f"{tmp_path}: {here}")
        assert str(refused.value).endswith(f" is using it; {remedy}")
        first.kill()
    lock(path).release()
    noted = [f"note: {tmp_path} is on a file system without locks; run one process there at a time"] if number else []
    assert caplog.messages == noted


@pytest.mark.parametrize("number", WITHOUT_LOCKS)
def test_a_file_system_without_locks_is_written_to_and_one_that_cannot_be_written_is_not(tmp_path, monkeypatch, number):
    refuse(monkeypatch, "flock", number, module=fcntl)
    lock(tmp_path / "lock").release()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"lock: cannot be written \(.*\); choose another --output$"):
        lock(tmp_path / "nowhere/lock")


def test_a_lock_of_another_process_with_the_same_number_or_of_a_copied_folder_is_not_believed(tmp_path, monkeypatch):
    refuse(monkeypatch, "flock", errno.ENOSYS, module=fcntl)
    path, host = tmp_path / "lock", socket.gethostname()
    for left in (f"{os.getppid()}\n{host}\n5\n", f"{2**22 + 1}\n{host}\n"):  # started at another time; never started
        path.write_text(left)
        lock(path).release()
    path.write_text("4166\nelsewhere\n")
    with pytest.raises(InputError, match=f"process 4166 of elsewhere is using it; .* or remove {path} if nobody"):
        lock(path)
    assert path.exists()

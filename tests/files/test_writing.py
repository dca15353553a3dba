"""What killed processes leave of a file is removed by the next that writes it; a place that cannot be written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.files.writing import atomic_write, check_output, staged_folder, write_text

KILLED_IN_A_FILE = """
import os, pathlib, signal, sys
from ms_vireid.files.writing import atomic_write
with atomic_write(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_that_writes_it_and_no_other_file(tmp_path):
    path = tmp_path / "a[1].json"
    subprocess.run([sys.executable, "-c", KILLED_IN_A_FILE, path], check=False)
    (left,) = os.listdir(tmp_path)
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


KILLED = """
import os, pathlib, signal, sys
from ms_vireid.files.writing import staged_folder
with staged_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "a.npy").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["features", "a.b", "x" * 200])
def test_what_a_killed_process_left_of_a_folder_is_removed_by_the_next(tmp_path, name):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    (left,) = tmp_path.iterdir()
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
    with pytest.raises(InputError, match="which is read; choose another place"):
        check_output(Path(path), reads=[read])


@pytest.mark.parametrize(
    ("path", "read"), [("set/a.json", "set/1.jpg"), ("settings.json", "set"), ("set/a.json", "gone"), ("a.json", None)]
)
def test_an_output_beside_what_is_read_is_taken(data_set, path, read):
    check_output(Path(path), reads=[read])


@pytest.mark.parametrize("name", ["file/a.json", "nowhere/a.json", "a" * 300 + ".json"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(.*\); nothing was written"):
        write_text(tmp_path / name, "{}")

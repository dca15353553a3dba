"""What killed processes leave of a file is removed by the next that writes it; a place that cannot be written."""

import os
import socket
import subprocess
import sys

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.files.writing import write_text


def name_of(number):
    return f".a.{socket.gethostname()[:40]}-{number}.tmp.json"


def test_what_a_killed_process_left_is_removed_and_no_other_file(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [".a.elsewhere-1.tmp.json", name_of(os.getppid()), name_of("x"), ".b.json", name_of(ended.pid)[:-5]]
    for name in (*kept, name_of(ended.pid)):
        (tmp_path / name).touch()
    write_text(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *kept}


@pytest.mark.parametrize("name", ["file/a.json", "nowhere/a.json", "a" * 300 + ".json"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(.*\); nothing was written"):
        write_text(tmp_path / name, "{}")

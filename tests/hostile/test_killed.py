"""A part of tests/tools/killed.py: a command killed at some moments, and that the harness sees what it is for."""

import shutil

import pytest

from tests.tools import killed


def test_a_killed_command_loses_nothing_and_makes_nothing_wrong(good, tmp_path):
    pristine = shutil.copytree(good, tmp_path / "pristine", symlinks=True)
    found = killed.tally(pristine, "retrieve --save-index", moments=3, seed=1)
    assert found.killed
    assert found.lost == found.wrong == found.left == []
    assert found.longest_s < killed.ALONE_S


@pytest.mark.parametrize(
    ("code", "end", "lost", "wrong"), [("0", "right", 0, 0), ("1", "right", 1, 0), ("0", "other", 0, 1)]
)
def test_what_is_lost_or_wrong_is_found(tmp_path, monkeypatch, code, end, lost, wrong):
    (tmp_path / "pristine").mkdir()
    argv = ("-c", f"import sys, time; time.sleep(0.1); sys.exit({code})")
    monkeypatch.setitem(killed.COMMANDS, "planted", killed.Command(argv, lambda folder: {"end": end}))
    monkeypatch.setattr(killed, "undisturbed", lambda *_: ({"end": "right"}, 0.01))
    found = killed.tally(tmp_path / "pristine", "planted", moments=1, seed=0)
    assert (found.killed, len(found.lost), len(found.wrong)) == (1, lost, wrong)

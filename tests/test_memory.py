"""Memory that this process could still get."""

from types import SimpleNamespace

import pytest

from ms_vireid.command import memory


@pytest.mark.parametrize(
    ("limit", "statistics", "free"),
    [
        ("1000", "file 800\ninactive_file 600\nactive_file 200\n", 700),
        ("1000", "file 800\n", 100),
        ("1000", None, 100),
        ("max", "inactive_file 600\n", 5000),
    ],
)
def test_pictures_that_a_container_has_read_are_not_memory_that_is_lost(limit, statistics, free, tmp_path, monkeypatch):
    (tmp_path / "limit").write_text(f"{limit}\n")
    (tmp_path / "used").write_text("900\n")
    if statistics:
        (tmp_path / "memory.stat").write_text(statistics)
    monkeypatch.setattr(memory, "_CGROUPS", [(tmp_path, "limit", "used", "inactive_file")])
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: SimpleNamespace(free=0))
    assert memory.available_memory() == free

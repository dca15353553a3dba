"""Every row of every table on the stand-in GPU."""

import pytest

from ms_vireid.ablations.tables import list_tables, load_table


@pytest.mark.parametrize("name", list_tables())
def test_every_row_trains_and_is_evaluated(pynative_worker, name):
    """In PyNative: compiling all rows takes minutes; what their losses and models compile to is in
    test_stand_in_training.py."""
    rows = {row["name"]: row["status"] for row in pynative_worker.do("run_table", name, "train.program=operators")}
    ours = [row.name for row in load_table(name).rows if row.config]
    assert {row: rows[row] for row in ours} == dict.fromkeys(ours, "complete")

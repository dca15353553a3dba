"""Tiny checkpoints of every model, made once, on one data set."""

import pytest

from ms_vireid.data.readers import read_data
from tests.tiny_models import tiny_config, write_checkpoint


@pytest.fixture(scope="package")
def tree(tmp_path_factory):
    """Root of the data set."""
    return tmp_path_factory.mktemp("visualization") / "data"


@pytest.fixture(scope="package")
def checkpoints(tree):
    """By family, and another PMT as "pmt2"."""
    runs = tree.parent
    paths = {
        family: write_checkpoint(runs / family / "model.safetensors", family, tree) for family in ("pmt", "agw", "mun")
    }
    return paths | {"pmt2": write_checkpoint(runs / "pmt2" / "model.safetensors", "pmt", tree, "seed=1")}


@pytest.fixture(scope="package")
def data(tree, checkpoints):
    return read_data(tiny_config("pmt", tree).data)

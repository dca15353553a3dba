"""Whose grid a row of positions is: the user's, a carried configuration's, the model's own, a square, or asked for."""

from pathlib import Path

import numpy as np
import pytest

from ms_vireid.checkpoints.positions import source_grid
from ms_vireid.checkpoints.state_dict import StateDict
from ms_vireid.command.errors import InputError

CARRIED = {"data": {"image_size": [256, 64]}, "model": {"patch_size": 16, "stride": 16}}


def told(positions, model=(21, 10), stated=None, carried=None):
    weights = {"pos_embed": np.zeros((1, 1 + positions, 1)), "patch_embed.proj.weight": np.zeros((1, 3, 16, 16))}
    saved = StateDict(Path("a.pth"), weights, {}, meta={} if carried is None else {"config": carried})
    return source_grid(saved, weights, "pos_embed", model, stated)


@pytest.mark.parametrize(
    ("positions", "grid", "said"),
    [
        (210, (21, 10), None),  # the model's own
        (196, (14, 14), "its 196 positions are taken as 14x14 patches; model.pretrained_grid overrides this"),
        (64, (8, 8), "its 64 positions are taken as 8x8 patches; model.pretrained_grid overrides this"),
    ],
)
def test_it_is_the_model_s_own_or_a_square_which_is_said(caplog, positions, grid, said):
    assert told(positions) == grid
    assert [line.partition("a.pth: ")[2] for line in caplog.messages] == ([said] if said else [])


def test_what_the_user_states_goes_before_all_else(caplog):
    assert told(64, (8, 8), stated=(16, 4), carried=CARRIED) == (16, 4)
    assert told(64, (16, 4), stated=(4, 16)) == (4, 16)
    assert not caplog.messages
    with pytest.raises(InputError, match=r"model.pretrained_grid: 16x4 are 64 patches, it has 65 positions"):
        told(65, stated=(16, 4))


def test_the_configuration_that_a_file_carries_says_it(caplog):
    assert told(64, (8, 8), carried=CARRIED) == (16, 4)
    assert not caplog.messages
    assert told(100, carried=CARRIED) == (10, 10)  # which is of another number
    for carried in ({"model": 3}, {"data": []}, {"data": {"image_size": 3}, "model": CARRIED["model"]}, {}):
        assert told(64, carried=carried) == (8, 8)


@pytest.mark.parametrize(
    ("positions", "model", "line"),
    [
        (128, (6, 3), "its 128 positions are neither the model's 6x3 patches nor a square"),
        (0, (6, 3), "its 0 positions are neither the model's 6x3 patches nor a square"),
        (-1, (6, 3), "its -1 positions are neither the model's 6x3 patches nor a square"),
        (64, (16, 4), "its 64 positions may be 16x4 or 8x8 patches"),
    ],
)
def test_what_cannot_be_told_is_asked_for(positions, model, line):
    with pytest.raises(InputError, match=rf"a.pth: {line}.*: set model.pretrained_grid=\[ROWS,COLUMNS\]"):
        told(positions, model)


def test_weights_that_are_no_position_embedding_have_no_grid():
    saved = StateDict(Path("a.pth"), {}, {})
    assert source_grid(saved, {"pos_embed": np.zeros((2, 3))}, "pos_embed", (6, 3), None) is None

"""What other code asks of a model: defaults, and what is said of a model that does not answer."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mindspore import nn

from ms_vireid.command.errors import InputError
from ms_vireid.models.base import ReIDModel


class Chain(ReIDModel):
    def __init__(self, pooling):
        super().__init__()
        self.base = nn.SequentialCell(nn.ReLU(), nn.Sigmoid())
        self.bottleneck = nn.Identity()
        setattr(self, pooling, nn.Flatten())

    def path(self, modality):
        return *self.base, getattr(self, "pool", None) or self.flat, self.bottleneck


def test_the_first_cell_and_the_one_before_the_pooling_give_the_maps():
    model = Chain("pool")
    assert (model.first_map("infrared"), model.last_map()) == tuple(model.base)
    assert Chain("flat").first_map("infrared") is not None
    with pytest.raises(InputError, match=r"^Chain has no pool in its path: define last_map"):
        Chain("flat").last_map()


def test_a_model_that_does_not_say_its_path_is_named_with_the_remedy():
    for asked in (ReIDModel().first_map, lambda modality: ReIDModel().last_map(), ReIDModel().path):
        with pytest.raises(InputError, match=r"^ReIDModel defines no path, .* or export with --format mindir$"):
            asked("visible")


def test_a_model_that_takes_no_backbone_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"^a\.pth: ReIDModel defines no load_pretrained; define it .*=none$"):
        ReIDModel().load_pretrained(SimpleNamespace(path=Path("a.pth")))

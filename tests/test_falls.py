"""The study of trainings that fall over: what counts as a fall, and which pictures are flat."""

from types import SimpleNamespace

import numpy as np

from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tests.tools import falls as study
from tests.tools.falls import REMEDIES, PartlyFlat, configuration, falls, table

DEFAULTS = SimpleNamespace(overrides=[])


def test_a_fall_is_a_step_of_twice_the_largest_before_and_they_begin_anew():
    losses = [12.0] * 30 + [11.0] * 30 + [23.5, 24.0, 26.0] + [25.0] * 20 + [60.0]
    assert falls(losses) == [61, 84]
    assert falls([12.0] * 4 + [90.0] + [12.0] * 60) == []  # too early
    assert falls([11.0] * 30 + [14.0, 18.0, 21.0, 22.5, 30.0]) == [34]  # a rise over several steps
    assert falls([0.4, 0.4, 0.9, 0.4] * 20 + [1.5] + [0.4, 0.4, 0.9, 0.4] * 5) == []  # almost four times the median
    lines = table([{"remedy": "none", "losses": losses} for _ in range(2)]).splitlines()
    assert lines[1].split()[:5] == ["none", "2", "2", "4", "60.0"]
    assert lines[1].endswith("61 61")


def test_some_pictures_are_flat_and_dark_but_not_at_the_beginning():
    batches = PartlyFlat(configuration("none", 3, DEFAULTS))
    mean, deviation = (pixel.reshape(3, 1, 1) for pixel in (IMAGENET_MEAN, IMAGENET_STD))
    gray = [255 * (batches[step][0] * deviation + mean) for step in range(60)]
    flat = np.array([images.std((1, 2, 3)) < 4 for images in gray])
    assert not flat[: study.CALM_BEGIN].any()
    assert 0.04 < flat[study.CALM_BEGIN :].mean() < 0.09
    levels = np.concatenate([images[chosen].mean((1, 2, 3)) for images, chosen in zip(gray, flat, strict=True)])
    assert 4 < levels.min() < 15
    assert 50 < levels.max() < 61
    assert (batches[7][0] == batches[7][0]).all()


def test_every_remedy_is_another_training(monkeypatch):
    monkeypatch.setattr(study, "FLAT", 0.5)
    losses = {
        remedy: tuple(study.train(remedy, configuration(remedy, 0, DEFAULTS), study.CALM_BEGIN + 3))
        for remedy in REMEDIES
        if remedy.startswith(("none", "clip at 1", "half", "betas[1] 0.95", "LayerNorm's eps 1e-3"))
    }
    assert len(set(losses.values())) == len(losses) == 5

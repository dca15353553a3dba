"""The study of trainings that lose what they have learned: what counts as a fall, and which pictures are flat."""

from types import SimpleNamespace

import numpy as np

from tests.falls import MEAN, STD, PartlyFlat, falls, table


def test_a_fall_is_a_step_of_twice_the_largest_before_and_they_begin_anew():
    losses = [12.0] * 30 + [11.0] * 30 + [23.5, 24.0, 26.0] + [25.0] * 20 + [60.0]
    assert falls(losses) == [61, 84]
    assert falls([12.0] * 4 + [90.0] + [12.0] * 60) == []  # too early
    assert falls([11.0] * 30 + [14.0, 18.0, 21.0, 22.5, 30.0]) == [34]  # a rise over several steps
    assert falls([0.4, 0.4, 0.9, 0.4] * 20 + [1.5] + [0.4, 0.4, 0.9, 0.4] * 5) == []  # almost four times the median
    lines = table([{"side": "outside", "clip": clip, "losses": losses} for clip in (0.0, 0.0, 5.0)]).splitlines()
    assert lines[1].split()[:5] == ["outside", "0", "2", "2", "60.0"]
    assert lines[1].endswith("61 61")


def test_a_tenth_of_the_pictures_are_flat_and_dark():
    class Batches:
        sampler = None

        def __len__(self):
            return 50

        def __getitem__(self, step):
            return np.ones((64, 3, 4, 2), np.float32), np.arange(64)

    batches = PartlyFlat(Batches(), SimpleNamespace(seed=3))
    images = np.concatenate([batches[step][0] for step in range(50)])
    flat = (images != 1).any((1, 2, 3))
    assert 0.08 < flat.mean() < 0.12
    assert abs(255 * (images[flat] * STD + MEAN).mean() - 8) < 0.2
    assert (batches[7][0] == batches[7][0]).all()

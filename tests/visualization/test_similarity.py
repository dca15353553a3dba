"""Pairs across the modalities, and the overlap of distributions that are known."""

from math import erf, sqrt

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data.records import ImageSet
from ms_vireid.visualization.similarity import Similarities, draw_similarity, overlap, sample_similarities


def images_of(identities, infrared):
    count = len(identities)
    return ImageSet(tuple(range(count)), np.array(identities, np.int32), np.ones(count, np.int32), np.array(infrared))


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_the_overlap_of_two_normal_distributions(distance):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(10_000), rng.standard_normal(10_000) + distance
    shared = 1 - erf(distance / 2 / sqrt(2))
    assert overlap(first, second) == pytest.approx(shared, abs=0.03)  # 60 bins of noise of 10,000 draws


def test_the_overlap_of_what_is_apart_and_of_what_is_alike():
    values = np.linspace(0, 1, 1000)
    assert overlap(values, values + 5) == 0
    assert overlap(values, values) == 1
    assert overlap(np.ones(5), np.ones(3)) == 1
    assert overlap(values, values + 0.5) == pytest.approx(0.5, abs=0.02)


def test_pairs_are_across_the_modalities_distinct_and_of_the_right_identities():
    rng = np.random.default_rng(1)
    images = images_of(rng.integers(0, 6, 40), rng.random(40) < 0.4)
    # The feature is the identity's own axis: the cosine of a pair is 1 where it is the same, else 0.
    features = np.eye(6, dtype=np.float32)[images.identities]
    found = sample_similarities(features, images, pairs=10_000)
    visible, infrared = images.identities[~images.infrared], images.identities[images.infrared]
    same = int((visible[:, None] == infrared[None, :]).sum())
    assert (len(found.positive), len(found.negative)) == (same, visible.size * infrared.size - same)  # all there are
    assert (found.positive == 1).all()
    assert (found.negative == 0).all()
    few = sample_similarities(features, images, seed=3, pairs=7)
    assert (len(few.positive), len(few.negative)) == (7, 7)


def test_all_pairs_are_drawn_once():
    images = images_of([0, 1, 0, 1, 1], [False, False, True, True, True])
    features = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [0.28, 0.96]], np.float32)
    found = sample_similarities(features, images)
    assert sorted(found.positive.tolist()) == pytest.approx([0, 0.936, 0.96], abs=1e-6)
    assert sorted(found.negative.tolist()) == pytest.approx([0.28, 0.8, 0.8], abs=1e-6)


def test_one_identity_has_no_negative_pair():
    images = images_of([4, 4], [False, True])
    with pytest.raises(InputError, match="no visible-infrared pair of different identities among 2 pictures"):
        sample_similarities(np.eye(2, dtype=np.float32), images)


def test_a_panel_for_each_checkpoint_names_the_overlap():
    rng = np.random.default_rng(0)
    apart = Similarities(rng.normal(0.8, 0.01, 100), rng.normal(0.1, 0.01, 100))
    alike = Similarities(np.linspace(0, 1, 100), np.linspace(0, 1, 100))
    figure = draw_similarity([alike, apart], ["before", "after"])
    assert [axes.get_title().splitlines()[0] for axes in figure.axes] == ["before", "after"]
    assert "overlap 100.0%" in figure.axes[0].get_title()
    assert "overlap 0.0%, means 0.80 and 0.10" in figure.axes[1].get_title()
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()

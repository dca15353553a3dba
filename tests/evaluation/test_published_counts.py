"""Queries and galleries of SYSU-MM01, counted on a tree of empty files with the real set's numbers.

Published logs give 96 test identities, 3,803 queries and single-shot galleries of 301 (all) and 112 (indoor) pictures.
So cameras 1 and 2 have 112 pairs with an identity and cameras 4 and 5 another 189. How those are shared out between
the two, and the queries between cameras 3 and 6, is chosen here; only what camera 3 sees depends on it.
"""

import numpy as np
import pytest

from ms_vireid.data.readers import read_sysu_mm01
from ms_vireid.data.records import ImageSet
from ms_vireid.evaluation.protocol import sysu_mm01_trials, trials_checksum

TEST_IDENTITIES = range(3, 3 + 5 * 96, 5)
SEEN = {  # of the test identities by each camera
    1: TEST_IDENTITIES[:56],
    2: TEST_IDENTITIES[:56],
    3: TEST_IDENTITIES,
    4: TEST_IDENTITIES[:94],
    5: TEST_IDENTITIES[1:],
    6: TEST_IDENTITIES[:94],
}
PICTURES = 20  # of each identity and camera
MORE = {(6, TEST_IDENTITIES[0]): 23}  # so that 20 * (96 + 94) + 3 = 3,803 pictures are infrared


def write_tree(root) -> ImageSet:
    (root / "exp").mkdir(parents=True)
    for split, identities in (("train", [1]), ("val", [2]), ("test", TEST_IDENTITIES)):
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, identities)) + "\n")
    for camera, identities in SEEN.items():
        for identity in (1, 2, *identities):
            folder = root / f"cam{camera}" / f"{identity:04d}"
            folder.mkdir(parents=True)
            for number in range(MORE.get((camera, identity), PICTURES)):
                (folder / f"{number + 1:04d}.jpg").touch()
    return read_sysu_mm01(root).test


@pytest.fixture(scope="module")
def test_set(tmp_path_factory) -> ImageSet:
    return write_tree(tmp_path_factory.mktemp("sysu") / "SYSU-MM01")


@pytest.mark.parametrize(
    ("mode", "shots", "pictures", "identities", "seen_from_camera_3", "checksum"),
    [
        ("all", 1, 301, 96, 245, "054ab41af6a0b8c8"),
        ("indoor", 1, 112, 56, 56, "582ef79d257c4437"),
        ("all", 10, 3010, 96, 2450, "010d365baa483c6c"),
        ("indoor", 10, 1120, 56, 560, "fb241a706daecae9"),
    ],
)
def test_queries_and_galleries_have_as_many_pictures_as_published_and_are_a_fixed_function_of_the_tree(
    test_set, mode, shots, pictures, identities, seen_from_camera_3, checksum
):
    """The checksum over all ten trials is the one that `evaluate.py` prints, wherever the tree lies."""
    trials = sysu_mm01_trials(test_set, mode, shots)
    for trial in trials:
        assert len(trial.query) == 3803
        assert len(np.unique(test_set.identities[trial.query])) == 96
        assert len(trial.gallery) == len(np.unique(trial.gallery)) == pictures
        assert len(np.unique(test_set.identities[trial.gallery])) == identities
        assert np.count_nonzero(test_set.cameras[trial.gallery] != 2) == seen_from_camera_3
    assert trials_checksum(test_set, trials) == checksum

"""ModalitySharedEnhancementLoss: hand-worked batches, the self mask, and arguments."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.losses import ModalitySharedEnhancementLoss
from parity import equations

from . import cases

LABELS = np.int32([5, 5, 2, 2, 5, 5, 2, 2])


def test_value_by_hand():
    # Identity 5: visible 0 and 2, infrared 5 and 6. Intra, cross, squared difference:
    # 0: 2, (5 + 6)/2 = 5.5, 12.25; 2: 2, (3 + 4)/2 = 3.5, 2.25; 5: 1, (5 + 3)/2 = 4, 9; 6: 1, (6 + 4)/2 = 5, 16.
    # Identity 2 is a single point: 0. 39.5 over 2PK = 8 rows.
    features = np.float32([[0], [2], [7], [7], [5], [6], [7], [7]])
    value, _ = cases.value_and_gradient(ModalitySharedEnhancementLoss(2), features, LABELS)
    np.testing.assert_allclose(value, 39.5 / 8, rtol=1e-6)  # float32 rounding


def test_cosine_value_by_hand():
    # Identity 5: visible rows at right angles (intra 1), infrared rows both along the first (intra 0). Cross:
    # (1, 0): 0 -> (1 - 0)^2; (0, 1): 1 -> 0; infrared twice: (0 + 1)/2 -> 1/4. Identity 2: 0. 1.5 over 8 rows.
    features = np.float32([[1, 0], [0, 3], [1, 1], [1, 1], [2, 0], [9, 0], [1, 1], [1, 1]])
    value, _ = cases.value_and_gradient(ModalitySharedEnhancementLoss(2, "cosine"), features, LABELS)
    np.testing.assert_allclose(value, 1.5 / 8, rtol=1e-6)  # float32 rounding


def test_equal_rows_of_one_modality_are_still_pairs():
    # Two visible rows coincide: their distance 0 still counts among the K - 1 = 2. Visible 0, 0, 3; infrared 1, 1, 1.
    # Intra, cross, squared difference: 0: 3/2, 1, 1/4, twice; 3: 3, 2, 1; infrared: 0, (1 + 1 + 2)/3, 16/9, thrice.
    # (1/2 + 1 + 16/3) / 6.
    features, labels = np.float32([[0], [0], [3], [1], [1], [1]]), np.zeros(6, np.int32)
    value, gradient = cases.value_and_gradient(ModalitySharedEnhancementLoss(3), features, labels)
    np.testing.assert_allclose(value, (0.5 + 1 + 16 / 3) / 6, rtol=1e-6)  # float32 rounding
    assert np.isfinite(gradient).all()


def test_self_is_not_recognised_by_a_small_distance():
    # Distances of 1e-9 count as much as others: the loss is quadratic in the features' scale, a power of two.
    features, labels = equations.random_batch(2, 3, 4, seed=15)
    loss = ModalitySharedEnhancementLoss(3)
    value, _ = cases.value_and_gradient(loss, features, labels)
    small, _ = cases.value_and_gradient(loss, features * np.float32(2**-30), labels)
    np.testing.assert_allclose(small * 2.0**60, value, rtol=1e-6)  # float32 rounding


def test_other_identities_do_not_matter():
    features, labels = equations.random_batch(2, 2, 3, seed=12)
    alone = np.concatenate([features[:2], features[4:6]])
    together, _ = cases.value_and_gradient(ModalitySharedEnhancementLoss(2), features, labels)
    first, _ = cases.value_and_gradient(ModalitySharedEnhancementLoss(2), alone, labels[[0, 1, 4, 5]])
    other = np.concatenate([features[2:4], features[6:]])
    second, _ = cases.value_and_gradient(ModalitySharedEnhancementLoss(2), other, labels[[2, 3, 6, 7]])
    np.testing.assert_allclose(together, (first + second) / 2, rtol=1e-6)  # float32 rounding


@pytest.mark.parametrize("instances", [1, 0, 2.5])
def test_a_wrong_number_of_instances_raises(instances):
    with pytest.raises(ValueError, match=f"num_instances must be an integer >= 2, not {instances}"):
        ModalitySharedEnhancementLoss(instances)


def test_a_wrong_distance_raises():
    with pytest.raises(ValueError, match="distance must be one of euclidean, cosine, not 'manhattan'"):
        ModalitySharedEnhancementLoss(4, distance="manhattan")


def test_rows_that_are_not_a_multiple_of_2k_raise():
    with pytest.raises(ValueError, match="positive multiple of 6, not 8"):
        ModalitySharedEnhancementLoss(3)(ms.ops.zeros((8, 2)), ms.Tensor(LABELS))

"""ModalityPrototypes: what is remembered and what is not, and arguments. The recurrence is the ladder's."""

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.models.prototypes import ModalityPrototypes

IDENTITIES, INSTANCES, WIDTH, CLASSES = 2, 2, 3, 5
ROWS = IDENTITIES * INSTANCES
BETAS = np.linspace(1e-8, 1, 5).astype(np.float32)
MEMORY = pytest.mark.parametrize("memory", ["slots", "identity"])


def build(memory="slots"):
    return ModalityPrototypes(IDENTITIES, INSTANCES, WIDTH, memory, CLASSES)


def iteration(number):
    """Features float32 [3, PK, C] and labels [PK] of different identities each time."""
    rng = np.random.default_rng([1, number])
    labels = np.repeat(rng.permutation(CLASSES)[:IDENTITIES], INSTANCES).astype(np.int32)
    return rng.normal(size=(3, ROWS, WIDTH)).astype(np.float32), labels


def test_the_smallest_beta_keeps_the_first_iteration_but_passes_a_gradient():
    module = build()
    first, _ = iteration(0)
    module(ms.Tensor(first), 1e-8)
    features, _ = iteration(1)
    value = lambda z: module(z, 1e-8, None).sum()  # noqa: E731
    gradient = ms.grad(value)(ms.Tensor(features)).asnumpy()
    np.testing.assert_allclose(module.memory.asnumpy(), first, rtol=0, atol=1e-7)
    np.testing.assert_allclose(gradient, 1e-8, rtol=1e-6)


def test_an_identity_that_was_not_seen_starts_with_its_own_features():
    module = build("identity")
    features = ms.Tensor(iteration(0)[0])
    module(features, 0.25, ms.Tensor([1, 1, 4, 4], ms.int32))
    assert module.seen.asnumpy().reshape(3, CLASSES, INSTANCES)[:, :, 0].tolist() == 3 * [[0, 1, 0, 0, 1]]
    prototypes = module(3 * features, 0.25, ms.Tensor([4, 4, 0, 0], ms.int32)).asnumpy()
    # Identity 4's rows were the batch's last two; identity 0 is new.
    expected = 3 * features.asnumpy()
    expected[:, :2] = 0.25 * expected[:, :2] + 0.75 * features.asnumpy()[:, 2:]
    np.testing.assert_allclose(prototypes, expected, rtol=1e-6)


@MEMORY
def test_a_copy_of_the_buffers_goes_on_in_the_same_way(memory):
    module, restored = build(memory), build(memory)
    weights = np.random.default_rng(0).normal(size=(3, WIDTH, WIDTH)).astype(np.float32)
    module.projection.set_data(ms.Tensor(weights))
    for number in range(3):
        features, labels = iteration(number)
        module(ms.Tensor(features), float(BETAS[number]), ms.Tensor(labels))
    for target, source in zip(restored.get_parameters(), module.get_parameters(), strict=True):
        target.set_data(ms.Tensor(source.asnumpy()))
    features, labels = iteration(3)
    arguments = ms.Tensor(features), float(BETAS[3]), ms.Tensor(labels)
    np.testing.assert_array_equal(module(*arguments).asnumpy(), restored(*arguments).asnumpy())


def test_wrong_features_and_missing_labels_raise():
    rows = ms.ops.zeros((3, 6, WIDTH))
    for message, wrong in (
        (r"made for features \(3, 4, 3\), not \(3, 6, 3\)", lambda: build()(rows, 0.5)),
        ("needs the labels", lambda: build("identity")(rows[:, :4], 0.5)),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()

"""Losses and pooling on a CPU: the same bit by bit at each call, however many threads MindSpore shares an operator's
numbers among. It tries that out in the first 20 calls."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.backends.choosing import backend_named
from ms_vireid.losses import logarithms
from ms_vireid.models.layers import GeM

BATCHES, ROWS, CLASSES = 40, 4, 3  # a batch's mean shows the last bit of a row in few of them
CALLS = 20


class Losses(nn.Cell):
    def __init__(self):
        super().__init__()
        self.gems = nn.CellList([GeM(3.0), GeM(2.5), GeM(3.0, learned=True)])

    def construct(self, logits, labels, differences):
        """Of each batch the cross entropy, of each number softplus, and of all as maps GeM in three ways."""
        values = ()
        for batch in range(BATCHES):
            values += (logarithms.cross_entropy(logits[batch], labels),)
        pooled = ()
        for gem in self.gems:
            pooled += (gem(ops.abs(differences).reshape(21, 21, 1, 1)),)
        return ops.stack(values), logarithms.softplus(differences), *pooled


def outcomes(cell):
    """Of each output of a compiled cell: what it is at each call, as bytes."""
    draw = np.random.default_rng(0)
    logits = Tensor(draw.normal(0, 0.03, (BATCHES, ROWS, CLASSES)).astype(np.float32))
    differences = Tensor(draw.normal(0, 3, 441).astype(np.float32))
    labels = Tensor(np.arange(ROWS) % CLASSES, ms.int32)

    of_inputs = backend_named("graph").accelerate(cell).compile(cell)
    calls = [[value.asnumpy().tobytes() for value in of_inputs(logits, labels, differences)] for _ in range(CALLS)]
    return zip(*calls, strict=True)


def test_losses_and_pooling_are_the_same_at_each_call():
    cell = Losses()
    assert [len(set(seen)) for seen in outcomes(cell)] == [1, 1, 1, 1, 1]


def test_losses_are_numpys_at_small_and_large_numbers():
    softplus = logarithms.softplus
    given = np.array([-100, -30, -12, -1, 0, 1e-6, 3, 19.9, 20.1, 100], np.float32)
    value, gradient = ms.value_and_grad(lambda x: softplus(x).sum())(Tensor(given))
    exact = np.logaddexp(0, given.astype(np.float64))
    assert np.allclose(softplus(Tensor(given)).asnumpy(), exact, rtol=1e-6, atol=1e-6)
    assert np.allclose(gradient.asnumpy(), 1 - np.exp(-exact), rtol=1e-6, atol=1e-6)
    logits = np.float32([[0, 0, 0], [1e4, 0, -1e4], [0, 90, 1], [-200, -199, -200]])
    labels = np.arange(4) % 3
    exact = np.logaddexp.reduce(logits.astype(np.float64), 1) - logits[range(4), labels]
    value, gradient = ms.value_and_grad(logarithms.cross_entropy)(Tensor(logits), Tensor(labels, ms.int32))
    assert np.allclose(value.asnumpy(), exact.mean(), rtol=1e-6)
    shares = np.exp(logits - np.logaddexp.reduce(logits.astype(np.float64), 1)[:, None])
    assert np.allclose(gradient.asnumpy(), (shares - np.eye(3)[labels]) / 4, atol=1e-6)

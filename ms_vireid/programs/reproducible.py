"""CPU replacements that are bitwise reproducible, for every program.

MindSpore splits an operator's elements into as many parts as were fastest in its first calls. At the end of each part,
elements that do not fill a vector get their logarithms and powers from other code, so the last bit of a loss depends on
how long a process has run, and a resumed training could differ from one that never stopped. In float64 the difference
vanishes.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_vireid.models.layers import GEM_MIN, GeM

LINEAR = 20.0  # above it softplus(x) is x in float32


def cross_entropy(self: nn.CrossEntropyLoss, logits: Tensor, labels: Tensor) -> Tensor:
    below = logits - ops.stop_gradient(logits.max(-1, keepdims=True))  # [n, N], at most 0
    sums = ops.exp(below).sum(-1, keepdims=True)  # [n, 1]
    logarithms = below - ops.log(sums.astype(ms.float64)).astype(ms.float32)  # of the softmax
    return -ops.gather_elements(logarithms, 1, labels.astype(ms.int32).unsqueeze(1)).mean()


def softplus(x: Tensor) -> Tensor:
    large = x > LINEAR
    small = ops.where(large, 0.0, x).astype(ms.float64)
    return ops.where(large, x, ops.log(1.0 + ops.exp(small)).astype(ms.float32))


def gem(self: GeM, x: Tensor) -> Tensor:
    x = x.astype(ms.float32)
    power = self.trained_power().astype(ms.float64) if self.learned else self.power
    if self.learned:
        x = _power(x.clamp(min=GEM_MIN), power)
    elif self.power == 3.0:
        x = x * x * x
    else:
        positive = x > 0
        x = _power(ops.where(positive, x, 1.0), power) * positive
    return _power(x.mean((2, 3)) + self.eps, 1.0 / power)


def _power(x: Tensor, power: Tensor | float) -> Tensor:
    """x^power of float32 x > 0; power: float64 [1] or a number."""
    return ops.exp(ops.log(x.astype(ms.float64)) * power).astype(ms.float32)


TABLE = {nn.CrossEntropyLoss.construct: cross_entropy, GeM.construct: gem, ops.softplus: softplus}

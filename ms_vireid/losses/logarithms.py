"""Functions with a logarithm, the same bit for bit at each call.

MindSpore on a CPU splits an operator's elements into as many parts as were fastest in its first calls. At the end of
each part, elements that do not fill a vector get their logarithms and powers from other code, so the last bit of a loss
would depend on how long a process has run, and a resumed training could differ from one that never stopped. In float64
the difference vanishes (docs/evidence/reliability.md).
"""

import mindspore as ms
from mindspore import Tensor, ops

from ms_vireid.replaceable import replaceable

LINEAR = 20.0  # above it softplus(x) is x in float32


@replaceable("graph")
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows of -log softmax(logits)[label]: float32 [n, N], int32 [n] in 0 ... N - 1 -> scalar."""
    below = logits - ops.stop_gradient(logits.amax(-1).unsqueeze(-1))  # [n, N], at most 0
    sums = ops.exp(below).sum(-1, keepdims=True)  # [n, 1]
    logarithms = below - ops.log(sums.astype(ms.float64)).astype(ms.float32)  # of the softmax
    return -ops.gather_elements(logarithms, 1, labels.astype(ms.int32).unsqueeze(1)).mean()


@replaceable("graph")
def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) of float32 x of any shape."""
    large = x > LINEAR
    small = ops.where(large, 0.0, x).astype(ms.float64)
    return ops.where(large, x, ops.log(1.0 + ops.exp(small)).astype(ms.float32))

"""Replacements that the tables of GPU and Ascend share."""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

from ms_vireid.losses import distance, logarithms
from ms_vireid.losses.batch import check_batch, same_labels
from ms_vireid.losses.msel import ModalitySharedEnhancementLoss
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import vit
from ms_vireid.models.layers import GEM_MIN, GeM, LayerNorm
from ms_vireid.models.noise import Noise
from ms_vireid.replaceable import Replacement

cross_entropy = mint.nn.functional.cross_entropy
product, product_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)


class _Heads(nn.Cell):
    """Queries, keys and values of all heads, [N, T, 3 * D] -> [N, heads, T, head_dim] each. Automatic differentiation
    would pad the gradient of each third to full size and add them."""

    def construct(self, qkv: Tensor, num_heads: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
        qkv = qkv.reshape(qkv.shape[0], qkv.shape[1], 3, num_heads, head_dim).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def bprop(
        self, qkv: Tensor, _num_heads: int, _head_dim: int, _out: tuple, gradients: tuple[Tensor, Tensor, Tensor]
    ) -> tuple:
        # By selection: MindSpore's Stack copies its tensors' addresses to the device.
        stacked = ops.where(_IS_QUERY, gradients[0], ops.where(_IS_KEY, gradients[1], gradients[2]))
        return stacked.permute(1, 3, 0, 2, 4).reshape(qkv.shape), 0, 0


class _GeM(nn.Cell):
    """As `GeM`, without the three more maps of automatic differentiation."""

    def construct(self, x: Tensor, power: float, eps: float) -> Tensor:
        cubed = x * ops.square(x) if power == 3.0 else x.pow(power)
        return (cubed.mean((2, 3)) + eps).pow(1.0 / power)

    def bprop(self, x: Tensor, power: float, _eps: float, out: Tensor, gradient: Tensor) -> tuple:
        rows, columns = x.shape[2:]
        grad_mean = gradient * out.pow(1.0 - power) * (1.0 / (rows * columns))
        squared = ops.square(x) if power == 3.0 else x.pow(power - 1.0)
        return squared * grad_mean.unsqueeze(-1).unsqueeze(-1), 0, 0


_IS_QUERY, _IS_KEY = (Tensor(np.arange(3).reshape(3, 1, 1, 1, 1) == i) for i in range(2))
heads, _gem = _Heads(), _GeM()


def attention(self: vit.Attention, x: Tensor, noise: Noise | None) -> Tensor:
    query, key, value = heads(self.qkv(x), self.num_heads, self.head_dim)  # [N, heads, T, head_dim]
    scores = product_transposed(query * self.head_dim**-0.5, key)  # [N, heads, T, T]
    out = product(ops.softmax(scores, -1), value).swapaxes(1, 2).reshape(x.shape)
    return self.proj_drop(self.proj(out), noise)


def gem(self: GeM, x: Tensor) -> Tensor:
    """In float32 throughout: these devices' logarithms are the same at each call."""
    if x.ndim != 4 or (not self.learned and self.power < 1.0):  # the gradient at 0 is infinite then
        return GeM.construct(self, x)
    x = x.astype(ms.float32)
    if self.learned:
        power = self.trained_power()
        return ((x.clamp(min=GEM_MIN).log() * power).exp().mean((2, 3)) + self.eps).pow(1.0 / power)
    return _gem(x if self.power == 3.0 else ops.relu(x), self.power, self.eps)


def layer_norm(self: LayerNorm, x: Tensor) -> Tensor:
    return nn.LayerNorm.construct(self, x) if _is_its_operator(self) else LayerNorm.construct(self, x)


@ops.constexpr(reuse_result=False)
def _is_its_operator(cell: LayerNorm) -> bool:
    """Whether MindSpore's operator within computes it: epsilon may have been set since."""
    operator = cell.layer_norm
    last = type(operator) is ops.LayerNorm and operator.begin_norm_axis == operator.begin_params_axis == -1
    return last and operator.epsilon == cell.epsilon


def total(self: StageLoss, values: tuple[Tensor, ...]) -> Tensor:
    """Skips products by 1, which take two launches each."""
    parts = ()
    for weight, value in zip(self.weights, values):  # noqa: B905 (graph mode does not know strict=)
        parts += (value if weight == 1.0 else weight * value,)
    sum_of_parts = parts[0]
    for part in parts[1:]:
        sum_of_parts = sum_of_parts + part
    return sum_of_parts


def safe_sqrt(squared: Tensor) -> Tensor:
    positive = squared >= distance.TINY
    return ops.sqrt(squared + ~positive) * positive


def msel(self: ModalitySharedEnhancementLoss, features: Tensor, labels: Tensor) -> Tensor:
    """Both equations by one weighted sum."""
    check_batch(features, labels, 2 * self.num_instances)
    shares = _shares(labels.shape[0], self.num_instances) * same_labels(labels, labels)  # [2PK, 2PK]
    difference = (self.pairwise(features) * shares).sum(-1)  # [2PK], the mean of Eq. 5 less that of Eq. 6
    return (difference * difference).mean()  # Eq. 7


@ops.constexpr
@cache
def _shares(rows: int, num_instances: int) -> Tensor:
    """Weights of distances between rows of one identity: 1 / (K - 1) within a modality, -1 / K across modalities, and 0
    from a row to itself: float32 [2PK, 2PK]."""
    infrared = np.arange(rows) >= rows // 2
    shares = np.where(infrared[:, np.newaxis] == infrared, 1 / (num_instances - 1), -1 / num_instances)
    np.fill_diagonal(shares, 0.0)
    return Tensor(shares.astype(np.float32))


# Costs: launches of a step without / with each row, on a GPU.
TABLE = {
    vit.Attention.construct: Replacement(attention, "on an Ascend PMT: 1,012 launches for 976; peak 12.4 GiB for 10.9"),
    # on an Ascend AGW: 581 launches for 576
    GeM.construct: Replacement(gem, "AGW: 727 launches for 720, MUN: 1,057 for 1,050"),
    # on an Ascend AGW: 628 for 576, MUN: 1,043 for 904
    logarithms.cross_entropy: Replacement(cross_entropy, "AGW: 769 launches for 720, MUN: 1,184 for 1,050"),
    logarithms.softplus: Replacement(ops.softplus),
    distance.safe_sqrt: Replacement(safe_sqrt, "PMT: 5 launches more"),
    ModalitySharedEnhancementLoss.construct: Replacement(msel, "PMT: 13 launches more"),
    StageLoss.total: Replacement(total),
}

"""The auxiliary generator of MUN (ICCV 2023, section 3.1): two intra-modality learners and a cross-modality learner."""

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform

from ms_vireid.config.models import check_pooled
from ms_vireid.models.layers import pointwise
from ms_vireid.models.resnet import batch_norm
from ms_vireid.replaceable import replaceable

SCALE_RANGE = (1e-3, 1.0)  # of the layer scales: the paper's (0, 1] with an end that a weight can be clamped to


def depthwise(channels: int, kernel: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """One kernel a channel, "same" padding with zeros, no bias; initialised as PyTorch does by default."""
    return kind(
        channels,
        channels,
        kernel,
        pad_mode="pad",
        padding=kernel // 2,
        group=channels,
        weight_init=Uniform(1.0 / kernel),
    )


class ResidualDepthwise(nn.Conv2d):
    """A depth-wise convolution of ReLU(x), plus x, Eq. 4; x float32 [N, C, H, W]."""

    @replaceable("graph")
    def construct(self, x: Tensor) -> Tensor:
        # Named: in a graph `super()` is asked of the cell's class, and in a subclass would be this method again.
        return nn.Conv2d.construct(self, ops.relu(x)) + x


class Concatenation(nn.Cell):
    """Feature maps [N, C, H, W] -> [N, sum of C, H, W]; a cell, so that training can recompute it."""

    def construct(self, *maps: Tensor) -> Tensor:
        return ops.cat(maps, 1)


def transposed(channels: int, ratio: int) -> nn.Conv2dTranspose:
    """Kernel and stride `ratio`, so that each input pixel becomes a patch; no bias; initialised as PyTorch does by
    default."""
    init = Uniform(1.0 / (ratio * math.sqrt(channels)))
    return nn.Conv2dTranspose(channels, channels, ratio, stride=ratio, pad_mode="valid", weight_init=init)


def _layer_scale(channels: int, kind: str) -> Parameter:
    """A factor that starts at 1: [1, C, 1, 1] for kind "channel", [1, 1, 1, 1] for "scalar"."""
    return Parameter(ops.ones((1, channels if kind == "channel" else 1, 1, 1), ms.float32))


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps [N, C, H, W] -> two of [N, C / 2, H, W]."""
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


@replaceable("graph")
def scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of x [N, C, H, W], times a layer scale."""
    return scale * layer(x)


class IntraModalityLearner(nn.Cell):
    """IML, Eqs. 1-5: patterns of one modality in several receptive fields.

    Where the paper is silent: the convolutions have no bias, zeros pad the borders, and all start as PyTorch
    initialises them by default.

    Args:
        channels: C, even.
        expansion: width of the inverted residual over C, 4 in the paper.
        kernel_order: odd sizes of the depth-wise kernels on the first and the second half of the channels. Eq. 2 says 5
            and 7; the sentence before it says 7 and 5.
        layer_scale: I_scale for each "channel", as in the paper that introduced layer scales, or one "scalar"; the MUN
            paper only calls it a factor. The BatchNorm of Eq. 9 undoes one scalar for a whole modality, but not factors
            that differ.
    """

    def __init__(
        self, channels: int, expansion: int = 4, kernel_order: tuple[int, int] = (5, 7), layer_scale: str = "channel"
    ):
        super().__init__()
        first, second = kernel_order
        self.first = depthwise(channels // 2, first)
        self.second = depthwise(channels // 2, second)
        self.bn1 = batch_norm(channels)
        self.expand = pointwise(channels, expansion * channels, bias=False)
        self.spatial = depthwise(expansion * channels, 3, ResidualDepthwise)
        self.bn2 = batch_norm(expansion * channels)
        self.reduce = pointwise(expansion * channels, channels, bias=False)
        self.scale = _layer_scale(channels, layer_scale)

    @replaceable("numba", "cuda")
    def construct(self, x: Tensor) -> Tensor:
        """First-stage features of one modality, float32 [N, C, H, W] -> [N, C, H, W]."""
        first, second = halves(x)  # [N, C / 2, H, W] each, Eq. 1
        x = ops.cat((self.first(first), self.second(second)), 1)  # [N, C, H, W], Eq. 2
        x = self.expand(self.bn1(x))  # [N, 4C, H, W], Eq. 3
        x = self.spatial(x)  # [N, 4C, H, W], Eq. 4
        return scaled(self.scale, self.reduce, self.bn2(x))  # [N, C, H, W], Eq. 5


class CrossModalityLearner(nn.Cell):
    """CML, Eqs. 6-9: patterns that both modalities share, in several scales.

    Where the paper is silent: the transposed convolutions go from C to C channels, with kernel and stride equal to the
    ratio, without bias; there is no activation.

    Args:
        channels: C. ratios: of the average pooling, side and stride of its windows in pixels.
        layer_scale: C_scale, as `IntraModalityLearner`'s.
    """

    def __init__(self, channels: int, ratios: tuple[int, ...] = (2, 4, 6, 12), layer_scale: str = "channel"):
        super().__init__()
        self.ratios = tuple(ratios)
        self.pools = nn.CellList([nn.AvgPool2d(ratio, stride=ratio, pad_mode="valid") for ratio in ratios])
        self.transposed = nn.CellList([transposed(channels, ratio) for ratio in ratios])
        self.concat = Concatenation()
        self.bn = batch_norm(2 * len(ratios) * channels)
        self.fuse = pointwise(2 * len(ratios) * channels, channels, bias=False)
        self.scale = _layer_scale(channels, layer_scale)

    @replaceable("numba", "cuda")
    def construct(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """The learners' output for each modality, float32 [N, C, H, W] each -> [N, C, H, W].

        Raises:
            ValueError: H or W that a ratio does not divide.
        """
        x = self.pyramids(visible, infrared)  # [N, 8C, H, W], Eq. 8
        return scaled(self.scale, self.fuse, self.bn(x))  # [N, C, H, W], Eq. 9

    def pyramids(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """Both modalities in every scale, [N, 8C, H, W]."""
        check_pooled(visible.shape[2], visible.shape[3], self.ratios)
        scales = ()
        for features in (visible, infrared):
            for pool, rebuild in zip(self.pools, self.transposed):  # noqa: B905 (graph mode knows no strict=)
                pyramid = pool(features)  # [N, C, H / ratio, W / ratio], Eq. 6
                scales += (rebuild(pyramid),)  # [N, C, H, W], Eq. 7
        return self.concat(*scales)


class AuxiliaryGenerator(nn.Cell):
    """a = G(v, r): an intra-modality learner for each modality, not shared, and a cross-modality learner on both.

    The auxiliary feature has no activation (Eq. 9): unlike the first stages' features it can be negative.

    Args:
        channels, expansion, kernel_order, ratios, layer_scale: of the learners.
    """

    def __init__(
        self,
        channels: int,
        expansion: int = 4,
        kernel_order: tuple[int, int] = (5, 7),
        ratios: tuple[int, ...] = (2, 4, 6, 12),
        layer_scale: str = "channel",
    ):
        super().__init__()
        self.visible_learner = IntraModalityLearner(channels, expansion, kernel_order, layer_scale)
        self.infrared_learner = IntraModalityLearner(channels, expansion, kernel_order, layer_scale)
        self.cross_learner = CrossModalityLearner(channels, ratios, layer_scale)
        visible, infrared, cross = self.visible_learner, self.infrared_learner, self.cross_learner
        self.recomputed = (visible.expand, visible.spatial, infrared.expand, infrared.spatial)
        self.recomputed += (*cross.transposed, cross.concat)

    def construct(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """First-stage features, float32 [N, C, H, W] each, row i of both of one identity -> a [N, C, H, W].

        Raises:
            ValueError: as `CrossModalityLearner`.
        """
        return self.cross_learner(self.visible_learner(visible), self.infrared_learner(infrared))

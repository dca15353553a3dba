"""The intermediate modalities of MUN's Table 2 behind one interface: what stands between visible and infrared.

Each is called with the visible and infrared pictures of a training batch, the first stages' features of both, and the
step's key, and returns first-stage features. Those made of pixels have their own first stage.
"""

from collections.abc import Callable

from mindspore import Tensor, nn, ops

from ms_vireid.config import MUNConfig
from ms_vireid.models.auxiliary_generator import AuxiliaryGenerator
from ms_vireid.models.layers import pointwise
from ms_vireid.models.noise import position_noise, uniforms
from ms_vireid.models.resnet import EXPANSION, ResNet


class AuxiliaryModality(AuxiliaryGenerator):
    """The paper's own: G on the first-stage features. The arguments are `AuxiliaryGenerator`'s."""

    def construct(self, pictures: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], key: Tensor | None) -> Tensor:
        """Features float32 [PK, C, H, W] of each modality -> a [PK, C, H, W]; pictures and key are not used."""
        return AuxiliaryGenerator.construct(self, *features)  # named, as in `ResidualDepthwise`


class PixelModality(nn.Cell):
    """A subclass's `picture` makes a picture of each pair; the modality's own first stage computes its feature maps."""

    def __init__(self, stage: ResNet):
        super().__init__()
        self.stage = stage
        self.recomputed = ResNet.convolutions(stage)

    def construct(self, pictures: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], key: Tensor | None) -> Tensor:
        """Pictures float32 [PK, 3, H, W] of each modality -> [PK, C, h, w]; features are not used."""
        visible, infrared = pictures
        return self.stage(self.picture(visible, infrared, key))


class XModality(PixelModality):
    """ "X" (Li et al. 2020): a light network on the visible picture alone, 1x1 convolutions 3 -> 1 and 1 -> 3 with
    biases, and a ReLU between them.

    Args:
        stage: the modality's own first stage.
    """

    INPUTS = 3  # channels

    def __init__(self, stage: ResNet):
        super().__init__(stage)
        self.reduce = pointwise(self.INPUTS, 1)
        self.expand = pointwise(1, 3)

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        """[PK, 3, H, W]; infrared and key are not used."""
        return self.expand(ops.relu(self.reduce(visible)))


class SyncreticModality(XModality):
    """ "Syncretic" (Wei et al. 2021): the same network on both pictures, 1x1 convolutions 6 -> 1 and 1 -> 3."""

    INPUTS = 6

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        """[PK, 3, H, W]; key is not used."""
        both = ops.cat((visible, infrared), 1)  # [PK, 6, H, W]
        return XModality.picture(self, both, infrared, key)  # named, as in `ResidualDepthwise`


class MixedModality(PixelModality):
    """ "Mixed" (Kong et al. 2021): s v_i + (1 - s) r_i, s uniform in [0, 1), drawn anew in every step.

    The shares are a hash of the step's key, like dropout's masks: a resumed run and the other framework draw the same.

    Args:
        stage: the modality's own first stage.
        mixing: one share for each "picture", or for each "pixel"; the paper only says that pixels are combined.
    """

    def __init__(self, stage: ResNet, mixing: str = "picture"):
        super().__init__(stage)
        self.by_pixel = mixing == "pixel"
        self.shard = (0, 1)  # this device's rank and the number of devices

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        """[PK, 3, H, W]; key int32 scalar.

        Raises:
            ValueError: no key.
        """
        if key is None:
            raise ValueError("the mixed modality needs the step's key")
        count, _, height, width = visible.shape
        rank, devices = self.shard
        pairs = slice(rank * count, (rank + 1) * count)  # of all devices' pairs, those of this one
        if self.by_pixel:
            noise = position_noise(key, devices * count, height * width)[pairs].float()  # of all int32 values
            share = (noise * 2.0**-32 + 0.5).reshape(count, 1, height, width)
        else:
            share = uniforms(key, devices * count)[pairs].reshape(count, 1, 1, 1)
        share = share.astype(visible.dtype)
        return share * visible + (1.0 - share) * infrared


def intermediate_modality(config: MUNConfig, first_stage: Callable[[], ResNet]) -> nn.Cell | None:
    """The modality between visible and infrared that is configured, or None for the baseline B. first_stage: makes a
    first stage for those made of pixels."""
    if config.intermediate == "auxiliary":
        channels = EXPANSION * config.width if config.specific == "layer1" else config.width
        return AuxiliaryModality(channels, config.expansion, config.kernel_order, config.ratios, config.layer_scale)
    if config.intermediate == "X":
        return XModality(first_stage())
    if config.intermediate == "syncretic":
        return SyncreticModality(first_stage())
    if config.intermediate == "mixed":
        return MixedModality(first_stage(), config.mixing)
    return None

"""What figures show of a network: its feature maps, where they lie in a picture, logits, MUN's auxiliary modality."""

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn

from ms_vireid.command.errors import InputError
from ms_vireid.models import AGW, MUN, PMT
from ms_vireid.models.base import ReIDModel

ToLogits = Callable[[Tensor], Tensor]


class Inside:
    """A network that has no subclass here, whose feature maps no figure can show."""

    has_auxiliary = False  # whether the network makes a modality out of pairs of pictures

    def __init__(self, model: ReIDModel):
        self.model = model

    def first_map(self, modality: str) -> nn.Cell:
        """The cell that gives the feature maps at the end of the first stage."""
        raise InputError(
            f"{type(self.model).__name__}: ms_vireid/visualization/inside.py does not know the feature maps of this "
            f"network; describe it there, or choose another figure"
        )

    def last_map(self) -> nn.Cell:
        """The cell that gives the feature maps that Grad-CAM weighs."""
        return self.first_map("visible")

    def as_maps(self, output: np.ndarray) -> np.ndarray:
        """The output of such a cell as [N, C, rows, columns]."""
        return output

    def cells_in_picture(self, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
        """Where rows and columns of a map lie in a picture of `size` (H, W): the first centres and the steps between
        centres, in pixels, float [2, 2]."""
        steps = np.divide(size, cells)
        return np.stack([steps / 2, steps])

    def logits_of(self, modality: str) -> tuple[nn.Cell, ToLogits]:
        """The last cell that evaluation goes through on the way to the classifier, and what makes logits of its
        output."""
        return self.model.bottleneck, self.model.classifier


class InsidePMT(Inside):
    def first_map(self, modality: str) -> nn.Cell:
        """The first block."""
        return self.model.base.blocks[0]

    def last_map(self) -> nn.Cell:
        """What the last attention sees: of the last block's output only the CLS token is used."""
        return self.model.base.blocks[-1].norm1

    def as_maps(self, output: np.ndarray) -> np.ndarray:
        """Tokens [N, 1 + L, C], without CLS, back on the grid."""
        rows, columns = self.model.base.patch_embed.grid_size  # 21x10 for 256x128 pixels
        return output[:, 1:].transpose(0, 2, 1).reshape(len(output), -1, rows, columns)

    def cells_in_picture(self, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
        projection = self.model.base.patch_embed.proj
        return np.array([np.divide(projection.kernel_size, 2), projection.stride])


class InsideAGW(Inside):
    def first_map(self, modality: str) -> nn.Cell:
        return self.model.base.layer1[-1]

    def last_map(self) -> nn.Cell:
        return self.model.shared[-1]


class InsideMUN(Inside):
    def __init__(self, model: MUN):
        super().__init__(model)
        self.has_auxiliary = model.generator is not None

    def first_map(self, modality: str) -> nn.Cell:
        """The modality's own stage."""
        return self.model.visible_stage if modality == "visible" else self.model.infrared_stage

    def last_map(self) -> nn.Cell:
        return self.model.shared

    def logits_of(self, modality: str) -> tuple[nn.Cell, ToLogits]:
        model = self.model
        classifier = model.visible_classifier if modality == "visible" else model.infrared_classifier
        if model.classified == "pooled":
            return model.pool, classifier
        if model.tested == "bnneck":
            return model.bottleneck, classifier
        return model.pool, lambda pooled: classifier(model.bottleneck(pooled))

    def auxiliary_maps(self, pictures: tuple[Tensor, Tensor], maps: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        """Feature maps like `maps`, which the `first_map`s give for visible and infrared pictures, float32
        [N, 3, H, W], row by row of one identity."""
        return self.model.generator(pictures, maps, key)

    def auxiliary_features(self, pictures: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        """Of such pictures: float32 [N, embed_dim], made as in training, normalised as in evaluation."""
        maps = self.model.visible_stage(pictures[0]), self.model.infrared_stage(pictures[1])
        return self.model.tested_features(self.model.generator(pictures, maps, key))


INSIDES = {PMT: InsidePMT, AGW: InsideAGW, MUN: InsideMUN}


def inside(model: ReIDModel) -> Inside:
    return INSIDES.get(type(model), Inside)(model)

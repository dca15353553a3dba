"""What every re-identification model has besides its layers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn


class TrainingOutputs(NamedTuple):
    """What a model gives in training for a batch of 2PK rows, visible half first, or of 3PK (`visible_rows`): a plain
    tuple in this order, up to the last that it has. (MindSpore's compiler hangs on a NamedTuple that is unpacked.)

    Those with defaults come from a modality between the two, whose row i shows the identity of row i of both.
    """

    logits: Tensor  # [2PK, num_classes]
    pooled: Tensor  # features [2PK, embed_dim], before BNNeck
    bnneck: Tensor  # the same after it
    visible: Tensor | None = None  # the first and the last part of `pooled`, [PK, embed_dim]
    infrared: Tensor | None = None
    auxiliary: Tensor | None = None  # the same of the auxiliary modality
    visible_logits: Tensor | None = None  # C_v of the auxiliary features, [PK, num_classes]
    infrared_logits: Tensor | None = None  # C_r of them
    visible_prototypes: Tensor | None = None  # [PK, embed_dim]
    infrared_prototypes: Tensor | None = None
    auxiliary_prototypes: Tensor | None = None
    auxiliary_logits: Tensor | None = None  # C_a of the auxiliary features


def visible_rows(images: int, parts: int) -> int:
    """How many of a training batch's images are visible: all but the last of 2 parts, or of 3 where every visible
    picture comes in two versions, one part after the other. Raises ValueError for a batch without equal parts."""
    if images % parts:
        problem = "as many visible as infrared images" if parts == 2 else "twice as many visible as infrared images"
        raise ValueError(f"a training batch has {problem}, not {images}")
    return images - images // parts


class ReIDModel(nn.Cell):
    """In training mode `model(images, None, key, labels, progress)` gives a tuple as `TrainingOutputs`, in evaluation
    mode `model(images, modality)` gives features."""

    # Prefixes of the parameters that only training needs; a model built for inference does not have them.
    TRAINING_ONLY: tuple[str, ...] = ()
    HEAD = ("pool.", "bottleneck.", "classifier.")  # prefixes of the parameters that stay in float32
    # Cells whose outputs are recomputed in the backward pass instead of kept.
    recomputed: tuple[nn.Cell, ...] = ()
    BY_MODALITY = True  # whether visible and infrared pictures take different ways to their features

    def place(self, rank: int, devices: int) -> None:
        """Tell the layers that draw random numbers which device's batch this model gets, in data-parallel training."""
        for _, cell in self.cells_and_names():
            if hasattr(cell, "shard"):
                cell.shard = (rank, devices)

    def memories(self) -> list[Parameter]:
        """What training remembers of its own device's batches, besides the running averages of BatchNorm."""
        return []

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        """What the pictures of a modality go through, in order, up to the features before they are normalised."""
        raise NotImplementedError

    def logits_of(self, modality: str) -> tuple[nn.Cell, Callable[[Tensor], Tensor]]:
        """The last cell that evaluation goes through on the way to the classifier, and what makes logits of its
        output."""
        return self.bottleneck, self.classifier

    def first_map(self, modality: str) -> nn.Cell:
        """The cell that gives the feature maps at the end of the first stage."""
        raise NotImplementedError

    def last_map(self) -> nn.Cell:
        """The cell that gives the feature maps that Grad-CAM weighs."""
        raise NotImplementedError

    def as_maps(self, output: np.ndarray) -> np.ndarray:
        """The output of such a cell as [N, C, rows, columns]."""
        return output

    def cells_in_picture(self, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
        """Where rows and columns of a map lie in a picture of `size` (H, W): the first centres and the steps between
        centres, in pixels, float [2, 2]."""
        steps = np.divide(size, cells)
        return np.stack([steps / 2, steps])

    def has_auxiliary(self) -> bool:
        """Whether it makes a modality out of pairs of pictures, as the next two need."""
        return False

    def auxiliary_maps(self, pictures: tuple[Tensor, Tensor], maps: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        """Feature maps like `maps`, which the `first_map`s give for visible and infrared pictures, float32
        [N, 3, H, W], row by row of one identity."""
        raise NotImplementedError

    def auxiliary_features(self, pictures: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        """Of such pictures: float32 [N, embed_dim], made as in training, normalised as in evaluation."""
        raise NotImplementedError

    def in_backbone(self, name: str) -> bool:
        """Whether the parameter of this name learns at `optimizer.backbone_factor` of the rate."""
        raise NotImplementedError

    def limits_of(self, name: str) -> tuple[float, float] | None:
        """What the parameter of this name, which does not decay, is clamped to after each update."""
        return None

    def load_pretrained(self, path: Path) -> None:
        """ImageNet weights from a user's own file, as `models.pretrained` reads it."""
        raise NotImplementedError

"""What every re-identification model has besides its layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, nn

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.command.errors import InputError
from ms_vireid.replaceable import replaceable


class TrainingOutputs(NamedTuple):
    """The outputs of a model in training for a batch of 2PK rows, visible half first, or of 3PK (`visible_rows`).

    A model returns a plain tuple in this order, up to the last output that it has: no gradient passes through a
    NamedTuple that a graph makes (MindSpore 2.10). Outputs with defaults belong to an auxiliary modality, whose row i
    shows the identity of row i of both others.
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
    """The number of visible images in a training batch: all but the last of 2 parts, or of 3 where every visible
    picture comes in two versions, one part after the other. Raises ValueError for a batch without equal parts."""
    if images % parts:
        problem = "as many visible as infrared images" if parts == 2 else "twice as many visible as infrared images"
        raise ValueError(f"a training batch has {problem}, not {images}")
    return images - images // parts


@replaceable("cuda")
def by_modality(images: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The visible and the infrared images of a training batch [N, 3, H, W]. Raises as `visible_rows`."""
    split = visible_rows(images.shape[0], parts)
    return images[:split], images[split:]


class ReIDModel(nn.Cell):
    """In training mode `model(images, None, key, labels, progress)` returns a tuple as `TrainingOutputs`, in evaluation
    mode `model(images, modality)` features. A model defines `construct` and `in_backbone`; `load_pretrained` to start
    from ImageNet weights; and `path` for figures of feature maps and for ONNX. Its BNNeck is called `bottleneck`."""

    # Prefixes of the parameters that only training needs; a model built for inference lacks them.
    TRAINING_ONLY: tuple[str, ...] = ()
    OF_IDENTITIES = ("classifier.",)  # prefixes of the parameters that belong to the people trained on
    # Names of the state that each device has for itself, besides the running averages of BatchNorm.
    MEMORIES: tuple[str, ...] = ()
    BACKBONE: tuple[str, ...] = ("base",)  # the cells, one after the other, that a file of ImageNet weights fills
    HEAD = ("pool.", "bottleneck.", "classifier.")  # prefixes of the parameters that stay in float32
    # Cells whose outputs are recomputed in the backward pass instead of kept.
    recomputed: tuple[nn.Cell, ...] = ()
    began_from: Mapping[str, Any] = {}  # the record of the file of its first weights
    BY_MODALITY = True  # whether a picture's features depend on which modality it is said to be

    def in_backbone(self, name: str) -> bool:
        """Whether the parameter of this name learns at `optimizer.backbone_factor` of the rate."""
        raise NotImplementedError

    def limits_of(self, name: str) -> tuple[float, float] | None:
        """The limits to which the parameter of this name is clamped after each update; it does not decay then."""
        return None

    def load_pretrained(self, file: Pretrained) -> None:
        """Load a backbone's weights from a user's file (`models.pretrained`)."""
        remedy = "define it (docs/extending.md), or set model.pretrained=none"
        raise InputError(f"{file.path}: {type(self).__name__} defines no load_pretrained; {remedy}")

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        """The cells that pictures of a modality go through in evaluation, one after the other, up to the features
        before they are normalised."""
        raise InputError(
            f"{type(self).__name__} defines no path, which feature maps and ONNX need: define it (docs/extending.md), "
            "choose another figure, or export with --format mindir"
        )

    def first_map(self, modality: str) -> nn.Cell:
        """The cell that gives the feature maps at the end of the first stage."""
        return self.path(modality)[0]

    def last_map(self) -> nn.Cell:
        """The cell that gives the feature maps that Grad-CAM weighs: the one before the pooling."""
        path, pool = self.path("visible"), getattr(self, "pool", None)
        if pool not in path:
            raise InputError(f"{type(self).__name__} has no pool in its path: define last_map (docs/extending.md)")
        return path[path.index(pool) - 1]

    def as_maps(self, output: np.ndarray) -> np.ndarray:
        """The output of such a cell as [N, C, rows, columns]."""
        return output

    def cells_in_picture(self, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
        """Where rows and columns of a map lie in a picture of `size` (H, W): the first centres and the steps between
        centres, in pixels, float [2, 2]."""
        steps = np.divide(size, cells)
        return np.stack([steps / 2, steps])

    def logits_of(self, modality: str) -> tuple[nn.Cell, Callable[[Tensor], Tensor]]:
        """The last cell that evaluation goes through on the way to the classifier, and what makes logits of its
        output."""
        return self.bottleneck, self.classifier

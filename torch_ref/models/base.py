"""Twin of `ms_vireid.models.base`, whose docstrings hold here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ms_vireid.checkpoints.pretrained import Pretrained


class TrainingOutputs(NamedTuple):
    """As its twin, but what a model lacks is None instead of left out."""

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
    if images % parts:
        problem = "as many visible as infrared images" if parts == 2 else "twice as many visible as infrared images"
        raise ValueError(f"a training batch has {problem}, not {images}")
    return images - images // parts


def by_modality(images: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    split = visible_rows(images.shape[0], parts)
    return images[:split], images[split:]


class ReIDModel(nn.Module):
    TRAINING_ONLY: tuple[str, ...] = ()
    began_from: Mapping[str, Any] = {}
    OF_IDENTITIES = ("classifier.",)

    def in_backbone(self, name: str) -> bool:
        raise NotImplementedError

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return None

    def load_pretrained(self, file: Pretrained) -> None:
        raise NotImplementedError

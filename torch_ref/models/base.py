"""Twin of `ms_vireid.models.base`, whose docstrings hold here."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn


class TrainingOutputs(NamedTuple):
    """What a model gives in training for a batch of 2PK rows, visible half first; what it has not is None.

    The second half is of models with a modality between the two, whose row i is of one identity with visible row i and
    infrared row i.
    """

    logits: Tensor  # [2PK, num_classes]
    pooled: Tensor  # features [2PK, embed_dim], before BNNeck
    bnneck: Tensor  # the same after it
    visible: Tensor | None = None  # the halves of `pooled`, [PK, embed_dim]
    infrared: Tensor | None = None
    auxiliary: Tensor | None = None  # the same of the auxiliary modality
    visible_logits: Tensor | None = None  # C_v of the auxiliary features, [PK, num_classes]
    infrared_logits: Tensor | None = None  # C_r of them
    visible_prototypes: Tensor | None = None  # [PK, embed_dim]
    infrared_prototypes: Tensor | None = None
    auxiliary_prototypes: Tensor | None = None
    auxiliary_logits: Tensor | None = None  # C_a of the auxiliary features


class ReIDModel(nn.Module):
    # Beginnings of the names of parameters that evaluation needs not; a model built for inference has none of them.
    TRAINING_ONLY: tuple[str, ...] = ()

    def in_backbone(self, name: str) -> bool:
        raise NotImplementedError

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return None

    def load_pretrained(self, path: Path) -> None:
        raise NotImplementedError

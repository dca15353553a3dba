"""What every re-identification model has besides its layers."""

from torch import nn


class ReIDModel(nn.Module):
    """A model that the trainer runs: in training mode `model(images, None, key, labels, progress)`, in evaluation mode
    `model(images, modality)`."""

    # Beginnings of the names of parameters that evaluation needs not; a model built for inference has none of them.
    TRAINING_ONLY: tuple[str, ...] = ()

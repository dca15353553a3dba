"""What every re-identification model has besides its layers: hooks around a training step."""

from torch import nn


class ReIDModel(nn.Module):
    """A model that the trainer runs: in training mode `model(images, None, key, labels)`, in evaluation mode
    `model(images, modality)`."""

    # Beginnings of the names of parameters that evaluation needs not; a model built for inference has none of them.
    TRAINING_ONLY: tuple[str, ...] = ()

    def begin_step(self, step: int, total_steps: int) -> None:
        """Called before each step of training, counted from 0 over the whole run."""

    def end_step(self) -> None:
        """Called after each update."""

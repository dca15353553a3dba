"""What every re-identification model has besides its layers."""

from collections.abc import Callable

from mindspore import Parameter, nn


class ReIDModel(nn.Cell):
    """A model that the trainer runs: in training mode `model(images, None, key, labels, progress)`, in evaluation mode
    `model(images, modality)`."""

    # Beginnings of the names of parameters that evaluation needs not; a model built for inference has none of them.
    TRAINING_ONLY: tuple[str, ...] = ()

    def __init__(self):
        super().__init__()
        self.program = "operators"  # or "kernels" or "graph": `engine.programs.run_by` sets it
        self.graphs: dict[str, Callable] = {}  # of evaluation, by modality: `engine.inference.features_of` makes them

    def place(self, rank: int, devices: int) -> None:
        """Tell the layers that draw random numbers which device's batch this model gets, in data-parallel training."""
        for _, cell in self.cells_and_names():
            if hasattr(cell, "shard"):
                cell.shard = (rank, devices)

    def memories(self) -> list[Parameter]:
        """What training remembers of the batches of its own device, besides the running averages of BatchNorm."""
        return []

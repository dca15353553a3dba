"""The trainings of dropout.py, in one of its processes. Imports mindspore: import it after `runtime.set_up`."""

import numpy as np
import torch

from ms_vireid.config import Config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.readers import read_data
from parity.measure.dropout import STEPS
from parity.measure.outside import OutsideTraining
from parity.trajectory import MindSporeTraining, TorchTraining, Training


def use_one_thread() -> None:
    torch.set_num_threads(1)


class Start:
    """Weights and batches with which all sides start."""

    def __init__(self, config: Config, epochs: int):
        self.config, self.epochs = config, epochs
        self.batches = Kept(TrainingBatches(read_data(config.data).train, config), epochs * STEPS)
        torch.manual_seed(config.seed)
        self.weights = TorchTraining(config, self.batches, 0).weights()

    def losses(self, side: str, noise: int) -> list[float]:
        """Train one side with one noise; return each epoch's mean loss."""
        training = begin(side, self.config, self.batches)
        training.set_weights(self.weights)
        seed = 1000 * (1 + noise) + self.config.seed
        torch.manual_seed(seed)
        training.config = self.config.model_copy(update={"seed": seed})  # of the steps' keys
        training.advance(self.epochs * STEPS)
        return np.reshape([row["loss"] for row in training.rows], (self.epochs, -1)).mean(axis=1).tolist()


class Kept:
    """The first `count` batches, made once."""

    def __init__(self, batches, count: int):
        self.sampler, self.length = batches.sampler, len(batches)
        self.batches = [batches[step] for step in range(count)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.batches[step]


def begin(side: str, config: Config, batches: Kept) -> Training:
    if side == "outside":
        return OutsideTraining(config, batches)
    return TorchTraining(config, batches, 0) if side == "torch_ref" else MindSporeTraining(config, batches, 0, side)

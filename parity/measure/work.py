"""What both sides of the benchmark do, and with which models."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_vireid.config import CONFIG_ROOT, Config, load_config

# Of full size: configuration, overrides, and the stage of the recipe whose losses are taken.
MODELS = {
    "PMT ViT-B/16 256x128": ("pmt/sysu.yaml", (), 1),
    "AGW ResNet-50 288x144": ("agw/sysu.yaml", (), 0),
    "MUN ResNet-50 288x144": ("mun/sysu.yaml", (), 0),
}
CLASSES = ("model.num_classes=395",)
RUN_STEPS = 1000  # of the run that a training step is taken to be part of
WARM_UP = 0.01  # of the learning rate: at the whole of it float16 soon overflows on noise


@dataclass(frozen=True)
class Work:
    """What both frameworks do.

    kind: "train_step" (forward, all losses, backward, update) or "inference" (features of a batch).
    config: file under configs/, with its overrides. stage: of the recipe, from 0. images: of a batch; 0: as configured.
    folder: where the weights are that both begin with. steps: of a measurement, which waits for the end of the last
        alone.
    tuned: whether PyTorch's side is compiled and tuned (tuned.py), instead of eager.
    """

    kind: str
    config: str
    overrides: tuple[str, ...]
    device: str
    folder: str = ""
    stage: int = 0
    images: int = 0
    steps: int = 1
    tuned: bool = False

    def load(self) -> Config:
        return load_config(CONFIG_ROOT / self.config, list(self.overrides))

    @property
    def weights(self) -> Path:
        """The file of the initial weights, by PyTorch's names."""
        return Path(self.folder) / "weights.npz"

    def batch(self, config: Config) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [N, 3, H, W] as noise, which costs what pictures do, and labels int32 [N]."""
        identities, instances = config.train.num_identities, config.train.num_instances
        labels = np.tile(np.repeat(np.arange(identities, dtype=np.int32), instances), 2)
        count = self.images or len(labels)
        rng = np.random.default_rng(0)
        return rng.normal(size=(count, 3, *config.data.image_size)).astype(np.float32), labels

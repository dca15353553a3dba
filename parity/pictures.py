"""The benchmark's pictures: our loader, and what a PyTorch user would write for the same augmentation."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from ms_vireid.config import AugmentationConfig, Config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.read import read_data
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import BLUR_KERNEL
from parity.oracles import torchvision

Batches = Iterator[tuple[np.ndarray | torch.Tensor, np.ndarray | torch.Tensor]]  # images [2PK, 3, H, W], labels [2PK]


def loaders(config: Config) -> tuple[Callable[[], Batches], Callable[[], Batches], int]:
    """Two functions that each read the batches of the recipe's last epoch, in worker processes of their own, and the
    number of images in these."""
    batches = TrainingBatches(read_data(config.data).train, config)
    iterations = batches.sampler.iterations

    def ours() -> Batches:
        yield from iterate(batches, config.data.workers, start=len(batches) - iterations)

    pictures = _Pictures(batches.train, config)
    plan = [list(map(int, batch)) for batch in batches.sampler.plan(len(batches) // iterations)]

    def theirs() -> Batches:
        yield from torch.utils.data.DataLoader(pictures, batch_sampler=plan, num_workers=config.data.workers)

    return ours, theirs, iterations * batches.sampler.batch_size


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, train: ImageSet, config: Config):
        self.train = train
        self.transforms = [_transform(config.augmentation, config.data.image_size, infrared) for infrared in (0, 1)]

    def __len__(self) -> int:
        return len(self.train)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        infrared = bool(self.train.infrared[index])
        with Image.open(self.train.paths[index]) as picture:
            return self.transforms[infrared](picture.convert("RGB")), int(self.train.labels[index])


def _transform(config: AugmentationConfig, size: tuple[int, int], infrared: bool):
    """torchvision's transforms for one modality. Without channel exchange, which torchvision does not have."""
    transforms = torchvision.transforms
    steps = [transforms.Resize(size, transforms.InterpolationMode.LANCZOS)]
    if infrared and config.infrared_jitter:
        spread = config.infrared_jitter
        jitter = transforms.ColorJitter(spread, spread)
        steps.append(
            transforms.RandomChoice([jitter, transforms.GaussianBlur(BLUR_KERNEL, config.infrared_blur_sigma)])
        )
    if config.crop_padding:
        steps.append(transforms.RandomCrop(size, padding=config.crop_padding))
    steps += [
        transforms.RandomHorizontalFlip(config.flip),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    if config.erasing:
        aspect = config.erasing_aspect, 1 / config.erasing_aspect
        steps.append(transforms.RandomErasing(config.erasing, config.erasing_area, aspect, config.erasing_fill))
    return transforms.Compose(steps)

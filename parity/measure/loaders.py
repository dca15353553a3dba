"""Both frameworks' picture loaders, in their own process."""

from collections.abc import Callable, Iterator

import torch
from PIL import Image

from ms_vireid.config import AugmentationConfig, Config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.readers import read_data
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import BLUR_KERNEL
from parity.oracles import torchvision

Batches = Iterator[tuple]  # images [2PK, 3, H, W] and labels [2PK], as arrays or tensors


def loaders(config: Config) -> tuple[Callable[[], Batches], Callable[[], Batches], int]:
    """Return two functions that read the batches of the recipe's last epoch in worker processes, ours and what a
    PyTorch user would write for the same augmentation; and the number of images."""
    batches = TrainingBatches(read_data(config.data).train, config)
    iterations = batches.sampler.iterations
    pictures = _Pictures(batches.train, config)
    plan = [list(map(int, batch)) for batch in batches.sampler.plan(len(batches) // iterations)]

    def ours() -> Batches:
        yield from iterate(batches, config.data.workers, start=len(batches) - iterations)

    def theirs() -> Batches:
        yield from torch.utils.data.DataLoader(pictures, batch_sampler=plan, num_workers=config.data.workers)

    return ours, theirs, iterations * batches.sampler.batch_size


class _Pictures:
    """The mirror's data set for torch.utils.data."""

    def __init__(self, train: ImageSet, config: Config):
        self.train = train
        self.transforms = [_transform(config.augmentation, config.data.image_size, infrared) for infrared in (0, 1)]

    def __len__(self) -> int:
        return len(self.train)

    def __getitem__(self, index: int) -> tuple:
        with Image.open(self.train.paths[index]) as picture:
            transform = self.transforms[int(self.train.infrared[index])]
            return transform(picture.convert("RGB")), int(self.train.labels[index])


def _transform(config: AugmentationConfig, size: tuple[int, int], infrared: bool) -> Callable:
    """Make torchvision's transforms for one modality; torchvision has no channel exchange."""
    transforms = torchvision.transforms
    steps = [transforms.Resize(size, transforms.InterpolationMode.LANCZOS)]
    if infrared and config.infrared_jitter:
        jitter = transforms.ColorJitter(config.infrared_jitter, config.infrared_jitter)
        blur = transforms.GaussianBlur(BLUR_KERNEL, config.infrared_blur_sigma)
        steps.append(transforms.RandomChoice([jitter, blur]))
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

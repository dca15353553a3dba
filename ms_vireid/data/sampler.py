"""Chooses the pictures of each batch: P identities x (K visible + K infrared), planned an epoch at a time."""

import math

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import TrainConfig
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet


class IdentitySampler:
    """Draws the batches of an epoch from (seed, epoch) alone.

    A batch has P different identities. An identity's K images of a modality are different too (one with fewer repeats
    them in turn), or independent draws with `replacement`.

    Batches per epoch: `iterations`, or one pass over the visible pictures, rounded up (SYSU-MM01: 696).
    devices: how many share a batch, P identities each. Raises InputError if the set has too few identities.
    """

    def __init__(self, train: ImageSet, config: TrainConfig, seed: int, devices: int = 1):
        self.num_identities, self.num_instances = config.num_identities * devices, config.num_instances
        if train.num_identities < self.num_identities:
            raise InputError(
                f"train.num_identities={self.num_identities} identities make a batch, the training set has "
                f"{train.num_identities}; lower train.num_identities"
            )
        self.seed, self.replacement = seed, config.replacement
        per_batch = self.num_identities * self.num_instances
        self.iterations = config.iterations or math.ceil(np.count_nonzero(~train.infrared) / per_batch)
        self.batch_size = 2 * per_batch
        self._visible = _images_by_label(train, ~train.infrared)
        self._infrared = _images_by_label(train, train.infrared)

    def plan(self, epoch: int) -> np.ndarray:
        """Return indices into the training set for a 1-based epoch, int64 [iterations, 2PK]: visible half first, both
        halves identity-major and in the same identity order."""
        rng = counter_generator("sampler", self.seed, epoch)
        order = rng.random((self.iterations, len(self._visible[1]))).argsort(axis=1)
        labels = order[:, : self.num_identities]  # [iterations, P]
        halves = [self._draw(rng, *images, labels) for images in (self._visible, self._infrared)]
        return np.concatenate(halves, axis=1)

    def _draw(self, rng: np.random.Generator, images: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Draw K images of each label: images [identities, most], counts [identities] -> [iterations, P * K]."""
        labels = labels.reshape(-1, 1)  # [iterations * P, 1]
        available = counts[labels]
        if self.replacement:
            drawn = rng.integers(available, size=(len(labels), self.num_instances))
        else:
            keys = rng.random((len(labels), images.shape[1]))
            keys[np.arange(images.shape[1]) >= available] = np.inf
            order = keys.argsort(axis=1)  # each row's images first, shuffled; padding last
            drawn = np.take_along_axis(order, np.arange(self.num_instances) % available, axis=1)
        return images[labels, drawn].reshape(self.iterations, -1)


def _images_by_label(train: ImageSet, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of each label's chosen pictures, int64 [identities, most], padded with -1, and their counts."""
    counts = np.bincount(train.labels[chosen], minlength=train.num_identities)
    table = np.full((len(counts), counts.max()), -1)
    for label, count in enumerate(counts):
        table[label, :count] = np.flatnonzero(chosen & (train.labels == label))
    return table, counts

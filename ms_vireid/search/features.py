"""A model's forward passes over pictures, and the features that they give."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from ms_vireid.backends.backend import Backend
from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import progress
from ms_vireid.config import Config
from ms_vireid.config.schema import FULL, ValueRanges
from ms_vireid.data.batches import EvaluationBatches, behind
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.loader import iterate
from ms_vireid.data.records import ImageSet
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.evaluation.ranking import first_fault
from ms_vireid.models.base import ReIDModel
from ms_vireid.search.requests import Request, RequestQueue


def checked(queued: Request, names: Sequence[object]) -> np.ndarray:
    """Read the features, float32 [n, C]. Raises InputError, with the picture's name, for one that is not finite or not
    normalised."""
    rows = queued.read()
    if fault := first_fault(rows):
        row, problem = fault
        raise InputError(f"{names[row]}: its feature {problem}; check the checkpoint and the picture")
    return rows


@dataclass(eq=False)
class FeatureExtractor:
    """A model, and the backend that computes its L2-normalised BNNeck features.

    image_size: (H, W). batch_size: pictures at a time. workers: processes that decode them; 0: this one does.
    value_ranges: of pictures of 16 or 32 bits. group: the processes that share `extract`.
    """

    model: ReIDModel
    backend: Backend
    image_size: tuple[int, int]
    batch_size: int
    workers: int = 0
    value_ranges: ValueRanges = FULL
    group: ProcessGroup = ALONE
    _queues: dict[str, RequestQueue] = field(default_factory=dict, init=False)  # by kind of picture

    @classmethod
    def configured(
        cls, model: ReIDModel, backend: Backend, config: Config, group: ProcessGroup = ALONE
    ) -> "FeatureExtractor":
        data, size = config.data, config.evaluation.batch_size
        return cls(model, backend, data.image_size, size, data.workers, data.value_ranges, group)

    @property
    def ahead(self) -> int:
        """Batches to queue before reading one's features, so that the device does not wait."""
        return 1 if self.backend.compiled else 0

    def queue(self, pixels: np.ndarray, modality: str) -> Request:
        """Queue the features of at most `batch_size` pictures of one modality, float32 [n, 3, H, W]."""
        kind = modality if self.model.BY_MODALITY else "all"
        if kind not in self._queues:
            with DEVICE:
                computation = self.backend.accelerate(self.model)
                features = computation.features(self.model, modality, self.batch_size, kind)
                self._queues.setdefault(kind, RequestQueue(features, self.batch_size))
        return self._queues[kind].put(pixels)

    def checked(self, pixels: np.ndarray, modality: str, names: Sequence[object]) -> np.ndarray:
        """Compute what `queue` queues: float32 [n, C]. Raises InputError as the function `checked` does."""
        return checked(self.queue(pixels, modality), names)

    def by_batch(self, batches: EvaluationBatches, start: int = 0, flip: bool = False) -> Iterator[tuple]:
        """Yield for each batch from `start` on: indices int [n], features float32 [n, C] (None for an empty batch), and
        the rest of the batch. Afterwards the model is in training mode again if it was, even if the iterator is closed.

        Raises InputError for a picture that cannot be decoded and as `checked` does, and KeyboardInterrupt on Ctrl-C
        or SIGTERM, after the current batch.
        """
        training = self.model.training
        if training:
            self.model.set_train(False)
        try:
            with closing(iterate(batches, self.workers, start, self.backend.compiled)) as items:
                shown = progress(items, len(batches), "features", " images", self.batch_size, start)
                queued = ((self._queued(batches.images, *item[:2], flip), *item[1:]) for item in shown)
                for versions, index, *rest in behind(queued, self.ahead):
                    names = [batches.images.paths[i] for i in index]
                    rows = [checked(version, names) for version in versions]
                    yield index, np.mean(rows, axis=0) if rows else None, *rest
        finally:
            if training:
                self.model.set_train()

    def extract(
        self, images: ImageSet, version: CorruptedVersion | None = None, flip: bool = False, renormalise: bool = False
    ) -> np.ndarray:
        """Extract the features of all pictures, in each process of the group: float32 [N, C] in the order of `images`.
        Raises as `by_batch` does.

        version: corrupts the visible pictures. flip: average each picture's feature with its mirror image's; this ranks
        as their sum, which LLCM's authors take. renormalise: normalise that mean, as in CAJ's release.
        """
        batches = EvaluationBatches(
            images, self.image_size, self.batch_size, version, self.group.rank, self.group.world_size, self.value_ranges
        )
        features = None
        with self.group.together():
            for index, rows in self.by_batch(batches, flip=flip):
                if features is None:
                    features = np.zeros((len(images), rows.shape[1]), np.float32)
                features[index] = rows
        features = self.group.merge_rows(features)
        if renormalise:
            features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features

    def _queued(self, images: ImageSet, pixels: np.ndarray, index: np.ndarray, flip: bool) -> list[Request]:
        """Queue the pictures at `index`, all of one modality, and with `flip` their mirror images; [] without any."""
        if not len(index):
            return []
        modality = "infrared" if images.infrared[index[0]] else "visible"
        versions = [pixels, np.ascontiguousarray(pixels[:, :, :, ::-1])] if flip else [pixels]
        return [self.queue(version, modality) for version in versions]

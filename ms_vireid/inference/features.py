"""Features of pictures: the forward passes of a trained model."""

from collections.abc import Iterator
from contextlib import closing

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.loader import iterate
from ms_vireid.data.records import ImageSet
from ms_vireid.devices import runtime
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.models.base import ReIDModel
from ms_vireid.programs.prepare import announced


def features_of(model: ReIDModel, pixels: np.ndarray, modality: str, batch_size: int) -> np.ndarray:
    """BNNeck features of at most `batch_size` pictures of one modality, L2-normalised: float32 [n, 3, H, W] -> [n, C].

    Where a graph computes the model there is one for each modality and size of batch. A smaller batch is filled up, so
    that a last one has no graph of its own.
    """
    if model.program != "graph":
        return model(Tensor(pixels, ms.float32), modality).asnumpy()
    whole = np.zeros((batch_size, *pixels.shape[1:]), np.float32)
    whole[: len(pixels)] = pixels
    if modality in model.graphs:
        return model.graphs[modality](runtime.to_device(whole)).asnumpy()[: len(pixels)]

    def features(images):
        return model(images, modality)

    model.graphs[modality] = ms.jit(features)
    with announced(f"the features of {modality} pictures"):
        return model.graphs[modality](runtime.to_device(whole)).asnumpy()[: len(pixels)]


def features_by_batch(
    model: ReIDModel, batches: EvaluationBatches, batch_size: int, workers: int, start: int = 0, flip: bool = False
) -> Iterator[tuple]:
    """For each batch from `start` on: indices int [n]; BNNeck features float32 [n, C], L2-normalised, or None for an
    empty batch; and the rest of the batch.

    flip: see `extract_features`. The model keeps its mode (training or evaluation).

    Raises:
        InputError: a picture cannot be decoded, or a feature is not finite.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the batch in hand.
    """
    training = model.training
    model.set_train(False)
    with closing(iterate(batches, workers, start)) as items:
        for pixels, index, *rest in progress(items, len(batches), "features", " images", batch_size, start):
            rows = None
            if len(index):
                modality = "infrared" if batches.images.infrared[index[0]] else "visible"
                rows = features_of(model, pixels, modality, batch_size)
                if flip:
                    turned = np.ascontiguousarray(pixels[:, :, :, ::-1])
                    rows = (rows + features_of(model, turned, modality, batch_size)) / 2
                _require_finite(rows, batches.images, index)
            yield index, rows, *rest
    model.set_train(training)


def extract_features(
    model: ReIDModel,
    images: ImageSet,
    image_size: tuple[int, int],
    batch_size: int,
    workers: int,
    version: CorruptedVersion | None = None,
    group: ProcessGroup = ALONE,
    flip: bool = False,
) -> np.ndarray:
    """BNNeck features of all pictures, L2-normalised: float32 [N, C] in the order of `images`.

    version: corrupts the visible pictures. group: the processes that share the work; each gets all features.
    flip: each is the mean of the picture's features and of those of the picture turned left to right, not normalised
    again: what ranks as the sum of both that LLCM's authors take.

    Raises InputError and KeyboardInterrupt as `features_by_batch` does.
    """
    batches = EvaluationBatches(images, image_size, batch_size, version, group.rank, group.world_size)
    features = None
    with group.together():
        for index, rows in features_by_batch(model, batches, batch_size, workers, flip=flip):
            if features is None:
                features = np.zeros((len(images), rows.shape[1]), np.float32)
            features[index] = rows
    return group.merge_rows(features)


def _require_finite(rows: np.ndarray, images: ImageSet, index: np.ndarray) -> None:
    """Raise InputError for a picture whose feature is not finite; rows: float32 [n, C], of the pictures at `index`."""
    wrong = index[~np.isfinite(rows).all(axis=1)]
    if len(wrong):
        raise InputError(f"{images.paths[wrong[0]]}: its feature is not finite; check the checkpoint and the picture")

"""Features of pictures, and the evaluation of a model under its data set's protocol."""

from collections.abc import Iterator
from contextlib import closing

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_vireid import runtime
from ms_vireid.config import Config, EvaluationConfig
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.corruptions import CorruptedVersion, read_photographs
from ms_vireid.data.loader import iterate
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.engine.programs import announced
from ms_vireid.errors import InputError
from ms_vireid.evaluation.protocol import (
    ProtocolResult,
    Trial,
    average_trials,
    chance,
    cross_modality_trials,
    evaluate_trials,
    llcm_trials,
    require_matches,
    sysu_mm01_trials,
)
from ms_vireid.models.base import ReIDModel
from ms_vireid.progress import progress

CORRUPTED_EVALUATIONS = 10  # as published


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


def protocol_trials(data: ReIDData, config: EvaluationConfig) -> list[Trial]:
    """The queries and galleries of the data set's protocol.

    Raises:
        InputError: a direction that the protocol does not have, or a test set without queries, without a gallery, or
            with a trial in which no query has a match.
    """
    if data.protocol == "sysu_mm01" and config.direction != "infrared-to-visible":
        raise InputError("evaluation.direction: SYSU-MM01's protocol has infrared queries only; leave it out")
    try:
        if data.protocol == "sysu_mm01":
            trials = sysu_mm01_trials(data.test, config.mode, config.shots, config.trials)
        elif data.protocol == "llcm":
            trials = llcm_trials(data.test, config.direction, config.trials)
        else:
            trials = cross_modality_trials(data.test, config.direction)
        require_matches(data.test, trials, data.protocol)
    except ValueError as error:
        raise InputError(f"{data.root}: {error}; check the test set's pictures and lists") from None
    return trials


def chance_level(data: ReIDData, config: EvaluationConfig) -> dict[str, float]:
    """What the protocol gives for rankings drawn at random, fractions; raises InputError as `protocol_trials` does."""
    return chance(data.test, protocol_trials(data, config), data.protocol)


def searched_features(
    model: nn.Cell, data: ReIDData, config: Config, group: ProcessGroup = ALONE
) -> tuple[np.ndarray, list[Trial]]:
    """Features of what the protocol's trials search, float32 [N, C] in the order of data.test (zeros elsewhere).

    Raises:
        InputError: as `extract_features` and `protocol_trials` do.
    """
    trials = protocol_trials(data, config.evaluation)
    used = np.unique(np.concatenate([part for trial in trials for part in (trial.query, trial.gallery)]))
    options = config.data.image_size, config.evaluation.batch_size, config.data.workers
    rows = extract_features(model, data.test.subset(used), *options, group=group, flip=config.evaluation.flip)
    features = np.zeros((len(data.test), rows.shape[1]), np.float32)
    features[used] = rows
    return features, trials


def evaluate_model(model: nn.Cell, data: ReIDData, config: Config, group: ProcessGroup = ALONE) -> ProtocolResult:
    """Extract what the protocol's trials need, once, and rank every trial; processes of a group share the first."""
    features, trials = searched_features(model, data, config, group)
    return evaluate_trials(features, data.test, trials, data.protocol)


def frost_photographs(config: EvaluationConfig) -> tuple[np.ndarray, ...]:
    """The user's photographs of frost, none without a folder of them; raises InputError as `read_photographs` does."""
    return () if config.frost is None else read_photographs(config.frost)


def evaluate_corrupted(model: nn.Cell, data: ReIDData, config: Config) -> ProtocolResult:
    """The same with corrupted visible pictures (Chen et al., NeurIPS 2021), as the mean of ten evaluations.

    As in the benchmark's release all of them search the protocol's first trial. Evaluation t is of version t of the
    set: each visible picture's type and severity are drawn for it. Infrared pictures stay as they are.
    """
    trial = protocol_trials(data, config.evaluation)[0]
    used = np.unique(np.concatenate([trial.query, trial.gallery]))
    infrared, visible = used[data.test.infrared[used]], used[~data.test.infrared[used]]
    photographs = frost_photographs(config.evaluation)

    def features_of_test(index: np.ndarray, version: CorruptedVersion | None = None) -> np.ndarray:
        options = config.data.image_size, config.evaluation.batch_size, config.data.workers
        return extract_features(model, data.test.subset(index), *options, version, flip=config.evaluation.flip)

    clean = features_of_test(infrared)
    features = np.zeros((len(data.test), clean.shape[1]), np.float32)
    features[infrared] = clean
    results = []
    for seed in range(CORRUPTED_EVALUATIONS):
        features[visible] = features_of_test(visible, CorruptedVersion(seed, visible, photographs))
        results += evaluate_trials(features, data.test, [trial], data.protocol).trials
    return average_trials(results, data.test, [trial] * CORRUPTED_EVALUATIONS)

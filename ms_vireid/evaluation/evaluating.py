"""The evaluation of a model under its data set's protocol."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.config import EvaluationConfig
from ms_vireid.data.corruptions import CorruptedVersion, read_photographs
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.evaluation.protocol import (
    ChosenThreshold,
    ProtocolResult,
    Trial,
    average_trials,
    choose_threshold,
    evaluate_trials,
    protocol_trials,
)

if TYPE_CHECKING:
    from ms_vireid.search.features import FeatureExtractor

CORRUPTED_EVALUATIONS = 10  # as published


def searched_features(
    extractor: "FeatureExtractor", data: ReIDData, config: EvaluationConfig, group: ProcessGroup = ALONE
) -> tuple[np.ndarray, list[Trial]]:
    """Extract the features that the protocol's trials use, once each: float32 [N, C] in the order of data.test, zeros
    elsewhere. Raises InputError as `FeatureExtractor.extract` and `protocol_trials` do."""
    trials = protocol_trials(data, config)
    used = np.unique(np.concatenate([part for trial in trials for part in (trial.query, trial.gallery)]))
    rows = extractor.extract(data.test.subset(used), group=group, **_mirrored(config))
    features = np.zeros((len(data.test), rows.shape[1]), np.float32)
    features[used] = rows
    return features, trials


def _mirrored(config: EvaluationConfig) -> dict[str, bool]:
    return {"flip": config.flip, "renormalise": config.renormalise}


def evaluate_model(
    extractor: "FeatureExtractor",
    data: ReIDData,
    config: EvaluationConfig,
    group: ProcessGroup = ALONE,
    threshold: float | None = None,
) -> ProtocolResult:
    """Extract features and rank every trial; the processes of a group share the extraction. threshold: as for
    `evaluate_trials`."""
    features, trials = searched_features(extractor, data, config, group)
    return evaluate_trials(features, data.test, trials, data.protocol, config.rerank, threshold)


def threshold_of_others(
    extractor: "FeatureExtractor", data: ReIDData, config: EvaluationConfig, rate: float
) -> ChosenThreshold:
    """Choose the threshold for a false-match rate on the set's training people, who are searched as its protocol
    searches test people. The model must not have been trained on them. Raises InputError as `searched_features` and
    `choose_threshold` do."""
    others = dataclasses.replace(data, test=data.train)
    features, trials = searched_features(extractor, others, config)
    return choose_threshold(features, others.test, trials, data.protocol, rate)


def frost_photographs(config: EvaluationConfig) -> tuple[np.ndarray, ...]:
    """Read the user's photographs of frost, if any. Raises InputError as `read_photographs` does."""
    return () if config.frost is None else read_photographs(config.frost)


def evaluate_corrupted(
    extractor: "FeatureExtractor", data: ReIDData, config: EvaluationConfig, threshold: float | None = None
) -> ProtocolResult:
    """Evaluate with corrupted visible pictures (Chen et al., NeurIPS 2021): the mean over ten versions of the set, each
    of which draws type and severity for every picture. All search the first trial, as in the benchmark's release.
    threshold: as for `evaluate_trials`."""
    trial = protocol_trials(data, config)[0]
    used = np.unique(np.concatenate([trial.query, trial.gallery]))
    infrared, visible = used[data.test.infrared[used]], used[~data.test.infrared[used]]
    photographs = frost_photographs(config)
    clean = extractor.extract(data.test.subset(infrared), **_mirrored(config))
    features = np.zeros((len(data.test), clean.shape[1]), np.float32)
    features[infrared] = clean
    results = []
    for seed in range(CORRUPTED_EVALUATIONS):
        version = CorruptedVersion(seed, visible, photographs)
        features[visible] = extractor.extract(data.test.subset(visible), version, **_mirrored(config))
        results += evaluate_trials(features, data.test, [trial], data.protocol, config.rerank, threshold).trials
    return average_trials(results, data.test, [trial] * CORRUPTED_EVALUATIONS)

"""The evaluation of a model under its data set's protocol, whichever framework computes its features."""

import dataclasses
from typing import Protocol

import numpy as np

from ms_vireid.config import EvaluationConfig
from ms_vireid.data.corruptions import CorruptedVersion, read_photographs
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.protocol import (
    ChosenThreshold,
    ProtocolResult,
    Trial,
    average_trials,
    choose_threshold,
    evaluate_trials,
    protocol_trials,
)

CORRUPTED_EVALUATIONS = 10  # as published


class Extractor(Protocol):
    """A model's forward passes: `FeatureExtractor` (`ms_vireid/search/features.py`)."""

    def extract(
        self, images: ImageSet, version: CorruptedVersion | None = None, flip: bool = False, renormalise: bool = False
    ) -> np.ndarray:
        """Extract features, float32 [N, C], L2-normalised unless they are means over `flip`."""


def searched_features(extractor: Extractor, data: ReIDData, config: EvaluationConfig) -> tuple[np.ndarray, list[Trial]]:
    """Extract the features that the protocol's trials use, once each: float32 [N, C] in the order of data.test, zeros
    elsewhere. Raises InputError as `FeatureExtractor.extract` and `protocol_trials` do."""
    trials = protocol_trials(data, config)
    used = np.unique(np.concatenate([part for trial in trials for part in (trial.query, trial.gallery)]))
    rows = extractor.extract(data.test.subset(used), **_flip_options(config))
    features = np.zeros((len(data.test), rows.shape[1]), np.float32)
    features[used] = rows
    return features, trials


def _flip_options(config: EvaluationConfig) -> dict[str, bool]:
    return {"flip": config.flip, "renormalise": config.renormalise}


def evaluate_model(
    extractor: Extractor, data: ReIDData, config: EvaluationConfig, *, threshold: float | None = None
) -> ProtocolResult:
    """Extract features and rank every trial. threshold: as for `evaluate_trials`."""
    features, trials = searched_features(extractor, data, config)
    return evaluate_trials(features, data.test, trials, data.protocol, config.rerank, threshold)


def threshold_of_others(extractor: Extractor, data: ReIDData, config: EvaluationConfig, rate: float) -> ChosenThreshold:
    """Choose the threshold for a false-match rate on the set's training people, searched by its protocol. The model
    must not have been trained on them. Raises InputError as `searched_features` and `choose_threshold` do."""
    features, trials = searched_features(extractor, dataclasses.replace(data, test=data.train), config)
    return choose_threshold(features, data.train, trials, data.protocol, rate)


def evaluate_corrupted(
    extractor: Extractor, data: ReIDData, config: EvaluationConfig, *, threshold: float | None = None
) -> ProtocolResult:
    """Evaluate with corrupted visible pictures (Chen et al., NeurIPS 2021): the mean over ten versions of the set. Each
    draws a type and a severity for every picture and searches the first trial, as in the benchmark's release.
    threshold: as for `evaluate_trials`."""
    trial = protocol_trials(data, config)[0]
    used = np.unique(np.concatenate([trial.query, trial.gallery]))
    infrared, visible = used[data.test.infrared[used]], used[~data.test.infrared[used]]
    photographs = read_photographs(config.frost)
    clean = extractor.extract(data.test.subset(infrared), **_flip_options(config))
    features = np.zeros((len(data.test), clean.shape[1]), np.float32)
    features[infrared] = clean
    results = []
    for seed in range(CORRUPTED_EVALUATIONS):
        version = CorruptedVersion(seed, visible, photographs)
        features[visible] = extractor.extract(data.test.subset(visible), version, **_flip_options(config))
        results += evaluate_trials(features, data.test, [trial], data.protocol, config.rerank, threshold).trials
    return average_trials(results, data.test, [trial] * CORRUPTED_EVALUATIONS)

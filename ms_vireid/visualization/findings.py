"""What a trained model makes of its test set, for a run's page."""

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.protocol import protocol_trials
from ms_vireid.inference.trained import TrainedModel
from ms_vireid.visualization.gradcam import Picture, gradcam, overlay
from ms_vireid.visualization.ranked import Ranked, choose_queries, rank_queries
from ms_vireid.visualization.similarity import Similarities, sample_similarities

EXPLAINED = 2  # of the best queries and of the worst


@dataclass(frozen=True, eq=False)
class Explained:
    """Where the similarity of a query and its nearest picture comes from, in each: maps over them, uint8 [H, W, 3]."""

    ranked: Ranked
    query_map: np.ndarray
    nearest_map: np.ndarray


@dataclass(frozen=True, eq=False)
class Findings:
    """ranked: every query of the protocol's first trial. best, worst: some of them, by average precision."""

    test: ImageSet
    similarities: Similarities
    ranked: list[Ranked]
    best: list[Ranked]
    worst: list[Ranked]
    explained: list[Explained]


def find(trained: TrainedModel, data: ReIDData, queries: int) -> Findings:
    """With `queries` of the best and of the worst queries, or fewer where there are not as many.

    Raises:
        InputError: a picture cannot be decoded, or the test set has no query with a match, or nothing else to match.
    """
    test = data.test
    trial = protocol_trials(data, trained.config.evaluation)[0]
    features = trained.features(test)
    ranked = rank_queries(features, test, trial, data.protocol)
    best = choose_queries(ranked, min(queries, -(-len(ranked) // 2)), "best")
    worst = choose_queries(ranked, min(queries, len(ranked) // 2), "worst")
    chosen = [one for pair in zip_longest(best[:EXPLAINED], worst[:EXPLAINED]) for one in pair if one is not None]
    explained = [_explain(trained, test, one) for one in chosen]
    return Findings(test, sample_similarities(features, test), ranked, best, worst, explained)


def _explain(trained: TrainedModel, test: ImageSet, one: Ranked) -> Explained:
    query, nearest = (_picture(test, index, trained.image_size) for index in (one.query, one.gallery[0]))
    maps = [gradcam(trained.model, a, b, relative=True) for a, b in ((query, nearest), (nearest, query))]
    return Explained(one, overlay(query, maps[0]), overlay(nearest, maps[1]))


def _picture(test: ImageSet, index: int, size: tuple[int, int]) -> Picture:
    return Picture.load(test.paths[index], "infrared" if test.infrared[index] else "visible", size)

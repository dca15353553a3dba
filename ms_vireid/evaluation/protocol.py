"""The data sets' evaluation protocols: the queries and galleries of each trial, and the mean over trials."""

import dataclasses
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, EvaluationConfig
from ms_vireid.data.published_sets import SYSU_INFRARED_CAMERAS
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.ranking import RankingResult, evaluate_ranking, mean_and_deviation, query_groups
from ms_vireid.evaluation.threshold import STEPS, count_impostors, threshold_metrics

SYSU_MM01_GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
CHOICES = {  # keys of `EvaluationConfig` that a protocol leaves open; SYSU-MM01's has infrared queries only
    "sysu_mm01": ("mode", "shots", "trials"),
    "llcm": ("direction", "trials"),
    "regdb": ("direction",),
}
OF_THRESHOLD = ("threshold", "fmr", "validation_people", "validation_pairs", "validation_accepted")  # of `evaluated`
RANKINGS = 50_000  # averaged for chance, at least: a rate of 1 % then has a standard error of 0.04 %


@dataclass(frozen=True, eq=False)
class Trial:
    """One search: integer indices into a test ImageSet, in ranking order."""

    query: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """The metrics of every trial, and their mean and population standard deviation over trials, as fractions in 0..1.

    evaluated: the description by `evaluated`, if it has been added.
    """

    mean: dict[str, float]  # by the names of RankingResult.metrics
    std: dict[str, float]
    trials: tuple[RankingResult, ...]
    num_queries: int  # of the first trial
    num_gallery: int
    checksum: str
    evaluated: dict = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Convert to plain numbers, strings, lists and dicts, for JSON."""
        return vars(self) | {"trials": [trial.metrics() for trial in self.trials]}


def protocol_trials(data: ReIDData, config: EvaluationConfig) -> list[Trial]:
    """Make the queries and galleries of the data set's protocol.

    Raises InputError for a direction that the protocol does not have, a test set without queries or without a gallery,
    or a trial in which no query has a match.
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
        for trial in trials:
            query_groups(*_columns(data.test, trial), data.protocol)
    except ValueError as error:
        raise InputError(f"{data.root}: {error}; check the test set's pictures and lists") from None
    return trials


def require_choices(keys: Iterable[str], data: ReIDData, prefix: str = "evaluation.") -> None:
    """Raise InputError if one of `mode`, `shots` and `trials` is set although the data set's protocol does not use it.

    keys: names, or overrides of a configuration. prefix: of a name in the error.
    """
    for name in (key.partition("=")[0].removeprefix("evaluation.") for key in keys):
        if name in ("mode", "shots", "trials") and name not in CHOICES[data.protocol]:
            raise InputError(f"{prefix}{name}: has no effect on {data.name}; leave it out")


def evaluated(config: Config, protocol: str, corrupted: bool = False, trained_on: str | None = None) -> dict:
    """Describe an evaluation in plain values: the data sets of training (default: the tested one) and test, the choices
    in the protocol, and how features are computed and ranked. A corrupted set is evaluated on the first trial only."""
    chosen = {name: getattr(config.evaluation, name) for name in CHOICES[protocol]}
    if corrupted:
        chosen.pop("trials", None)
    split = {"split": config.data.trial} if config.data.name == "regdb" else {}
    direction = {"direction": config.evaluation.direction}
    features = {name: getattr(config.evaluation, name) for name in ("flip", "renormalise", "rerank")}
    features["corrupted"] = corrupted
    sets = {"trained_on": trained_on or config.data.name, "data": config.data.name}
    return sets | split | direction | chosen | features


def sysu_mm01_trials(test: ImageSet, mode: str = "all", shots: int = 1, trials: int = 10) -> list[Trial]:
    """Make SYSU-MM01's trials: every picture of cameras 3 and 6 is searched in a gallery that is drawn for each trial
    (`_drawn`).

    Raises ValueError for a test set without a query or gallery picture.
    """
    cameras = SYSU_MM01_GALLERY_CAMERAS[mode]
    query, whole = (np.flatnonzero(np.isin(test.cameras, c)) for c in (SYSU_INFRARED_CAMERAS, cameras))
    _require_pictures(f"cameras {SYSU_INFRARED_CAMERAS}", query=query)
    _require_pictures(f"cameras {cameras}", gallery=whole)
    return [Trial(query, gallery) for gallery in _drawn(test, whole, shots, trials)]


def cross_modality_trials(test: ImageSet, direction: str = "infrared-to-visible") -> list[Trial]:
    """Make a single trial: every picture of one modality is searched among all of the other (RegDB, folders).

    Raises ValueError for a test set that lacks a modality.
    """
    is_query = test.infrared if direction == "infrared-to-visible" else ~test.infrared
    query, gallery = np.flatnonzero(is_query), np.flatnonzero(~is_query)
    _require_pictures(direction, query=query, gallery=gallery)
    return [Trial(query, gallery)]


def llcm_trials(test: ImageSet, direction: str = "infrared-to-visible", trials: int = 10) -> list[Trial]:
    """Make LLCM's trials, with its authors' names of directions and pictures drawn for each trial (`_drawn`).

    "infrared-to-visible" searches every infrared picture among drawn visible ones. For "visible-to-infrared" the
    authors' test script draws infrared pictures as a gallery and then transposes the distances: the drawn infrared
    pictures are searched among all visible ones. Their table shows this: rank-1 exceeds mAP, as many pictures match.

    Raises ValueError for a test set that lacks a modality.
    """
    (whole,) = cross_modality_trials(test, direction)
    drawn = _drawn(test, whole.gallery, 1, trials)
    transposed = direction == "visible-to-infrared"
    return [Trial(chosen, whole.query) if transposed else Trial(whole.query, chosen) for chosen in drawn]


def _drawn(test: ImageSet, pictures: np.ndarray, shots: int, trials: int) -> Iterator[np.ndarray]:
    """Sample galleries from `pictures`, indices into the test set, as in both data sets' releases.

    For trial t = 0, 1, ..., Python's `random` is seeded with t. For each identity in ascending order and each of its
    cameras in order, it draws from their files, sorted by name: one by `choice` (shots=1), or ten by `sample`
    (shots=10; if there are fewer, all are taken without a draw). A pair without files draws nothing.
    """
    pairs = defaultdict(list)
    for i in sorted(pictures.tolist(), key=lambda i: test.paths[i].name):
        pairs[test.identities[i], test.cameras[i]].append(i)
    for trial in range(trials):
        generator, gallery = random.Random(trial), []
        for _, files in sorted(pairs.items()):
            if shots == 1:
                gallery.append(generator.choice(files))
            else:
                gallery += files if len(files) < shots else generator.sample(files, shots)
        yield np.array(gallery)


def _require_pictures(where: str, **roles: np.ndarray) -> None:
    for role, pictures in roles.items():
        if not len(pictures):
            raise ValueError(f"the test set has no {role} picture ({where})")


def trials_checksum(test: ImageSet, trials: Sequence[Trial]) -> str:
    """Return 16 hex digits of a SHA-256 over identity, camera, modality and file name of all pictures, in order."""
    rows = zip(test.paths, test.identities, test.cameras, test.infrared, strict=True)
    lines = [
        f"{person}\t{camera}\t{'infrared' if ir else 'visible'}\t{path.name}\n" for path, person, camera, ir in rows
    ]
    digest = hashlib.sha256()
    for trial in trials:
        for role, index in (("query", trial.query), ("gallery", trial.gallery)):
            digest.update(f"{role}\t{len(index)}\n".encode())
            digest.update("".join(lines[i] for i in index).encode())
    return digest.hexdigest()[:16]


def evaluate_trials(
    features: np.ndarray,
    test: ImageSet,
    trials: Sequence[Trial],
    protocol: str,
    reranked: bool = False,
    threshold: float | None = None,
) -> ProtocolResult:
    """Rank every trial by distance = 1 - inner product, or by `rerank`, and average.

    features: float32 [N, C], L2-normalised, one row for each picture of `test`. threshold: a similarity, to measure
    `threshold_metrics` too. Raises as evaluate_ranking does."""
    if reranked:
        from ms_vireid.evaluation.reranking import rerank  # here, as it imports Numba and SciPy, which --help can spare
    results = []
    for trial in trials:
        pair = features[trial.query], features[trial.gallery]
        distance = rerank(*pair) if reranked else 1 - pair[0] @ pair[1].T
        result = evaluate_ranking(distance, *_columns(test, trial), protocol)
        del distance  # of two such matrices at once, memory may not hold the second
        if threshold is not None:
            at_threshold = threshold_metrics(pair[0] @ pair[1].T, *_columns(test, trial), protocol, threshold)
            result = dataclasses.replace(result, at_threshold=at_threshold)
        results.append(result)
    return average_trials(results, test, trials)


class ChosenThreshold(NamedTuple):
    """A threshold for a false-match rate, and what it rests on."""

    threshold: float
    people: int
    pairs: int  # of different people, in all trials
    accepted: int  # of these pairs


def choose_threshold(
    features: np.ndarray, images: ImageSet, trials: Sequence[Trial], protocol: str, rate: float
) -> ChosenThreshold:
    """Choose the lowest threshold, in steps of 1 / STEPS, that accepts at most `rate` of the pairs of different people
    in all trials. Features are as for `evaluate_trials`, of people who are neither trained nor tested on.

    Raises InputError if a trial has fewer than 1 / rate such pairs, and if even a threshold of 1 accepts more.
    """
    searches = ((features[trial.query] @ features[trial.gallery].T, *_columns(images, trial)) for trial in trials)
    counts = sum(count_impostors(*search, protocol) for search in searches)
    people, total = images.num_identities, int(counts[0])
    if rate * total < len(trials):
        few = f"the {people} people that choose the threshold make {total // len(trials):,}"
        problem = f"needs at least {ceil(1 / rate):,} pairs of different people, but {few}"
        raise InputError(f"fmr {rate:g}: {problem}; ask for a higher rate, or give more people")
    fitting = np.flatnonzero(counts / total <= rate)
    if not len(fitting):
        alike = f"{counts[-1]:,} of {total:,} pairs of different people have a similarity of 1"
        raise InputError(f"fmr {rate:g}: {alike}, and no threshold tells them apart; check the model and the pictures")
    chosen = int(fitting[0])
    return ChosenThreshold((chosen - STEPS) / STEPS, people, total, int(counts[chosen]))


def average_trials(results: Sequence[RankingResult], test: ImageSet, trials: Sequence[Trial]) -> ProtocolResult:
    """Combine the results of all trials."""
    mean, std = mean_and_deviation([result.metrics() for result in results])
    return ProtocolResult(
        mean=mean,
        std=std,
        trials=tuple(results),
        num_queries=len(trials[0].query),
        num_gallery=len(trials[0].gallery),
        checksum=trials_checksum(test, trials),
    )


def chance(test: ImageSet, trials: Sequence[Trial], protocol: str) -> dict[str, float]:
    """Return the metrics of at least `RANKINGS` random rankings, from a fixed seed."""
    repeats = -(-RANKINGS // sum(len(trial.query) for trial in trials))
    generator = np.random.default_rng(0)
    drawn = [Trial(np.tile(trial.query, repeats), trial.gallery) for trial in trials]
    distances = (generator.random((len(trial.query), len(trial.gallery)), np.float32) for trial in drawn)
    results = [evaluate_ranking(d, *_columns(test, t), protocol) for d, t in zip(distances, drawn, strict=True)]
    return average_trials(results, test, trials).mean


def _columns(test: ImageSet, trial: Trial) -> list[np.ndarray]:
    """Return query_ids, gallery_ids, query_cameras and gallery_cameras of a trial."""
    return [column[index] for column in (test.identities, test.cameras) for index in (trial.query, trial.gallery)]

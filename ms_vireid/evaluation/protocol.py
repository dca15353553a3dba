"""The data sets' evaluation protocols: who is searched among whom, how often, and what comes out on average."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, EvaluationConfig
from ms_vireid.data.folders import SYSU_INFRARED_CAMERAS
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.ranking import RankingResult, evaluate_ranking, query_groups

SYSU_MM01_GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
CHOICES = {  # of `EvaluationConfig`, that a protocol leaves open; infrared queries are all that SYSU-MM01's has
    "sysu_mm01": ("mode", "shots", "trials"),
    "llcm": ("direction", "trials"),
    "regdb": ("direction",),
}
RANKINGS = 50_000  # chance averages at least as many, so that a rate of 1 % has a standard error of 0.04 %


@dataclass(frozen=True, eq=False)
class Trial:
    """One search: integer indices into a test ImageSet, in the order in which they are ranked."""

    query: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """The metrics of every trial, and their mean and population standard deviation over trials, fractions in 0..1.

    evaluated: what `evaluated` says of it, where that has been added.
    """

    mean: dict[str, float]  # by the names of RankingResult.metrics
    std: dict[str, float]
    trials: tuple[RankingResult, ...]
    num_queries: int  # of the first trial
    num_gallery: int
    checksum: str
    evaluated: dict = field(default_factory=dict)

    def as_dict(self) -> dict:
        """The same as plain numbers, strings, lists and dicts, for JSON."""
        return vars(self) | {"trials": [trial.metrics() for trial in self.trials]}


def protocol_trials(data: ReIDData, config: EvaluationConfig) -> list[Trial]:
    """The queries and galleries of the data set's protocol.

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


def require_choices(given: Iterable[str], data: ReIDData, sign: str = "evaluation.") -> None:
    """Raise InputError for one of the keys `mode`, `shots` and `trials` that the data set's protocol has no use for.

    given: names, or overrides of a configuration.
    """
    for name in (word.partition("=")[0].removeprefix("evaluation.") for word in given):
        if name in ("mode", "shots", "trials") and name not in CHOICES[data.protocol]:
            raise InputError(f"{sign}{name}: {data.name} is evaluated without it; leave it out")


def evaluated(config: Config, protocol: str, corrupted: bool = False) -> dict:
    """What an evaluation is of, as plain values: the data set, what was chosen of its protocol, and how features are
    made and ranked. A corrupted set is evaluated on the first trial alone."""
    chosen = {name: getattr(config.evaluation, name) for name in CHOICES[protocol]}
    if corrupted:
        chosen.pop("trials", None)
    split = {"split": config.data.trial} if config.data.name == "regdb" else {}
    direction = {"direction": config.evaluation.direction}
    features = {name: getattr(config.evaluation, name) for name in ("flip", "renormalise", "rerank")}
    features["corrupted"] = corrupted
    return {"data": config.data.name} | split | direction | chosen | features


def sysu_mm01_trials(test: ImageSet, mode: str = "all", shots: int = 1, trials: int = 10) -> list[Trial]:
    """SYSU-MM01's searches: every picture of cameras 3 and 6 among a gallery drawn anew for each trial (`_drawn`).

    Raises ValueError for a test set without a query or gallery picture.
    """
    cameras = SYSU_MM01_GALLERY_CAMERAS[mode]
    query, whole = (np.flatnonzero(np.isin(test.cameras, c)) for c in (SYSU_INFRARED_CAMERAS, cameras))
    _require_pictures(f"cameras {SYSU_INFRARED_CAMERAS}", query=query)
    _require_pictures(f"cameras {cameras}", gallery=whole)
    return [Trial(query, gallery) for gallery in _drawn(test, whole, shots, trials)]


def cross_modality_trials(test: ImageSet, direction: str = "infrared-to-visible") -> list[Trial]:
    """The one search of every picture of one modality among every picture of the other (RegDB, folders).

    Raises ValueError for a test set that lacks a modality.
    """
    asked = test.infrared if direction == "infrared-to-visible" else ~test.infrared
    query, gallery = np.flatnonzero(asked), np.flatnonzero(~asked)
    _require_pictures(direction, query=query, gallery=gallery)
    return [Trial(query, gallery)]


def llcm_trials(test: ImageSet, direction: str = "infrared-to-visible", trials: int = 10) -> list[Trial]:
    """LLCM's searches by its authors' names, with pictures drawn anew for each trial (`_drawn`).

    "infrared-to-visible" searches every infrared picture among the drawn visible ones. For "visible-to-infrared" the
    authors' test script draws infrared pictures as a gallery and then transposes the matrix: the drawn infrared
    pictures are searched among all visible ones. Their table shows it: rank-1 is above mAP, as many pictures match.

    Raises ValueError for a test set that lacks a modality.
    """
    (whole,) = cross_modality_trials(test, direction)
    drawn = _drawn(test, whole.gallery, 1, trials)
    turned = direction == "visible-to-infrared"
    return [Trial(one, whole.query) if turned else Trial(whole.query, one) for one in drawn]


def _drawn(test: ImageSet, pictures: np.ndarray, shots: int, trials: int) -> Iterator[np.ndarray]:
    """The published sampling from `pictures`, indices into the test set; both data sets' releases have it.

    For trial t = 0, 1, ..., Python's `random` seeded with t goes through the identities in ascending order and their
    cameras in order, and draws from the pair's files, sorted by name: one by `choice` (shots=1), or ten by `sample`
    (shots=10; all of them, without a draw, if there are fewer). A pair without files draws nothing.
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


def _require_pictures(where: str, **found: np.ndarray) -> None:
    for role, pictures in found.items():
        if not len(pictures):
            raise ValueError(f"the test set has no {role} picture ({where})")


def trials_checksum(test: ImageSet, trials: Sequence[Trial]) -> str:
    """16 hex digits of a SHA-256 over identity, camera, modality and file name of all that is searched, in order."""
    rows = zip(test.paths, test.identities, test.cameras, test.infrared, strict=True)
    lines = [f"{who}\t{camera}\t{'infrared' if ir else 'visible'}\t{path.name}\n" for path, who, camera, ir in rows]
    digest = hashlib.sha256()
    for trial in trials:
        for role, index in (("query", trial.query), ("gallery", trial.gallery)):
            digest.update(f"{role}\t{len(index)}\n".encode())
            digest.update("".join(lines[i] for i in index).encode())
    return digest.hexdigest()[:16]


def evaluate_trials(
    features: np.ndarray, test: ImageSet, trials: Sequence[Trial], protocol: str, reranked: bool = False
) -> ProtocolResult:
    """Rank every trial by distance = 1 - inner product, or as `rerank` has it, and average.

    features: float32 [N, C], one row for each picture of `test`, L2-normalised. Else as evaluate_ranking."""
    if reranked:
        from ms_vireid.evaluation.reranking import rerank  # only now: it brings Numba
    results = []
    for trial in trials:
        pair = features[trial.query], features[trial.gallery]
        distance = rerank(*pair) if reranked else 1 - pair[0] @ pair[1].T
        results.append(evaluate_ranking(distance, *_columns(test, trial), protocol))
    return average_trials(results, test, trials)


def average_trials(results: Sequence[RankingResult], test: ImageSet, trials: Sequence[Trial]) -> ProtocolResult:
    """The result of all trials from the result of each."""
    mean, std = mean_and_deviation([result.metrics() for result in results])
    return ProtocolResult(
        mean=mean,
        std=std,
        trials=tuple(results),
        num_queries=len(trials[0].query),
        num_gallery=len(trials[0].gallery),
        checksum=trials_checksum(test, trials),
    )


def mean_and_deviation(metrics: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Of each metric over trials or runs: the mean, and the population standard deviation."""
    columns = {name: [m[name] for m in metrics] for name in metrics[0]}
    return tuple({name: float(f(values)) for name, values in columns.items()} for f in (np.mean, np.std))


def chance(test: ImageSet, trials: Sequence[Trial], protocol: str) -> dict[str, float]:
    """The metrics of evaluate_trials for at least `RANKINGS` rankings drawn at random, from a fixed seed."""
    repeats = -(-RANKINGS // sum(len(trial.query) for trial in trials))
    generator = np.random.default_rng(0)
    drawn = [Trial(np.tile(trial.query, repeats), trial.gallery) for trial in trials]
    distances = (generator.random((len(trial.query), len(trial.gallery)), np.float32) for trial in drawn)
    results = [evaluate_ranking(d, *_columns(test, t), protocol) for d, t in zip(distances, drawn, strict=True)]
    return average_trials(results, test, trials).mean


def _columns(test: ImageSet, trial: Trial) -> list[np.ndarray]:
    """query_ids, gallery_ids, query_cameras, gallery_cameras of a trial."""
    return [column[index] for column in (test.identities, test.cameras) for index in (trial.query, trial.gallery)]

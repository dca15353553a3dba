"""The data sets' evaluation protocols: who is searched among whom, how often, and what comes out on average."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ms_vireid.data.records import ImageSet
from ms_vireid.evaluation.ranking import RankingResult, evaluate_ranking, query_groups

SYSU_MM01_QUERY_CAMERAS = (3, 6)
SYSU_MM01_GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SYSU_MM01_SHOTS = (1, 10)
DIRECTIONS = ("infrared-to-visible", "visible-to-infrared")

RANKINGS = 50_000  # that chance is a mean over


@dataclass(frozen=True, eq=False)
class Trial:
    """One search: integer indices into a test ImageSet, in the order in which they are ranked."""

    query: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """Metrics of every trial, with their mean and population standard deviation over trials, fractions in 0..1.

    mean, std: by the names of RankingResult.metrics. num_queries, num_gallery: images in the first trial.
    checksum: trials_checksum of what was searched.
    """

    mean: dict[str, float]
    std: dict[str, float]
    trials: tuple[RankingResult, ...]
    num_queries: int
    num_gallery: int
    checksum: str

    def as_dict(self) -> dict:
        """The same as plain numbers, strings, lists and dicts, for JSON."""
        return vars(self) | {"trials": [trial.metrics() for trial in self.trials]}


def sysu_mm01_trials(test: ImageSet, mode: str = "all", shots: int = 1, trials: int = 10) -> list[Trial]:
    """SYSU-MM01's searches: every picture of cameras 3 and 6 among a gallery drawn anew for each trial.

    The published sampling: for trial t = 0, 1, ..., Python's `random` seeded with t goes through the identities in
    ascending order, the cameras in order (mode "all": 1, 2, 4, 5; "indoor": 1, 2) and draws from the files, sorted by
    name, that the pair has: one by `choice` (shots=1), or ten by `sample` (shots=10; all of them, without a draw,
    where there are fewer). A pair without files draws nothing.

    Raises ValueError for an unknown mode, other shots, fewer than one trial, and a test set without a query or
    gallery picture.
    """
    if mode not in SYSU_MM01_GALLERY_CAMERAS:
        raise ValueError(f"unknown mode {mode!r}: choose one of {', '.join(SYSU_MM01_GALLERY_CAMERAS)}")
    if shots not in SYSU_MM01_SHOTS:
        raise ValueError(f"shots is {shots}: choose 1 (single-shot) or 10 (multi-shot)")
    if trials < 1:
        raise ValueError(f"trials is {trials}: it must be at least 1")
    cameras = SYSU_MM01_GALLERY_CAMERAS[mode]
    query = np.flatnonzero(np.isin(test.cameras, SYSU_MM01_QUERY_CAMERAS))
    pairs = _files_by_pair(test, np.isin(test.cameras, cameras))
    _require_pictures(len(query), f"cameras {SYSU_MM01_QUERY_CAMERAS}", "query")
    _require_pictures(len(pairs), f"cameras {cameras}", "gallery")
    return [Trial(query, _draw_gallery(pairs, shots, random.Random(t))) for t in range(trials)]


def cross_modality_trials(test: ImageSet, direction: str = "infrared-to-visible") -> list[Trial]:
    """The one search of every picture of one modality among every picture of the other (RegDB, folders).

    Raises ValueError for an unknown direction and a test set that lacks a modality.
    """
    return [Trial(*_by_direction(test, direction))]


def llcm_trials(test: ImageSet, direction: str = "infrared-to-visible", trials: int = 10) -> list[Trial]:
    """LLCM's searches by the names that its authors report them under, with pictures drawn anew for each trial.

    The published sampling: for trial t = 0, 1, ..., Python's `random` seeded with t goes through the identities in
    ascending order and their cameras in order, and draws by `choice` one of the files, sorted by name, that the pair
    has. "infrared-to-visible" searches every infrared picture among the drawn visible ones. For "visible-to-infrared"
    the authors' test script draws infrared pictures as a gallery, and then turns the matrix round: the drawn infrared
    pictures are searched among all visible ones. Their table shows it: rank-1 is above mAP, as many pictures match.

    Raises ValueError for an unknown direction, fewer than one trial and a test set that lacks a modality.
    """
    if trials < 1:
        raise ValueError(f"trials is {trials}: it must be at least 1")
    whole, drawn_from = _by_direction(test, direction)
    pairs = _files_by_pair(test, np.isin(np.arange(len(test)), drawn_from))
    drawn = [_draw_gallery(pairs, 1, random.Random(t)) for t in range(trials)]
    turned = direction == "visible-to-infrared"
    return [Trial(one, whole) if turned else Trial(whole, one) for one in drawn]


def trials_checksum(test: ImageSet, trials: Sequence[Trial]) -> str:
    """The first 16 hex digits of a SHA-256 over identity, camera, modality and file name of all that is searched.

    Equal sums mean the same queries and galleries, drawn in the same order, wherever the data lie on disk.
    """
    lines = [
        f"{identity}\t{camera}\t{'infrared' if infrared else 'visible'}\t{path.name}\n"
        for path, identity, camera, infrared in zip(
            test.paths, test.identities, test.cameras, test.infrared, strict=True
        )
    ]
    digest = hashlib.sha256()
    for trial in trials:
        for role, index in (("query", trial.query), ("gallery", trial.gallery)):
            digest.update(f"{role}\t{len(index)}\n".encode())
            digest.update("".join(lines[i] for i in index).encode())
    return digest.hexdigest()[:16]


def evaluate_trials(features: np.ndarray, test: ImageSet, trials: Sequence[Trial], protocol: str) -> ProtocolResult:
    """Rank every trial by distance = 1 - inner product, and average.

    features: float32 [N, C], one row for each picture of `test`, L2-normalised. protocol: as in evaluate_ranking.
    Raises ValueError as that does, and for no trials.
    """
    if len(trials) == 0:
        raise ValueError("there are no trials to evaluate")
    results = [
        evaluate_ranking(distance, *_columns(test, trial), protocol=protocol)
        for trial, distance in zip(trials, _distances(features, trials), strict=True)
    ]
    return average_trials(results, test, trials)


def average_trials(results: Sequence[RankingResult], test: ImageSet, trials: Sequence[Trial]) -> ProtocolResult:
    """One result for each trial, averaged."""
    metrics = [result.metrics() for result in results]
    return ProtocolResult(
        mean={name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]},
        std={name: float(np.std([m[name] for m in metrics])) for name in metrics[0]},
        trials=tuple(results),
        num_queries=len(trials[0].query),
        num_gallery=len(trials[0].gallery),
        checksum=trials_checksum(test, trials),
    )


def require_matches(test: ImageSet, trials: Sequence[Trial], protocol: str) -> None:
    """Raise ValueError unless there are trials, and in each of them a query with a match."""
    if len(trials) == 0:
        raise ValueError("there are no trials to evaluate")
    for trial in trials:
        query_groups(*_columns(test, trial), protocol)


def chance(test: ImageSet, trials: Sequence[Trial], protocol: str) -> dict[str, float]:
    """What evaluate_trials gives for rankings drawn at random, from a fixed seed: its six metrics, fractions in 0..1.

    Of `RANKINGS` at least, so that a rate of 1 % has a standard error of 0.04 %. Raises ValueError as
    `require_matches` does.
    """
    require_matches(test, trials, protocol)
    repeats = -(-RANKINGS // sum(len(trial.query) for trial in trials))
    generator = np.random.default_rng(0)
    results = []
    for trial in trials:
        drawn = Trial(np.tile(trial.query, repeats), trial.gallery)
        distance = generator.random((len(drawn.query), len(drawn.gallery)), np.float32)
        results.append(evaluate_ranking(distance, *_columns(test, drawn), protocol=protocol))
    return average_trials(results, test, trials).mean


def _by_direction(test: ImageSet, direction: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pictures of the querying modality, and of all of the other."""
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: choose one of {', '.join(DIRECTIONS)}")
    infrared, visible = np.flatnonzero(test.infrared), np.flatnonzero(~test.infrared)
    query, gallery = (infrared, visible) if direction == "infrared-to-visible" else (visible, infrared)
    _require_pictures(len(query), direction, "query")
    _require_pictures(len(gallery), direction, "gallery")
    return query, gallery


def _files_by_pair(test: ImageSet, chosen: np.ndarray) -> list[list[int]]:
    """Indices of each (identity, camera) pair that has `chosen` files, bool [N]: both ascending, files by name."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in sorted(np.flatnonzero(chosen).tolist(), key=lambda i: test.paths[i].name):
        pairs.setdefault((int(test.identities[i]), int(test.cameras[i])), []).append(i)
    return [pairs[pair] for pair in sorted(pairs)]


def _draw_gallery(pairs: list[list[int]], shots: int, generator: random.Random) -> np.ndarray:
    gallery: list[int] = []
    for files in pairs:
        if shots == 1:
            gallery.append(generator.choice(files))
        elif len(files) < shots:
            gallery.extend(files)
        else:
            gallery.extend(generator.sample(files, shots))
    return np.array(gallery)


def _require_pictures(count: int, where: str, role: str) -> None:
    if count == 0:
        raise ValueError(f"the test set has no {role} picture ({where})")


def _columns(test: ImageSet, trial: Trial) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """query_ids, gallery_ids, query_cameras, gallery_cameras of a trial."""
    return (
        test.identities[trial.query],
        test.identities[trial.gallery],
        test.cameras[trial.query],
        test.cameras[trial.gallery],
    )


def _distances(features: np.ndarray, trials: Sequence[Trial]) -> Iterator[np.ndarray]:
    """Each trial's matrix [Q, G].

    Trials with the same queries share one product with all pictures that are in any gallery: ten multi-shot trials of
    SYSU-MM01 draw each picture 4 times, and picking columns is much cheaper than multiplying again.
    """
    same_queries = len(trials) > 1 and all(np.array_equal(trial.query, trials[0].query) for trial in trials)
    if not same_queries:
        for trial in trials:
            yield _distance(features, trial.query, trial.gallery)
        return
    union = np.unique(np.concatenate([trial.gallery for trial in trials]))
    distance = _distance(features, trials[0].query, union)
    for trial in trials:
        # take, not indexing: it returns rows contiguous, as the ranking reads them.
        yield np.take(distance, np.searchsorted(union, trial.gallery), axis=1)


def _distance(features: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    similarity = features[query] @ features[gallery].T
    return np.subtract(1, similarity, out=similarity)

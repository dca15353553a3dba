"""The result of a search: its hits in order, as a table or as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ms_vireid.command.arguments import require
from ms_vireid.command.errors import printable
from ms_vireid.data.folder_layout import UNKNOWN
from ms_vireid.data.records import same_name

NOTHING = -1  # fills up the indices of a query with fewer than top_k hits
_MATCH = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery, or a query. path: its name in the feature file. file: where it lies on disk."""

    path: str
    file: Path
    modality: str
    camera: int | None  # None: unknown
    identity: str | None

    @classmethod
    def of(cls, path: str, file: Path, modality: str, camera: int, identity: str) -> "Entry":
        """From a row of a feature file, where -1 and "" stand for an unknown camera and identity."""
        return cls(path, file, modality, None if camera == UNKNOWN else camera, identity or None)


@dataclass(frozen=True)
class Hit:
    """An entry of the gallery and its inner product with the query."""

    entry: Entry
    similarity: float


@dataclass(frozen=True)
class SearchResult:
    """A query and its hits, nearest first."""

    query: Entry
    hits: list[Hit]

    @property
    def entries(self) -> list[Entry]:
        """The query's entry, then those of the hits."""
        return [self.query, *(hit.entry for hit in self.hits)]

    def match(self, hit: Hit) -> bool | None:
        """Whether a hit shows the query's identity; None if either identity is unknown."""
        require(isinstance(hit, Hit), "hit", hit, "one of `hits`")
        identities = self.query.identity, hit.entry.identity
        return None if None in identities else same_name(identities[0]) == same_name(identities[1])


def hits_of(
    entries: Mapping[int, Entry] | Sequence[Entry], similarity: np.ndarray, index: np.ndarray
) -> list[list[Hit]]:
    """List each query's hits. similarity: float32 [Q, k]. index: int64 [Q, k], into `entries`, or NOTHING."""
    return [
        [Hit(entries[i], s) for s, i in zip(*row, strict=True) if i != NOTHING]
        for row in zip(similarity.tolist(), index.tolist(), strict=True)
    ]


def nearest(
    search: Callable[[int], tuple[np.ndarray, np.ndarray]], top_k: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` nearest in the order of `evaluate_ranking`, from an index that returns ties in any order.

    search: count -> similarities float32 [Q, count], descending, and indices int64 [Q, count], by which ties are
    ordered; NOTHING where there are fewer. Asks for more until the ties of the last hit end, or `limit` is reached.

    Returns the same pair, [Q, min(top_k, limit)].
    """
    top_k = min(top_k, limit)
    count = min(top_k + 1, limit)
    while True:
        similarity, index = search(count)
        # Evaluation ranks by 1 - similarity in float32, whose rounding makes more ties.
        distance = np.where(index == NOTHING, np.float32(np.inf), np.float32(1) - similarity)
        ties_end = (distance[:, -1] > distance[:, top_k - 1]) | np.isinf(distance[:, -1])
        if count == limit or ties_end.all():
            break
        count = min(2 * count, limit)
    order = np.lexsort((index, distance), axis=1)[:, :top_k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)


def nearest_people(search: Callable[[int], list[list[Hit]]], top_k: int, limit: int) -> list[list[Hit]]:
    """Find the best picture of each of the `top_k` nearest people, for each query. A picture of an unknown person
    counts as a person.

    search: count -> each query's hits, nearest first, fewer than count where there are no more. Asks for more pictures
    until they show enough people, or `limit` is reached.
    """
    count = min(top_k, limit)
    while True:
        hits = search(count)
        best = list(map(_best_of_each, hits))
        if count == limit or all(len(b) >= top_k or len(row) < count for b, row in zip(best, hits, strict=True)):
            return [row[:top_k] for row in best]
        count = min(4 * count, limit)


def _best_of_each(hits: list[Hit]) -> list[Hit]:
    best: dict[str | Path, Hit] = {}
    for hit in hits:
        person = hit.entry.identity and same_name(hit.entry.identity)
        best.setdefault(person or hit.entry.file, hit)
    return list(best.values())


def accepted(hits: list[list[Hit]], threshold: float | None) -> list[list[Hit]]:
    """Leave the hits, for each query, with a similarity of at least `threshold`; None: all."""
    return [[hit for hit in row if threshold is None or hit.similarity >= threshold] for row in hits]


def format_result(found: SearchResult) -> str:
    """Format a query's table, one line a hit."""
    require(isinstance(found, SearchResult), "found", found, "one of what `Searcher.rank` returns")
    query = found.query
    about = (("camera", query.camera), ("identity", query.identity))
    known = [f"{what} {name}" for what, name in about if name is not None]
    people = ["-" if hit.entry.identity is None else printable(hit.entry.identity) for hit in found.hits]
    width = max(map(len, ("identity", *people)))
    header = f"{'rank':>4}  {'similarity':>10}  {'match':>5}  {'camera':>6}  {'identity':>{width}}  picture"
    lines = [printable(f"query {query.path} ({', '.join([query.modality, *known])})"), header]
    for rank, (hit, identity) in enumerate(zip(found.hits, people, strict=True), 1):
        camera = "-" if hit.entry.camera is None else hit.entry.camera
        values = f"{rank:>4}  {hit.similarity:>10.4f}  {_MATCH[found.match(hit)]:>5}  {camera:>6}  {identity:>{width}}"
        lines.append(f"{values}  {printable(hit.entry.path)}")
    return "\n".join(lines if found.hits else [*lines, "nothing found"])


def as_json(found: SearchResult) -> dict:
    """Turn a query and its hits into plain values; an unknown camera, identity or match becomes null."""
    hits = [
        {"rank": rank, "similarity": hit.similarity, "match": found.match(hit)} | _plain(hit.entry)
        for rank, hit in enumerate(found.hits, 1)
    ]
    return _plain(found.query) | {"hits": hits}


def _plain(entry: Entry) -> dict:
    return asdict(entry) | {"file": str(entry.file)}

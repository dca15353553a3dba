"""HNSW graphs with one node for all rows that are nearly equal.

HNSW links rows to their nearest neighbours. Thousands of rows that are nearly alike (a camera that stands still,
pictures of "no signal") link only to each other, and a search that reaches them never leaves, at any breadth. So the
first of such rows is a node, and the others are its members: a search finds nodes and compares the members of the
nearest ones one by one.
"""

from dataclasses import dataclass, replace

import faiss
import numpy as np

from ms_vireid.command.progress import progress
from ms_vireid.search.local_gallery import search_exact
from ms_vireid.search.result import NOTHING, RECALL, ROUNDING

M, EF_CONSTRUCTION = 32, 200
BREADTHS = (128, 256, 512, 1024)  # efSearch: the first that finds enough is the default
ALIKE = 0.9  # similarity of a member to its node, at least; with 0.95, crowds of similarity 0.92 still fail
_ANGLE = float(np.arccos(ALIKE))
_PROBE = 32  # efSearch for the node that a new row is like
_BLOCK, _STORED = 1 << 11, 1 << 14  # rows linked and stored at a time
_QUERIES, _NEAREST = 256, 10  # of each kind, to measure recall by; rows that each is to find


@dataclass(frozen=True, eq=False)
class Graph:
    """A FAISS index of the gallery's G features, in an order of its own: first L nodes, which are linked, then the
    members of the first node, of the second, and so on.

    rows: int64 [G], the gallery's row of each. members: int64 [L + 1], where each node's members begin, and G.
    breadth: efSearch by default. recall: measured with it, None if never.
    """

    index: faiss.IndexHNSWFlat
    rows: np.ndarray
    members: np.ndarray
    breadth: int = BREADTHS[0]
    recall: float | None = None

    @classmethod
    def of_nodes(cls, index: faiss.IndexHNSWFlat) -> "Graph":
        """An index whose rows are all nodes, in the gallery's order."""
        return cls(index, np.arange(index.ntotal), np.full(index.ntotal + 1, index.ntotal))

    @property
    def features(self) -> np.ndarray:
        """float32 [G, C], not copied."""
        return stored_features(self.index)

    def search(self, queries: np.ndarray, top_k: int, breadth: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search_exact`, among the members of the `breadth` nearest nodes."""
        breadth = min(max(breadth, top_k), len(self.members) - 1)
        found = self.index.search(queries, breadth, params=faiss.SearchParametersHNSW(efSearch=breadth))
        similarity = np.full((len(queries), min(top_k, len(self.rows))), -np.inf, np.float32)
        row = np.full(similarity.shape, NOTHING)
        for i, (of_nodes, nodes) in enumerate(zip(*found, strict=True)):
            of_nodes, nodes = of_nodes[nodes != NOTHING], nodes[nodes != NOTHING]
            values, places = self._with_members(queries[i], of_nodes, nodes, top_k)
            rows = self.rows[places]
            best = np.lexsort((rows, np.float32(1) - values))[:top_k]  # the order of `evaluate_ranking`
            similarity[i, : len(best)], row[i, : len(best)] = values[best], rows[best]
        return similarity, row

    def _with_members(
        self, query: np.ndarray, similarity: np.ndarray, nodes: np.ndarray, top_k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the members that may be among the `top_k` nearest. similarity: [n] of these nodes, descending.

        Returns similarities and places in the index.
        """
        angles = np.arccos(np.clip(similarity, -1, 1))
        farthest = angles[top_k - 1] if len(nodes) >= top_k else np.pi
        near = nodes[angles - _ANGLE <= farthest]  # a member's angle is at most _ANGLE smaller than its node's
        starts, counts = self.members[near], self.members[near + 1] - self.members[near]
        if not counts.any():
            return similarity, nodes
        members = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        places = np.concatenate([nodes, members])
        values = np.empty(len(places), np.float32)
        storage = faiss.downcast_index(self.index.storage)
        pointers = map(faiss.swig_ptr, (values, places))
        storage.compute_distance_subset(1, faiss.swig_ptr(query), len(places), *pointers)
        return values, places


def build_graph(features: np.ndarray) -> Graph:
    """Index features, float32 [G, C], by inner product, and choose the breadth by what it finds."""
    index = faiss.IndexHNSWFlat(features.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    node = np.empty(len(features), np.int64)
    starts = range(0, len(features), _BLOCK)
    nodes = []
    for start in progress(starts, len(starts), "hnsw index", " features", _BLOCK):
        node[start : start + _BLOCK], new = _add_block(index, features[start : start + _BLOCK])
        nodes += [start + row for row in new]
    others = np.setdiff1d(np.arange(len(features)), nodes)
    others = others[np.argsort(node[others], kind="stable")]
    index.hnsw.prepare_level_tab(len(others))  # without links
    for start in range(0, len(others), _STORED):
        faiss.downcast_index(index.storage).add(features[others[start : start + _STORED]])
    index.ntotal = len(features)
    counts = np.bincount(node[others], minlength=len(nodes))
    members = len(nodes) + np.concatenate([[0], np.cumsum(counts)])
    return _measured(Graph(index, np.concatenate([np.array(nodes, np.int64), others]), members))


def stored_features(index: faiss.Index) -> np.ndarray:
    """The features of a flat index or of a graph, float32 [G, C], not copied."""
    storage = faiss.downcast_index(getattr(index, "storage", index))
    return faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)


def _add_block(index: faiss.IndexHNSWFlat, block: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Add those rows of a block as nodes that are like no other node. Returns each row's node, int64 [n], and the rows
    that are nodes."""
    block = np.ascontiguousarray(block)
    node = np.full(len(block), NOTHING)
    if index.ntotal:
        similarity, nearest = index.search(block, 1, params=faiss.SearchParametersHNSW(efSearch=_PROBE))
        node = np.where(similarity[:, 0] >= ALIKE, nearest[:, 0], NOTHING)
    rest = np.flatnonzero(node == NOTHING)
    alike = block[rest] @ block[rest].T >= ALIKE
    new = []
    for row, like_it in zip(rest, alike, strict=True):
        if node[row] == NOTHING:
            node[row] = index.ntotal + len(new)
            node[rest[like_it & (node[rest] == NOTHING)]] = node[row]
            new.append(row)
    index.add(block[new])
    return node, new


def _measured(graph: Graph) -> Graph:
    """Measure the recall of a sample of searches: for nodes, which must find themselves too, and for what lies between
    two of them. Sets the first of BREADTHS that reaches RECALL, or the last."""
    num_nodes, generator = len(graph.members) - 1, np.random.default_rng(0)
    themselves, *pairs = graph.features[generator.integers(0, num_nodes, (3, _QUERIES))]
    between = sum(pairs)
    norms = np.linalg.norm(between, axis=1, keepdims=True)
    queries = np.concatenate([themselves, (between / np.maximum(norms, 1))[norms[:, 0] > 0.1]])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    nearest, _ = search_exact(queries, graph.features, _NEAREST)
    for breadth in BREADTHS:
        similarity, _ = graph.search(queries, _NEAREST, breadth)
        recall = np.mean(similarity >= nearest[:, -1:] - ROUNDING)
        alone = np.mean(similarity[:_QUERIES, 0] >= nearest[:_QUERIES, 0] - ROUNDING)
        if min(recall, alone) >= RECALL:
            break
    return replace(graph, breadth=breadth, recall=float(min(recall, alone)))

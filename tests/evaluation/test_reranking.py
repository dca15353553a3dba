"""Re-ranking equals its published definition, written as sets and loops in float64."""

import numpy as np
import pytest

from ms_vireid.evaluation.ranking import evaluate_ranking
from ms_vireid.evaluation.reranking import rerank


def by_definition(queries, gallery, k1, k2, weight):
    joint = np.concatenate([queries, gallery]).astype(np.float64)
    everyone = range(len(joint))
    distance = [[1 - float(joint[p] @ joint[g]) for g in everyone] for p in everyone]

    def neighbours(p, k):
        others = sorted((g for g in everyone if g != p), key=lambda g: distance[p][g])
        return [p, *others[:k]]

    def reciprocal(p, k):
        return {g for g in neighbours(p, k) if p in neighbours(g, k)}

    def expanded(p):
        own = reciprocal(p, k1)
        found = set(own)
        for q in own:
            half = reciprocal(q, round(k1 / 2))
            if len(own & half) >= 2 / 3 * len(half):
                found |= half
        return found

    members = [expanded(p) for p in everyone]
    weights = [[np.exp(-max(distance[p][g], 0)) if g in members[p] else 0 for g in everyone] for p in everyone]
    mean = [np.mean([weights[q] for q in neighbours(p, k2 - 1)], axis=0) for p in everyone]
    found = np.empty((len(queries), len(gallery)))
    for q in range(len(queries)):
        for g in range(len(gallery)):
            v, w = mean[q], mean[len(queries) + g]
            jaccard = 1 - np.minimum(v, w).sum() / np.maximum(v, w).sum()
            found[q, g] = (1 - weight) * jaccard + weight * distance[q][len(queries) + g]
    return found


def people(count, pictures, noise, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((count, 16)), pictures, axis=0)
    features = centres + noise * rng.standard_normal(centres.shape)
    identities = np.repeat(np.arange(count), pictures)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), identities


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (8, 3, 0.3), (5, 1, 0.0), (3, 2, 1.0), (60, 6, 0.3)])
def test_it_is_the_published_definition(k1, k2, weight):
    features, _ = people(8, 6, noise=1.0)
    queries, gallery = features[::3], np.delete(features, np.s_[::3], axis=0)
    expected = by_definition(queries, gallery, min(k1, len(features) - 1), k2, weight)
    assert rerank(queries, gallery, k1, k2, weight) == pytest.approx(expected, abs=2e-6)


def test_with_one_picture_each_and_in_blocks(monkeypatch):
    features, _ = people(5, 4, noise=0.5)
    assert rerank(features[:1], features[1:2]).shape == (1, 1)
    whole = rerank(features[:7], features[7:])
    monkeypatch.setattr("ms_vireid.evaluation.reranking._ROWS", 3)
    assert rerank(features[:7], features[7:]) == pytest.approx(whole, abs=1e-6)


def test_people_with_several_pictures_are_found_sooner():
    features, identities = people(60, 8, noise=1.0)
    queries, gallery = slice(0, None, 4), np.delete(np.arange(len(features)), np.s_[::4])
    ids = identities[queries], identities[gallery]
    plain = evaluate_ranking(1 - features[queries] @ features[gallery].T, *ids, protocol="regdb")
    again = evaluate_ranking(rerank(features[queries], features[gallery]), *ids, protocol="regdb")
    assert again.mean_ap > plain.mean_ap + 0.02

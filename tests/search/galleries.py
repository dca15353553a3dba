"""Random galleries and queries, with what makes their order hard to get right: equals, and nearly equals."""

import dataclasses

import numpy as np

from ms_vireid.search.feature_files import FORMAT, Features

WIDTH = 12
EQUAL = (3, 17, 18, 40)  # rows that are the same


def gallery(count: int = 60, seed: int = 0, checkpoint: str = "c" * 64, root: str = "/nowhere") -> Features:
    """Rows of EQUAL are equal; the last three are all but orthogonal to `queries`, so that in float32 their distances,
    1 - similarity, are equal though their similarities are not."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, WIDTH)).astype(np.float32)
    features[:, -1] = 0
    features[list(EQUAL)] = features[EQUAL[0]]
    for i in range(3):
        features[-1 - i] = 0
        features[-1 - i, -1] = 1
        features[-1 - i, 0] = 1e-9 * (1 + i)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cameras = rng.integers(1, 7, count).astype(np.int32)
    cameras[5] = -1
    return as_features(features, rng.integers(0, 8, count).astype(np.int32), cameras, checkpoint, root)


def queries(count: int = 4, seed: int = 1) -> Features:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, WIDTH)).astype(np.float32)
    features[:, -1] = 0
    features[0] = gallery().features[EQUAL[0]]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return as_features(features, np.arange(count, dtype=np.int32), np.full(count, 3, np.int32), modality="infrared")


def as_features(features, identities, cameras, checkpoint="c" * 64, root="/nowhere", modality="visible") -> Features:
    info = {
        "format": FORMAT,
        "version": "0",
        "checkpoint": {"file": "model.safetensors", "sha256": checkpoint, "epoch": 1},
        "config": {},
        "images": root,
        "skipped": {},
    }
    paths = np.array([f"cam1/{i:04d}.jpg" for i in range(len(features))], str)
    return Features(
        features, paths, np.full(len(features), modality), np.asarray(identities).astype(str), cameras, info
    )


def with_ranges(features: Features, ranges, no_values=()) -> Features:
    """As if the model showed these values of 16 bits as black and white, and those as nothing."""
    data = {"sixteen_bit": ranges, "no_value": no_values}
    return dataclasses.replace(features, info=features.info | {"config": {"data": data}})


def stable_order(asked: Features, searched: Features, allowed: np.ndarray | None = None) -> np.ndarray:
    """All rows of a gallery for each query, nearest first and equals by their index, int64 [Q, G]."""
    distance = np.float32(1) - asked.features @ searched.features.T
    order = np.argsort(distance, axis=1, kind="stable")
    return order if allowed is None else np.stack([row[allowed[row]] for row in order])

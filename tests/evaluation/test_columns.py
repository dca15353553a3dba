"""Identities and cameras are whole numbers or texts; what is neither is a ValueError, never another person."""

import numpy as np
import pandas as pd
import pytest

from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.evaluation.threshold import count_impostors, threshold_metrics

from .test_ranking import arguments, random_case

NAMES = np.array(["anna", "bert", "Zo\u00eb", "\u674e\u660e", "a b", "7", "-3", "0001", "x" * 300])
COLUMNS = {
    "texts": lambda ids: NAMES[ids],
    "list of texts": lambda ids: NAMES[ids].tolist(),
    "bool": lambda ids: ids > 4,
    "int8": lambda ids: ids.astype(np.int8),
    "big endian": lambda ids: ids.astype(">i4"),
    "uint64 beyond int64": lambda ids: ids.astype(np.uint64) + np.uint64(2**64 - 9),
    "int64 beyond float64": lambda ids: ids.astype(np.int64) + (2**62 + 1),
    "list": lambda ids: ids.tolist(),
    "column of pandas": lambda ids: pd.Series(ids, index=np.arange(len(ids)) + 5),
}


def case(seed=0):
    """Distances, with identities in 0..8 and cameras."""
    distance, *ids, query_cameras, gallery_cameras = random_case(
        np.random.default_rng(seed), 40, 90, 9, np.float32, True
    )
    return distance, [(column + 3) // 7 for column in ids], (query_cameras, gallery_cameras)


def outcome(*columns, protocol):
    """All that is measured."""
    result = evaluate_ranking(*columns, protocol=protocol)
    similarity = (1 - columns[0]).astype(np.float32)
    at_threshold = threshold_metrics(similarity, *columns[1:], protocol, 0.3)
    impostors = count_impostors(similarity, *columns[1:], protocol)
    return result.cmc.tolist(), result.metrics(), result.num_valid_queries, at_threshold, impostors.sum()


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_people_are_the_same_by_numbers_and_texts(protocol, kind):
    distance, ids, cameras = case()
    numbers = [one > 4 for one in ids] if kind == "bool" else ids
    expected = outcome(distance, *(one.astype(np.int64) for one in numbers), *cameras, protocol=protocol)
    assert outcome(distance, *map(COLUMNS[kind], ids), *cameras, protocol=protocol) == expected


@pytest.mark.parametrize("kind", ["texts", "list of texts"])
def test_llcms_cameras_may_be_texts_and_regdb_looks_at_none(kind):
    distance, ids, cameras = case()
    texts = list(map(COLUMNS[kind], cameras))
    for protocol in ("llcm", "regdb"):
        expected = outcome(distance, *ids, *cameras, protocol=protocol)
        assert outcome(distance, *ids, *texts, protocol=protocol) == expected
    with pytest.raises(ValueError, match=r"cameras are strings, but SYSU-MM01's rule names cameras 2 and 3; give num"):
        evaluate_ranking(distance, *ids, *texts, protocol="sysu_mm01")


NEITHER = r"query_ids must hold only whole numbers or only strings: use .astype\(int\) or .astype\(str\)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": ["1", "2"]}, r"query_ids and gallery_ids are <U1 and int64: give both of one type"),
        ({"query_ids": np.array([1, 2], np.uint64)}, r"are uint64 and int64: give both of one type"),
        ({"gallery_ids": ["1", 2, 3]}, NEITHER.replace("query", "gallery")),
        ({"query_ids": ["anna", None]}, NEITHER),
        ({"query_ids": ["anna", float("nan")]}, NEITHER),
        ({"query_ids": [1, None]}, NEITHER),
        ({"query_ids": [1.0, 2.0]}, NEITHER),
        ({"query_ids": [2**64, 1]}, NEITHER),
        ({"query_ids": np.array(["anna", "bert"], object)}, NEITHER),
        ({"query_ids": pd.Series([1, pd.NA], dtype="Int64")}, NEITHER),
        ({"query_ids": np.ma.masked_array([1, 2], [False, True])}, NEITHER),
        ({"query_ids": np.array(["2024-01-01", "2024-01-02"], "M8[D]")}, NEITHER),
        ({"query_ids": [b"a", b"b"]}, NEITHER),
        ({"query_ids": [[1], [2]]}, r"query_ids has shape \(2, 1\)"),
        ({"query_ids": "ab"}, r"query_ids has shape \(\)"),
        ({"query_cameras": ["3", "6"]}, r"query_cameras and gallery_cameras are <U1 and int64: give both of one type"),
        ({"gallery_cameras": [1, 2, np.nan]}, "gallery_cameras must hold only whole numbers"),
        (
            {"gallery_cameras": ["a", "b", "c"], "protocol": "llcm"},
            "query_cameras and gallery_cameras are int64 and <U1",
        ),
    ],
)
def test_what_is_neither_is_an_error(changes, message):
    for measure in (evaluate_ranking, lambda distance, *rest: threshold_metrics(distance, *rest, 0.5)):
        wrong = arguments(**changes)
        wrong = (*(wrong[name] for name in arguments()), wrong.get("protocol", "sysu_mm01"))
        with pytest.raises(ValueError, match=message) as error:
            measure(*wrong)
        assert "\n" not in str(error.value)

"""Identities and cameras as people have them: numbers of any type, texts, bytes, columns of pandas; or a ValueError."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.evaluation.columns import comparable_columns
from ms_vireid.evaluation.threshold import count_impostors, threshold_metrics

from .test_ranking import arguments, random_case

NAMES = np.array(["anna", "bert", "Zoë", "李明", "a b", "7", "-3", "0001", "x" * 300])
SPELLINGS = {
    "str": lambda ids: NAMES[ids],
    "objects": lambda ids: NAMES[ids].astype(object),
    "list": lambda ids: NAMES[ids].tolist(),
    "tuple": lambda ids: tuple(NAMES[ids].tolist()),
    "bytes": lambda ids: np.array([name.encode() for name in NAMES[ids]]),
    "list of bytes": lambda ids: [name.encode() for name in NAMES[ids]],
    "pandas": lambda ids: pd.Series(NAMES[ids], index=np.arange(len(ids))[::-1]),
    "pandas string": lambda ids: pd.Series(NAMES[ids], dtype="string"),
    "Categorical": lambda ids: pd.Categorical(NAMES[ids]),
    "categories": lambda ids: pd.Series(NAMES[ids]).astype("category"),
    "masked, none of them": lambda ids: np.ma.masked_array(NAMES[ids], np.zeros(len(ids), bool)),
}
NUMBERS = {
    "bool": lambda ids: ids > 4,
    "int8": lambda ids: ids.astype(np.int8),
    "big endian": lambda ids: ids.astype(">i4"),
    "uint16": lambda ids: ids.astype(np.uint16),
    "uint64 beyond int64": lambda ids: ids.astype(np.uint64) + np.uint64(2**64 - 9),
    "int64 beyond float64": lambda ids: ids.astype(np.int64) + (2**62 + 1),
    "negative": lambda ids: -ids,
    "whole floats": lambda ids: ids.astype(np.float32),
    "float16": lambda ids: ids.astype(np.float16),
    "fractions": lambda ids: ids / 4,
    "list": lambda ids: ids.tolist(),
    "list beyond int64": lambda ids: [2**63 + one if one else 1 for one in ids.tolist()],
    "list beyond 64 bits": lambda ids: [10**30 + one for one in ids.tolist()],
    "objects": lambda ids: ids.astype(object),
    "objects of NumPy": lambda ids: np.array([*map(np.int16, ids), None], object)[:-1],
    "Int64": lambda ids: pd.Series(ids, dtype="Int64"),
    "pandas": lambda ids: pd.Series(ids, index=np.arange(len(ids)) + 5),
    "Categorical": lambda ids: pd.Categorical(ids),
}


def case(seed=0):
    """Distances, with identities in 0..8 and cameras."""
    return random_case(np.random.default_rng(seed), 40, 90, 9, np.float32, True)


def ids_of(column):
    return (column + 3) // 7


def outcome(*columns, protocol):
    """All that is measured."""
    result = evaluate_ranking(*columns, protocol=protocol)
    similarity = (1 - columns[0]).astype(np.float32)
    at_threshold = threshold_metrics(similarity, *columns[1:], protocol, 0.3)
    impostors = count_impostors(similarity, *columns[1:], protocol)
    return result.cmc.tolist(), result.metrics(), result.num_valid_queries, at_threshold, impostors.sum()


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
@pytest.mark.parametrize("kind", SPELLINGS)
def test_texts_are_people_as_numbers_are(protocol, kind):
    distance, *ids, query_cameras, gallery_cameras = case()
    ids = list(map(ids_of, ids))
    expected = outcome(distance, *ids, query_cameras, gallery_cameras, protocol=protocol)
    for query, gallery in ((kind, kind), (kind, "str"), ("list of bytes", kind)):
        texts = SPELLINGS[query](ids[0]), SPELLINGS[gallery](ids[1])
        assert outcome(distance, *texts, query_cameras, gallery_cameras, protocol=protocol) == expected


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_type_are_compared_exactly(kind):
    distance, *ids, query_cameras, gallery_cameras = case()
    numbers = list(map(NUMBERS[kind], map(ids_of, ids)))
    if kind == "bool":
        ids = [ids_of(one) > 4 for one in ids]
    for protocol in ("sysu_mm01", "regdb", "llcm"):
        cameras = query_cameras, gallery_cameras
        expected = outcome(distance, *(np.asarray(one).astype(np.int64) for one in ids), *cameras, protocol=protocol)
        assert outcome(distance, *numbers, *cameras, protocol=protocol) == expected


@pytest.mark.parametrize(
    "kind", ["list", "objects", "whole floats", "uint16", "Int64", "pandas", "int8", "Categorical"]
)
def test_cameras_are_numbers_of_any_type(kind):
    distance, *ids, query_cameras, gallery_cameras = case()
    for protocol in ("sysu_mm01", "llcm"):
        expected = outcome(distance, *ids, query_cameras, gallery_cameras, protocol=protocol)
        made = NUMBERS[kind](query_cameras), NUMBERS[kind](gallery_cameras)
        assert outcome(distance, *ids, *made, protocol=protocol) == expected
        mixed = NUMBERS[kind](query_cameras), gallery_cameras.astype(float)
        assert outcome(distance, *ids, *mixed, protocol=protocol) == expected


@pytest.mark.parametrize("kind", SPELLINGS)
def test_llcms_cameras_may_be_texts_and_regdb_looks_at_none(kind):
    distance, *ids, query_cameras, gallery_cameras = case()
    texts = SPELLINGS[kind](query_cameras), SPELLINGS[kind](gallery_cameras)
    for protocol in ("llcm", "regdb"):
        expected = outcome(distance, *ids, query_cameras, gallery_cameras, protocol=protocol)
        assert outcome(distance, *ids, *texts, protocol=protocol) == expected
    with pytest.raises(ValueError, match=r"query_cameras\[0\] is '.*': SYSU-MM01's rule .* give numbers"):
        evaluate_ranking(distance, *ids, *texts, protocol="sysu_mm01")


def test_two_spellings_of_unicode_are_one_person():
    composed, decomposed = ["Zo\u00eb", "anna"], ["anna", "Zoe\u0308", "bert"]
    distance = np.array([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3]], np.float32)
    assert evaluate_ranking(distance, composed, decomposed, protocol="regdb").cmc[0] == 1


@pytest.mark.parametrize(
    ("query", "gallery"),
    [
        (np.array([2**63, 2**63 + 1], np.uint64), np.array([1, 2**62 + 1, 2**62], np.int64)),
        (np.array([2**62, 5], np.int64), np.array([2**62 + 1, 5, -5], np.int64)),
        (np.array([2**53 + 1, 5]), np.array([2**53 - 1, 5, -5], float)),
        ([2**64 - 1, 5], np.array([2**63 - 1, 5, -1])),
    ],
)
def test_neighbours_that_round_to_one_float_stay_two_people(query, gallery):
    columns = comparable_columns("ids", query, gallery, (2, 3))
    expected = [[int(q) == int(g) for g in gallery] for q in query]
    assert (columns[0][:, None] == columns[1]).tolist() == expected


def test_numbers_of_one_type_are_not_touched():
    query, gallery = np.array([3, 1]), np.array([1, 2, 3])
    columns = comparable_columns("ids", query, gallery, (2, 3))
    assert columns[0] is query
    assert columns[1] is gallery


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": ["1", "2"]}, r"query_ids\[0\] '1' and gallery_ids\[0\] 1 are a number and a text"),
        ({"gallery_ids": ["1", 2, 3]}, r"gallery_ids has '1' and 2: give numbers or texts, not both"),
        ({"gallery_ids": np.array([1, "anna", 3], object)}, r"gallery_ids has 1 and 'anna'"),
        ({"query_ids": [True, "anna"]}, r"query_ids has True and 'anna'"),
        ({"query_ids": ["anna", None]}, r"query_ids\[1\] is None: it must be known; leave the picture out"),
        ({"query_ids": ["anna", float("nan")]}, r"query_ids\[1\] is nan: it must be known"),
        ({"query_ids": ["anna", ""]}, r"query_ids\[1\] is '': it must be known"),
        ({"query_ids": [1, None]}, r"query_ids\[1\] is None"),
        ({"query_ids": [1.0, np.nan]}, r"query_ids\[1\] is nan"),
        ({"query_ids": [1.0, np.inf]}, r"query_ids\[1\] is inf"),
        ({"query_ids": pd.Series(["anna", pd.NA], dtype="string")}, r"query_ids\[1\] is (<NA>|nan): "),
        ({"query_ids": pd.Series([1, pd.NA], dtype="Int64")}, r"query_ids\[1\] is <NA>"),
        ({"query_ids": pd.Categorical(["anna", None])}, r"query_ids\[1\] is nan"),
        ({"query_ids": np.ma.masked_array([1, 2], [False, True])}, r"query_ids has masked values"),
        ({"query_ids": np.array(["2024-01-01", "2024-01-02"], "M8[D]")}, r"query_ids\[0\] is datetime.*: it must be a"),
        ({"query_ids": [1j, 2j]}, r"query_ids\[0\] is 1j: it must be a number or a text"),
        ({"query_ids": [Decimal(1), Decimal(2)]}, r"query_ids\[0\] is Decimal\('1'\)"),
        ({"query_ids": [Path("a"), Path("b")]}, r"query_ids\[0\] is PosixPath\('a'\)"),
        ({"query_ids": [b"\xff", b"a"]}, r"query_ids\[0\] is b'\\xff': bytes must be UTF-8"),
        ({"query_ids": [[1], [2]]}, r"query_ids has shape \(2, 1\)"),
        ({"query_ids": np.array([["anna"], ["bert"]])}, r"query_ids has shape \(2, 1\)"),
        ({"query_ids": "ab"}, r"query_ids has shape \(\)"),
        ({"query_ids": {1, 2}}, r"query_ids has shape \(\)"),
        ({"query_ids": None}, r"query_ids is None: this protocol needs the ids"),
        ({"query_ids": [2.0**53, 1]}, r"query_ids\[0\] is 9007199254740992.0: floats of that size are not exact"),
        ({"query_ids": np.array([1, 2**24], np.float32)}, r"query_ids\[1\] is 16777216.0: floats of that size"),
        ({"query_cameras": ["3", "6"]}, r"query_cameras\[0\] is '3': SYSU-MM01's rule"),
        ({"gallery_cameras": ["cam1", "cam2", "cam2"]}, r"gallery_cameras\[0\] is 'cam1': SYSU-MM01's rule"),
        ({"gallery_cameras": [1, 2, None]}, r"gallery_cameras\[2\] is None"),
        ({"gallery_cameras": [1, 2, np.nan]}, r"gallery_cameras\[2\] is nan"),
        (
            {"gallery_cameras": ["a", "b", "c"], "protocol": "llcm"},
            r"query_cameras\[0\] 3 and gallery_cameras\[0\] 'a'",
        ),
    ],
)
def test_what_is_neither_is_an_error_with_the_value(changes, message):
    for measure in (evaluate_ranking, lambda distance, *rest: threshold_metrics(distance, *rest, 0.5)):
        wrong = arguments(**changes)
        wrong = (*(wrong[name] for name in arguments()), wrong.get("protocol", "sysu_mm01"))
        with pytest.raises(ValueError, match=message) as error:
            measure(*wrong)
        assert "\n" not in str(error.value)

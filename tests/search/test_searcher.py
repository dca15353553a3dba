"""`ms_vireid.Searcher` and `ms_vireid.evaluate`: what the commands compute, from Python."""

import dataclasses
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ms_vireid
from ms_vireid import extract, retrieve
from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.checkpoints.weights import write_checkpoint as save_weights
from ms_vireid.command.names import MINDSPORE
from ms_vireid.evaluation.reranking import rerank
from ms_vireid.files.checks import file_checksum, unsealed
from ms_vireid.models import create_model
from ms_vireid.search.feature_files import load_features, save_features
from ms_vireid.search.result import format_result
from tests.data.tree import write_folder
from tests.test_train import command, refused
from tests.tiny_models import write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searcher")
    write_checkpoint(folder / "run/model.safetensors", "mun", folder / "data", "evaluation.batch_size=3")
    write_folder(folder / "people", ("anna", "ben"), pictures=3)
    return folder


@pytest.fixture(scope="module")
def searcher(folder):
    return ms_vireid.Searcher(folder / "run/model.safetensors", device="CPU")


def test_features_and_ranking_are_the_commands(searcher, folder, monkeypatch):
    given = "--checkpoint", folder / "run/model.safetensors"
    command(monkeypatch, folder, extract, *given, "--images", "people/visible", "--output", "day.npz")
    words = "--query", "people/infrared/ben", "--gallery", "day.npz", "--json", "a.json"
    command(monkeypatch, folder, retrieve, *given, *words)
    extracted = load_features(folder / "day.npz")
    day = searcher.features("people/visible")
    for name in ("features", "paths", "modality", "identities", "cameras"):
        assert np.array_equal(getattr(day, name), getattr(extracted, name)), name
    for gallery in (day, "day.npz", folder / "people/visible"):
        found = searcher.rank(folder / "people/infrared/ben", gallery)
        queries = json.loads((folder / "a.json").read_text())["queries"]
        for query, one in zip(queries, found, strict=True):
            assert [hit["path"] for hit in query["hits"]] == [hit.entry.path for hit in one.hits]
            assert [hit["match"] for hit in query["hits"]] == [one.match(hit) for hit in one.hits]


def test_pictures_in_memory_are_as_their_files(searcher, folder):
    files = sorted((folder / "people/infrared").glob("*/*.jpg"))
    images = [Image.open(file) for file in files]
    from_files = searcher.features(files)
    for pictures in (images, [np.asarray(image) for image in images], [np.asarray(i.convert("RGB")) for i in images]):
        made = searcher.features(pictures, "infrared")
        assert np.array_equal(made.features, from_files.features)
        assert made.paths.tolist() == [str(number) for number in range(6)]
        assert set(made.modality.tolist()) == {"infrared"}
    alone = searcher.features(images[2], "infrared")
    assert alone.features[0] == pytest.approx(from_files.features[2], abs=1e-6)
    assert searcher.rank(alone, from_files, top_k=1)[0].hits[0].entry.file == files[2]
    assert searcher.rank(alone, from_files)[0].match(searcher.rank(alone, from_files)[0].hits[0]) is None
    other = searcher.features(images[2], "visible")
    assert np.abs(other.features - alone.features).max() > 1e-3  # MUN has weights for each modality


@pytest.mark.parametrize(
    ("pictures", "modality", "said"),
    [
        ("nowhere.jpg", "auto", r"pictures nowhere\.jpg: no such file"),
        (np.zeros((8, 8, 3), np.uint8), "auto", "do not say their modality"),
        (np.zeros((8, 8, 3), np.float32), "visible", r"picture 0: is float32 \(8, 8, 3\); give uint8"),
        (np.ma.masked_array(np.zeros((8, 8), np.uint8), True), "visible", "picture 0: is a MaskedArray; give paths"),
        ([np.zeros((8, 8), np.uint8), "a.jpg"], "visible", "picture 1: is a str; give paths alone"),
        (Image.new("F", (8, 8)), "visible", r"picture 0: cannot be decoded as a picture \(its pixels are float32"),
    ],
)
def test_what_is_wrong_with_pictures_is_one_error(searcher, pictures, modality, said):
    with pytest.raises(ms_vireid.InputError, match=said):
        searcher.features(pictures, modality)


def test_what_is_wrong_with_a_search_is_one_error(searcher, folder):
    with pytest.raises(ms_vireid.InputError, match="top_k 0: must be a whole number >= 1"):
        searcher.rank(folder / "people/visible", folder / "people/visible", top_k=0)
    with pytest.raises(ms_vireid.InputError, match="nowhere: no such checkpoint file"):
        ms_vireid.Searcher("nowhere")
    with pytest.raises(ms_vireid.InputError, match="device 'cuda': must be one of auto, Ascend, GPU, CPU"):
        ms_vireid.Searcher(folder / "run/model.safetensors", device="cuda")


def closed():
    picture = Image.new("RGB", (8, 8))
    picture.close()
    return picture


# By name, what is wrong for all but the arguments that RIGHT names.
VALUES = (
    {"none": None, "5": 5, "-1": -1, "true": True, "2.5": 2.5, "inf": math.inf, "huge": 10**5000}
    | {"empty": "", "five": "5", "a name": "x", "nul": "a\0b", "long": "x" * 5000, "surrogate": "\ud800"}
    | {"escapes": "\x1b[2J", "bytes": b"x", "list": [], "mapping": {}, "of nothing": [None], "mixed": ["x", 5]}
    | {"an object": object(), "a type": int, "floats": np.zeros((2, 2)), "names": np.array(["auto", "CPU"])}
    | {"no axes": np.array(5), "four axes": np.zeros((4, 8, 8, 3), np.uint8), "closed": closed()}
    | {"no pixels": Image.new("RGB", (0, 0)), "32 bits": Image.new("I", (8, 8)), "alpha": Image.new("La", (8, 8))}
)
CALLS = {
    "checkpoint": lambda s, day, value: ms_vireid.Searcher(value),
    "device": lambda s, day, value: ms_vireid.Searcher("run", value),
    "backend": lambda s, day, value: ms_vireid.Searcher("run", "CPU", value),
    "pictures": lambda s, day, value: s.features(value, "visible"),
    "pictures of folders": lambda s, day, value: s.features(value),
    "one of the pictures": lambda s, day, value: s.features(["people/visible", value], "visible"),
    "modality": lambda s, day, value: s.features("people", value),
    "query": lambda s, day, value: s.rank(value, day),
    "gallery": lambda s, day, value: s.rank(day, value),
    "top_k": lambda s, day, value: s.rank(day, day, value),
    "rerank": lambda s, day, value: s.rank(day, day, rerank=value),
    "by_identity": lambda s, day, value: s.rank(day, day, by_identity=value),
    "threshold to find": lambda s, day, value: s.rank(day, day, threshold=value),
    "threshold": lambda s, day, value: ms_vireid.evaluate("run", threshold=value),
    "fmr": lambda s, day, value: ms_vireid.evaluate("run", fmr=value),
    "data": lambda s, day, value: ms_vireid.evaluate("run", data=value),
    "evaluated checkpoint": lambda s, day, value: ms_vireid.evaluate(value),
    "data_root": lambda s, day, value: ms_vireid.evaluate("run", value),
    "evaluated device": lambda s, day, value: ms_vireid.evaluate("run", device=value),
    "evaluated backend": lambda s, day, value: ms_vireid.evaluate("run", backend=value),
    "corrupted": lambda s, day, value: ms_vireid.evaluate("run", corrupted=value),
    "frost": lambda s, day, value: ms_vireid.evaluate("run", frost=value),
    "path": lambda s, day, value: save_features(value, day),
    "path to read": lambda s, day, value: load_features(value),
    "content": lambda s, day, value: save_features("a.npz", value),
    "found": lambda s, day, value: format_result(value),
    "hit": lambda s, day, value: s.rank(day, day)[0].match(value),
}
RIGHT = {
    "pictures": {"alpha"},
    "top_k": {"5", "huge"},
    "rerank": {"true"},
    "by_identity": {"true"},
    "threshold to find": {"none", "-1"},
    "threshold": {"none", "-1"},
    "fmr": {"none"},
    "data": {"list"},  # the run's own set
    "corrupted": {"true"},
    "data_root": {"none", "five", "a name", "escapes"},  # where a synthetic set is made anew
    "frost": {"none"},
}


@pytest.mark.parametrize("argument", CALLS)
def test_what_no_argument_can_be_is_one_line(searcher, folder, monkeypatch, argument):
    monkeypatch.chdir(folder)
    day = searcher.features("people/visible")
    for name in VALUES.keys() - RIGHT.get(argument, set()):
        with pytest.raises(ms_vireid.InputError) as refused:
            CALLS[argument](searcher, day, VALUES[name])
        assert str(refused.value).isprintable(), name
        assert len(str(refused.value)) <= 300, name


@pytest.mark.parametrize("option", ["mode", "shots", "direction", "trials", "flip", "renormalise", "rerank"])
def test_what_no_option_of_evaluate_can_be_is_one_line(folder, monkeypatch, option):
    monkeypatch.chdir(folder)
    for name in ("2.5", "long", "names"):
        with pytest.raises(ms_vireid.InputError, match=rf"^options: evaluation\.{option}: "):
            ms_vireid.evaluate("run", **{option: VALUES[name]})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda day: {"features": day.features * np.nan}, r"row 0 \(.*\) has norm nan instead of 1"),
        (lambda day: {"features": day.features * 0}, r"row 0 \(.*\) has norm 0 instead of 1"),
        (lambda day: {"features": day.features[:0]}, r"features are float32 \(0, \d+\); they must be float32 \[N, C\]"),
        (lambda day: {"features": np.ma.masked_array(day.features)}, "features are a MaskedArray; they must be"),
        (lambda day: {"features": day.features.tolist()}, "features are a list; they must be float32"),
        (lambda day: {"paths": day.paths[1:]}, r"paths is <U\d+ \(5,\); it must be \[6\]"),
        (lambda day: {"cameras": None}, r"cameras is a NoneType; it must be \[6\]"),
        (lambda day: {"info": {}}, "its info lacks a valid format"),
        (lambda day: {"info": day.info | {"more": object()}}, "its info is not JSON"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(searcher, folder, monkeypatch, changed, says):
    monkeypatch.chdir(folder)
    day = searcher.features("people/visible")
    wrong = dataclasses.replace(day, **changed(day))
    for call in (
        lambda: searcher.rank(wrong, day),
        lambda: searcher.rank(day, wrong),
        lambda: searcher.rank(day, wrong, rerank=True),
        lambda: save_features("wrong.npz", wrong),
    ):
        with pytest.raises(ms_vireid.InputError, match=f"^(query|gallery|content): {says}"):
            call()
    assert not Path("wrong.npz").exists()


@pytest.mark.parametrize(("value", "norm"), [(0.0, "0"), (3e38, "nan")])
def test_a_model_that_gives_no_features_is_refused(folder, tmp_path, monkeypatch, value, norm):
    monkeypatch.chdir(folder)
    held = read_checkpoint(folder / "run/model.safetensors")
    arrays = {name: np.full_like(array, value) for name, array in held.arrays.items()}
    save_weights(tmp_path / "wrong.safetensors", arrays, held.meta, MINDSPORE)
    wrong = ms_vireid.Searcher(tmp_path / "wrong.safetensors")
    for pictures, name in (("people/visible", r".*\.jpg"), (np.zeros((8, 8), np.uint8), "picture 0")):
        with pytest.raises(ms_vireid.InputError, match=f"{name}: its feature has norm {norm} instead of 1; check"):
            wrong.features(pictures, "visible")
    with pytest.raises(ms_vireid.InputError, match=f"its feature has norm {norm} instead of 1"):
        ms_vireid.evaluate(tmp_path / "wrong.safetensors", "data")


def test_reranked_searches_are_the_commands_and_by_the_distances(searcher, folder, monkeypatch, capfd):
    given = "--checkpoint", "run/model.safetensors", "--query", "people/infrared", "--gallery", "people/visible"
    command(monkeypatch, folder, retrieve, *given, "--rerank", "--top-k", 4, "--json", "a.json")
    written = json.loads((folder / "a.json").read_text())
    assert written["reranked"]
    night, day = searcher.features("people/infrared"), searcher.features("people/visible")
    found = searcher.rank(night, day, top_k=4, rerank=True)
    order = np.argsort(rerank(night.features, day.features), axis=1, kind="stable")[:, :4]
    for query, one, row in zip(written["queries"], found, order, strict=True):
        assert [hit["path"] for hit in query["hits"]] == [hit.entry.path for hit in one.hits] == day.paths[row].tolist()
    similarity = night.features @ day.features.T
    shown = [[hit.similarity for hit in one.hits] for one in found]
    assert np.array(shown) == pytest.approx(np.take_along_axis(similarity, order, 1), abs=1e-6)
    for options in (["--index", "flat"], ["--camera", "1"]):
        error = refused(monkeypatch, folder, capfd, retrieve, *given, "--rerank", *options)
        assert error == "error: --rerank: takes features or pictures, without an index and without --camera"


def test_another_thread_may_search(searcher, folder):
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(searcher.features, folder / "people/visible").result()
    assert np.array_equal(found.features, searcher.features(folder / "people/visible").features)


def test_evaluate_is_what_the_command_computes(folder, monkeypatch):
    module = import_module("ms_vireid.evaluate")
    checkpoint = folder / "run/model.safetensors"
    options = {"mode": "indoor", "shots": 10, "trials": 3, "flip": True}
    result = ms_vireid.evaluate(str(checkpoint), str(folder / "data"), device="CPU", **options)
    words = [f"--{name}" for name in ("mode", "shots", "trials")]
    given = [word for pair in zip(words, ("indoor", "10", "3"), strict=True) for word in pair]
    command(monkeypatch, folder, module, "--checkpoint", checkpoint, *given, "--flip", "--json", "result.json")
    data = str((folder / "data").resolve())
    of = {"checkpoint": str(checkpoint), "sha256": file_checksum(checkpoint), "data_root": data, "trained_root": data}
    written = unsealed(json.loads((folder / "result.json").read_text()))
    assert re.fullmatch("[0-9a-f]{16}", written.pop("pictures"))
    assert written == of | json.loads(json.dumps(result.as_dict()))
    with pytest.raises(TypeError, match="evaluate\\(\\) has no option shot; there are mode, shots"):
        ms_vireid.evaluate(checkpoint, shot=1)
    with pytest.raises(ms_vireid.InputError, match=r"evaluation\.mode: input should be 'all' or 'indoor'"):
        ms_vireid.evaluate(checkpoint, mode="outdoor")


def test_another_name_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Seacher'"):
        ms_vireid.Seacher  # noqa: B018


def test_numbers_of_numpy_are_numbers(searcher, folder, monkeypatch):
    monkeypatch.chdir(folder)
    day = searcher.features("people/visible")
    found = searcher.rank(day, day, top_k=np.int64(2), threshold=np.float32(0.5))
    assert found == searcher.rank(day, day, top_k=2, threshold=0.5)
    sizes = {"image_size": np.array([32, 16]), "num_classes": np.int32(3)}
    assert create_model("pmt_vit_tiny", depth=np.int64(1), **sizes).classifier.weight.shape[0] == 3
    result = ms_vireid.evaluate("run", "data", trials=np.int64(2), threshold=np.float64(0.5))
    assert (len(result.trials), result.evaluated["threshold"]) == (2, 0.5)

"""`ms_vireid.Searcher` and `ms_vireid.evaluate`: what the commands compute, from Python."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import ms_vireid
from ms_vireid import evaluate as module
from ms_vireid import extract, retrieve
from ms_vireid.evaluation.reranking import rerank
from ms_vireid.files.checks import unsealed
from ms_vireid.inference.feature_files import load_features
from tests.checkpoints import write_checkpoint
from tests.data.tree import write_folder
from tests.test_train import command, refused


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
    command(
        monkeypatch,
        folder,
        retrieve,
        *given,
        "--query",
        "people/infrared/ben",
        "--gallery",
        "day.npz",
        "--json",
        "a.json",
    )
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
        ([], "auto", "no pictures are given"),
        ("nowhere.jpg", "auto", r"pictures nowhere\.jpg: no such file"),
        (np.zeros((8, 8, 3), np.uint8), "auto", "do not say their modality"),
        (np.zeros((8, 8, 3), np.uint8), "thermal", "modality 'thermal': there are visible, infrared and auto"),
        (np.zeros((8, 8, 3), np.float32), "visible", r"picture 0: is float32 \(8, 8, 3\); give uint8"),
        (np.zeros((8, 8, 4), np.uint8), "visible", r"picture 0: is uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8), np.uint8), "visible", r"picture 0: is empty \(0, 8\)"),
        ([np.zeros((8, 8), np.uint8), "a.jpg"], "visible", "picture 1: is a str; give paths alone"),
        (Image.new("F", (8, 8)), "visible", "picture 0: its pixels have 32 bits"),
    ],
)
def test_what_is_wrong_with_pictures_is_one_error(searcher, pictures, modality, said):
    with pytest.raises(ms_vireid.InputError, match=said):
        searcher.features(pictures, modality)


def test_what_is_wrong_with_a_search_is_one_error(searcher, folder):
    with pytest.raises(ms_vireid.InputError, match="top_k 0: must be at least 1"):
        searcher.rank(folder / "people/visible", folder / "people/visible", top_k=0)
    with pytest.raises(ms_vireid.InputError, match="nowhere: no such checkpoint file"):
        ms_vireid.Searcher("nowhere")
    with pytest.raises(ms_vireid.InputError, match="device cuda: there are auto, Ascend, GPU, CPU"):
        ms_vireid.Searcher(folder / "run/model.safetensors", device="cuda")


def test_reranked_searches_are_the_commands_and_by_the_distances(searcher, folder, monkeypatch, capfd):
    given = (
        "--checkpoint",
        folder / "run/model.safetensors",
        "--query",
        "people/infrared",
        "--gallery",
        "people/visible",
    )
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


def test_evaluate_is_the_commands_module_and_its_function(folder, monkeypatch):
    assert ms_vireid.evaluate is module
    checkpoint = folder / "run/model.safetensors"
    options = {"mode": "indoor", "shots": 10, "trials": 3, "flip": True}
    result = ms_vireid.evaluate(str(checkpoint), str(folder / "data"), device="CPU", **options)
    words = [f"--{name}" for name in ("mode", "shots", "trials")]
    given = [word for pair in zip(words, ("indoor", "10", "3"), strict=True) for word in pair]
    command(monkeypatch, folder, module, "--checkpoint", checkpoint, *given, "--flip", "--json", "result.json")
    assert unsealed(json.loads((folder / "result.json").read_text())) == json.loads(json.dumps(result.as_dict()))
    with pytest.raises(TypeError, match="evaluate\\(\\) has no option shot; there are mode, shots"):
        ms_vireid.evaluate(checkpoint, shot=1)
    with pytest.raises(ms_vireid.InputError, match=r"evaluation\.mode: input should be 'all' or 'indoor'"):
        ms_vireid.evaluate(checkpoint, mode="outdoor")


def test_another_name_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Seacher'"):
        ms_vireid.Seacher  # noqa: B018

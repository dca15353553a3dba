"""`retrieve.py`: every kind of query and gallery, what it prints and writes, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_vireid import extract, retrieve
from ms_vireid.command.errors import InputError
from ms_vireid.search.feature_files import load_features
from ms_vireid.search.result import Entry, Hit, SearchResult, nearest_people
from ms_vireid.search.sources import read_source

from .data.tree import write_folder, write_picture, write_sysu_mm01
from .test_train import command, refusal
from .tiny_models import write_checkpoint


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A checkpoint and another one, a set of pictures, and their features: all.npz, and night.npz of the infrared."""
    folder = tmp_path_factory.mktemp("retrieve")
    write_checkpoint(folder / "model.safetensors", "pmt", folder / "data")
    write_checkpoint(folder / "other.safetensors", "pmt", folder / "data", "seed=9")
    write_sysu_mm01(folder / "sysu")
    with pytest.MonkeyPatch.context() as patch:
        for name, model, images in (("all", "model", ""), ("night", "model", "cam3"), ("other", "other", "cam3")):
            options = "--checkpoint", f"{model}.safetensors", "--images", f"sysu/{images}", "--output", f"{name}.npz"
            command(patch, folder, extract, *options)
    return folder


@pytest.fixture
def search(prepared, monkeypatch, tmp_path):
    def searched(*arguments):
        """The JSON of what was found."""
        command(monkeypatch, prepared, retrieve, *arguments, "--json", tmp_path / "found.json")
        return json.loads((tmp_path / "found.json").read_text())

    return searched


@pytest.fixture
def refused(search, capfd):
    return lambda *arguments: refusal(capfd, search, *arguments)


def paths(found):
    return [[hit["path"] for hit in query["hits"]] for query in found["queries"]]


def expected(prepared, asked="night", searched="all", allowed=None, top_k=10):
    queries, gallery = (load_features(prepared / f"{name}.npz") for name in (asked, searched))
    distance = np.float32(1) - queries.features @ gallery.features.T
    order = [row[allowed[row]] if allowed is not None else row for row in np.argsort(distance, axis=1, kind="stable")]
    return [gallery.paths[row[:top_k]].tolist() for row in order]


def test_features_among_features(search, prepared, capfd):
    found = search("--query", "night.npz", "--gallery", "all.npz", "--top-k", 4)
    assert paths(found) == expected(prepared, top_k=4)
    assert found["top_k"] == 4
    assert found["pictures"] == len(load_features(prepared / "all.npz"))
    first = found["queries"][0]
    assert (first["modality"], first["camera"]) == ("infrared", 3)
    assert (first["hits"][0]["similarity"], first["hits"][0]["match"]) == (pytest.approx(1, abs=1e-6), True)
    assert first["hits"][0]["file"] == str(prepared / "sysu" / first["hits"][0]["path"])
    printed = capfd.readouterr().out
    assert printed.count("rank  similarity  match  camera  identity  picture") == len(found["queries"])
    assert f"   1      1.0000    yes       3  {first['identity']:>8}  {first['hits'][0]['path']}\n" in printed


def test_pictures_among_features_and_pictures(search, prepared):
    names = ["sysu/cam3/0001", "sysu/cam3/0006"]
    files = [next((prepared / name).iterdir()) for name in names]
    by_file = search("--query", *files, "--gallery", "all.npz", "--checkpoint", "model.safetensors")
    night = load_features(prepared / "night.npz").paths.tolist()
    rows = [night.index(f"{file.parent.name}/{file.name}") for file in files]
    assert paths(by_file) == [expected(prepared)[row] for row in rows]
    assert [(query["identity"], query["camera"]) for query in by_file["queries"]] == [("0001", 3), ("0006", 3)]
    by_folder = search("--query", "sysu/cam3", "--gallery", "sysu", "--checkpoint", ".")
    assert paths(by_folder) == expected(prepared)


def test_pictures_in_folders_without_a_meaning_need_their_modality(search, refused, prepared, tmp_path):
    day, night = tmp_path / "day" / "anna.jpg", tmp_path / "street"
    write_picture(day)
    for i in range(3):
        write_picture(night / f"{i}.jpg", seed=i, gray=True)
    options = ("--query", day, "--gallery", night, "--checkpoint", "model.safetensors")
    said = refused(*options)
    assert "street: fits no tree in docs/data.md; it has no folder; a picture is 0.jpg; say what its names" in said
    found = search(*options, "--modality", "visible", "infrared")
    (query,) = found["queries"]
    assert (query["path"], query["modality"], query["identity"]) == ("anna.jpg", "visible", None)
    assert {hit["modality"] for hit in query["hits"]} == {"infrared"}
    assert [hit["match"] for hit in query["hits"]] == [None] * 3


@pytest.mark.parametrize(("kind", "gallery"), [("flat", "all.npz"), ("ivf", "all.npz"), ("flat", "sysu")])
def test_an_index_is_saved_and_searched_without_the_features(search, prepared, tmp_path, kind, gallery, capfd):
    options = ("--query", "night.npz", *(("--breadth", 64) if kind == "ivf" else ()))
    saved = "--index", kind, "--save-index", tmp_path / "all.index"
    embedded = () if gallery.endswith(".npz") else ("--checkpoint", "model.safetensors")
    made = search(*options, "--gallery", gallery, *embedded, *saved)
    loaded = search(*options, "--gallery", tmp_path / "all.index")
    assert paths(made) == paths(loaded) == expected(prepared)
    assert f"all.index: {kind} index of " in capfd.readouterr().out


def test_queries_far_from_what_an_index_was_measured_by_are_told(search, prepared, tmp_path, monkeypatch, capfd):
    def is_first(index, queries):
        return np.arange(len(queries)) < 1

    monkeypatch.setattr("ms_vireid.search.faiss_index.FaissIndex.far_away", is_first)
    saved = "--index", "ivf", "--sample", "sysu/cam3", "--checkpoint", ".", "--save-index", tmp_path / "all.index"
    command(monkeypatch, prepared, retrieve, "--gallery", "all.npz", *saved)
    assert "note:" not in capfd.readouterr().out
    found = search("--query", "night.npz", "--gallery", tmp_path / "all.index")
    assert paths(found) == expected(prepared)
    said = f"all.index: 1 of {len(found['queries'])} queries lie farther from it than those that its"
    assert said in capfd.readouterr().out


def test_milvus_is_filled_and_searched(search, prepared, tmp_path, monkeypatch, capfd):
    gallery = f"milvus:{tmp_path}/gallery.db"
    command(monkeypatch, prepared, retrieve, "--gallery", gallery, "--add", "all.npz")
    count = len(load_features(prepared / "all.npz"))
    assert f"{count} pictures added, 0 replaced; {count} in all" in capfd.readouterr().out
    found = search("--gallery", gallery, "--query", "night.npz", "--add", "all.npz")
    assert f"0 pictures added, {count} replaced; {count} in all" in capfd.readouterr().out
    assert paths(found) == expected(prepared)
    assert found["queries"][0]["hits"][0]["file"].startswith(str(prepared))
    picture = prepared / "sysu" / found["queries"][0]["hits"][3]["path"]
    again = search("--gallery", gallery, "--query", picture, "--checkpoint", "model.safetensors")
    assert again["queries"][0]["hits"][0]["file"] == str(picture)


def test_suffixes_are_read_as_they_are_written_whatever_their_case(search, prepared, tmp_path):
    gallery, index = tmp_path / "ALL.NPZ", tmp_path / "ALL.INDEX"
    shutil.copy(prepared / "all.npz", gallery)
    made = search("--query", "night.npz", "--gallery", gallery, "--index", "flat", "--save-index", index)
    loaded = search("--query", gallery, "--gallery", index)
    assert (made["pictures"], len(loaded["queries"])) == (loaded["pictures"], made["pictures"])


@pytest.mark.parametrize("options", [(), ("--rerank",), ("--index", "flat"), ("--camera", "1", "3")])
def test_the_best_picture_of_each_person_is_found(search, options):
    given = "--query", "night.npz", "--gallery", "all.npz", *options
    for top_k in (1, 3, 50):  # of five people
        found = search(*given, "--by-identity", "--top-k", top_k)
        assert found["by_identity"]
        for query, whole in zip(found["queries"], search(*given, "--top-k", "50")["queries"], strict=True):
            first = {hit["identity"]: hit["path"] for hit in reversed(whole["hits"])}
            best = [hit["path"] for hit in whole["hits"] if first[hit["identity"]] == hit["path"]]
            assert [hit["path"] for hit in query["hits"]] == best[:top_k]
            assert [hit["rank"] for hit in query["hits"]] == list(range(1, len(best[:top_k]) + 1))


@pytest.mark.parametrize("options", [(), ("--index", "flat"), ("--by-identity",), ("--rerank",)])
def test_below_a_threshold_nobody_is_found(search, prepared, capfd, tmp_path, options):
    given = "--query", "night.npz", "--gallery", "all.npz", "--top-k", 6, *options
    whole = search(*given)
    shown = sorted(hit["similarity"] for query in whole["queries"] for hit in query["hits"])
    threshold = shown[len(shown) // 2]  # which a hit has exactly
    for chosen in (threshold, 1.0):
        found = search(*given, "--threshold", repr(chosen), "--sheet", tmp_path / "sheet.png")
        assert found["threshold"] == chosen
        for query, before in zip(found["queries"], whole["queries"], strict=True):
            similar = [hit for hit in before["hits"] if hit["similarity"] >= chosen]
            assert query["hits"] == [hit | {"rank": rank} for rank, hit in enumerate(similar, 1)]
    assert threshold < 1
    capfd.readouterr()
    search("--query", "night.npz", "--gallery", "all.npz", "--camera", 1, "--threshold", 1)
    assert capfd.readouterr().out.count("nothing found\n") == len(whole["queries"])


def test_a_person_in_two_spellings_of_unicode_is_one():
    names = [unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD")]
    entries = [Entry(f"{i}.jpg", Path(f"{i}.jpg"), "visible", None, name) for i, name in enumerate((*names, "anna"))]
    hits = [Hit(one, 0.5) for one in entries]
    assert [SearchResult(entries[1], hits).match(hit) for hit in hits] == [True, True, False]
    (best,) = nearest_people(lambda count: [hits[:count]], 3, 3)
    assert [hit.entry.path for hit in best] == ["0.jpg", "2.jpg"]


def test_queries_are_read_in_the_tree_of_the_gallery(search, prepared, tmp_path, capfd):
    for person in (1, 2):
        for modality in ("rgb", "ir"):
            write_picture(tmp_path / f"vcm/{person:04d}/{modality}/D1/0.jpg", seed=person)
    images = tmp_path / "vcm"
    options = ("--checkpoint", "model.safetensors", "--query", images / "0001/ir")
    stated = ("--layout", "{identity}/{modality}/{camera}/*")
    for gallery in (images, tmp_path / "vcm.npz", tmp_path / "vcm.index"):
        if gallery.suffix == ".npz":
            with pytest.MonkeyPatch.context() as patch:
                made = ("--checkpoint", "model.safetensors", "--images", images, "--output", gallery, *stated)
                command(patch, prepared, extract, *made)
        if gallery.suffix == ".index":
            search(*options, "--gallery", tmp_path / "vcm.npz", "--index", "flat", "--save-index", gallery)
        (query,) = search(*options, "--gallery", gallery, *(stated if gallery == images else ()))["queries"]
        assert (query["identity"], query["path"]) == ("0001", "D1/0.jpg")
        assert {(hit["identity"], hit["match"]) for hit in query["hits"]} == {("0001", True), ("0002", False)}


def test_names_of_two_trees_are_said_to_be_taken_for_the_same(search, prepared, tmp_path, capfd):
    for place in ("a/visible/1", "b/visible/1"):
        write_picture(tmp_path / "in" / place / "0.jpg")
    options = ("--checkpoint", "model.safetensors", "--query", tmp_path / "in/a", "--gallery")
    search(*options, tmp_path / "in/b")
    assert "note: equal names are taken for the same person in" in capfd.readouterr().out
    search(*options, tmp_path / "in/a/visible")
    assert "taken for the same" not in capfd.readouterr().out
    search(*options, tmp_path / "in", "--layout", "{site}/{modality}/{identity}/*")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [hit["match"] for hit in found["queries"][0]["hits"]] == [True, False]


def test_numbers_of_two_parts_of_a_set_are_one_person_if_the_layout_says_so(search, refused, tmp_path):
    for part in ("train", "test", "query"):
        write_picture(tmp_path / part / "0000/0000_000_01_0303morning_0015_0.jpg")
    options = ("--checkpoint", "model.safetensors", "--modality", "visible", "visible", "--gallery", tmp_path / "test")
    said = refused(*options, "--query", tmp_path / "train", "--layout", "msmt17")
    assert "test: people with the same number: 1 (0000); give --layout=msmt17:different if these are differ" in said
    for part, told, match in (("query", "", True), ("train", ":different", False), ("train", ":same", True)):
        (query,) = search(*options, "--query", tmp_path / part, "--layout", f"msmt17{told}")["queries"]
        assert [hit["match"] for hit in query["hits"]] == [match]


def test_pictures_of_unknown_people_are_not_taken_for_one():
    entries = [Entry(f"{i}.jpg", Path(f"{i}.jpg"), "visible", None, name) for i, name in enumerate("aab" + "-" * 2)]
    entries = [replace(one, identity=None) if one.identity == "-" else one for one in entries]
    ranked, asked = [Hit(one, 0.5) for one in entries], []
    search = lambda count: asked.append(count) or [ranked[:count]]  # noqa: E731
    (hits,) = nearest_people(search, 3, 5)
    assert ([hit.entry.path for hit in hits], asked) == (["0.jpg", "2.jpg", "3.jpg"], [3, 5])


def test_cameras_choose_what_is_searched(search, prepared):
    found = search("--query", "night.npz", "--gallery", "all.npz", "--camera", 1, 2, 4)
    cameras = load_features(prepared / "all.npz").cameras
    assert paths(found) == expected(prepared, allowed=np.isin(cameras, (1, 2, 4)))


def test_the_sheet_is_drawn_from_the_gallerys_pictures_wherever_they_are(search, prepared, tmp_path, capfd):
    options = ("--query", "night.npz", "--gallery", "all.npz", "--sheet", tmp_path / "sheet.png", "--top-k", 3)
    search(*options)
    with Image.open(tmp_path / "sheet.png") as image:
        whole = np.asarray(image)
    count = len(load_features(prepared / "night.npz"))
    assert whole.shape[:2] == pytest.approx((200 * (count * (0.9 * 0.72 * 2 + 0.35) + 0.3), 200 * 4.4 * 0.72), abs=1)
    assert "not there" not in capfd.readouterr().out
    (tmp_path / "empty").mkdir()
    search(*options, "--gallery-root", tmp_path / "empty")
    found = json.loads((tmp_path / "found.json").read_text())
    absent = {hit["path"] for query in found["queries"] for hit in query["hits"]}
    assert f"{len(absent)} pictures are missing (--gallery-root?)" in capfd.readouterr().out
    with Image.open(tmp_path / "sheet.png") as image:
        assert not np.array_equal(whole, np.asarray(image))


def test_many_queries_are_cut_in_the_table_and_whole_in_the_json(search, capfd):
    found = search("--query", "all.npz", "--gallery", "all.npz", "--top-k", 2)
    assert len(found["queries"]) > 20
    printed = capfd.readouterr().out
    assert printed.count("query ") == 20
    assert f"queries: {len(found['queries'])} (the first 20 are shown; --json has all)" in printed
    assert 0 <= float(re.search(r"search: ([\d.]+) s$", printed, re.MULTILINE)[1]) < 60


ALL = ("--gallery", "all.npz")
NIGHT = ("--query", "night.npz", "--gallery")
NIGHT_IN_ALL = (*NIGHT, "all.npz")
CAMERA_3 = ("--query", "sysu/cam3", *ALL)
SAVED = ("--index", "flat", "--save-index", "a.index")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (ALL, "nothing to do: give --query, --add or --save-index"),
        ((*ALL, *SAVED), "--json: nothing is searched without --query; leave it out"),
        ((*ALL, *SAVED, "--sheet", "a.png", "--top-k", "3"), "--top-k, --json, --sheet: nothing is searched without"),
        ((*NIGHT_IN_ALL, "--checkpoint", ".", "--tf32"), "--checkpoint, --tf32: no pictures are given, only features;"),
        (
            (*CAMERA_3, "--modality", "auto", "visible"),
            "--modality visible: the gallery's pictures are features, which know",
        ),
        ((*NIGHT_IN_ALL, "--collection", "other"), "--collection: only for a gallery in Milvus (milvus:PATH.db or"),
        ((*NIGHT_IN_ALL, "--breadth", "8"), "--breadth: is for an approximate search, --index ivf; leave it out"),
        ((*NIGHT, "milvus:a.db", "--index", "hnsw"), "--index: a gallery in Milvus keeps what it got by --add; leave"),
        (("--query", "nowhere.jpg", *ALL), "--query nowhere.jpg: no such file"),
        (("--query", "model.safetensors", *ALL), "--query model.safetensors: is not a picture"),
        ((*NIGHT, "nowhere.index"), "nowhere.index: no such file; make one with --save"),
        ((*NIGHT, "nowhere"), "nowhere: no such folder; --gallery takes a folder"),
        ((*NIGHT, "model.safetensors"), "model.safetensors: no such folder; --gallery takes a folder"),
        ((*NIGHT, "other.npz"), "other.npz: features come from another checkpoint or data"),
        (CAMERA_3, "--checkpoint is needed to embed the pictures of "),
        ((*CAMERA_3, "--checkpoint", "other.safetensors"), "all.npz: features come from another checkpoint or data"),
        ((*NIGHT, "milvus:no.db"), "milvus:no.db: no such gallery; make it with --add"),
        ((*NIGHT_IN_ALL, "--add", "all.npz"), "--add: only for a gallery in Milvus (milvus:PATH.db or milv"),
        ((*NIGHT_IN_ALL, "--save-index", "a.index"), "--save-index a.index: needs features and --index flat or ivf"),
        ((*NIGHT, "a.index", "--index", "ivf"), "a.index is an index already"),
        ((*NIGHT_IN_ALL, "--index", "flat", "--sample", "night.npz"), "--sample night.npz: is for --index ivf; leave"),
        ((*NIGHT_IN_ALL, "--index", "ivf", "--sample", "nowhere"), "--sample nowhere: no such file; give pictures"),
        ((*NIGHT_IN_ALL, "--index", "ivf", "--sample", "other.npz"), "all.npz: features come from another checkpoint"),
        ((*NIGHT_IN_ALL, "--index", "hnsw"), "--index hnsw: is Milvus's; for other galleries give --index ivf"),
        ((*NIGHT, "milvus:a.db", "--index", "ivf"), "--index ivf: is FAISS's; in Milvus give --index hnsw"),
        ((*NIGHT_IN_ALL, "--index", "ivf", "--save-index", "a.faiss"), "a.faiss: the file's name must end in .index"),
        ((*NIGHT_IN_ALL, "--camera", "9"), "--camera 9: all.npz has cameras 1, 2, 3,"),
        ((*NIGHT_IN_ALL, "--gallery-root", "no"), "no: no such folder; give the fold"),
    ],
)
def test_bad_input_is_refused_in_one_line(refused, arguments, said):
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("faiss", ("--gallery", "all.npz", "--index", "flat"), "search"),
        ("faiss", ("--gallery", "a.index"), "search"),
        ("pymilvus", ("--gallery", "milvus:http://nowhere"), "search"),
        ("milvus_lite", ("--gallery", "milvus:a.db"), "search"),
        ("matplotlib", ("--gallery", "all.npz", "--sheet", "a.png"), "viz"),
    ],
)
def test_without_an_extra_one_line_says_how_to_get_it(refused, monkeypatch, package, options, extra):
    monkeypatch.setattr("ms_vireid.command.running.find_spec", lambda name: None if name == package else name)
    said = refused("--query", "night.npz", *options)
    assert said == f"error: this search needs {package}: pip install -e '.[{extra}]'"


def test_the_command_imports_no_framework_and_no_extra_for_features(prepared):
    script = "import sys; from ms_vireid.retrieve import main; main(); print(*sys.modules)"
    given = [sys.executable, "-c", script, "--query", "night.npz", "--gallery", "all.npz"]
    done = subprocess.run(given, cwd=prepared, capture_output=True, text=True, check=True)
    *_, searched, modules = done.stdout.splitlines()
    assert searched.startswith("queries: ")
    assert not {"matplotlib", "faiss", "pymilvus", "mindspore", "torch"} & set(modules.split())


def test_pictures_of_several_folders_are_named_from_the_folder_they_share(tmp_path):
    root = write_folder(tmp_path / "set", ("0001", "0002"))
    files = [root / "visible/0001/0.jpg", root / "infrared/0002/1.jpg"]
    source = read_source(files, "auto", "--query")
    assert source.root == root
    assert [name.as_posix() for name in source.names] == ["visible/0001/0.jpg", "infrared/0002/1.jpg"]
    assert source.images.infrared.tolist() == [False, True]
    assert source.identities.tolist() == ["0001", "0002"]
    with pytest.raises(InputError, match=r"give pictures, one folder, or one \.npz"):
        read_source([root, root], "auto", "--query")

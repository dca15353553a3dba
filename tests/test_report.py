"""report.py: what is on the page, that the page needs nothing else, and what becomes of runs that lack something."""

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image

from ms_vireid import report
from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.names import MINDSPORE
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.readers import read_data
from ms_vireid.evaluation.evaluating import searched_features
from ms_vireid.files.checks import file_checksum, sealed, unsealed
from ms_vireid.search.start import load_trained
from ms_vireid.visualization.ranking import rank_queries
from tests.data.tree import accept_changes
from tests.report_run import command, make_page, trained_run
from tests.test_train import refusal
from tests.tiny_models import run_record

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements as (name, attributes, text within), in the order of their beginnings; wrong nesting is an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, name, attributes):
        self.elements.append([name, dict(attributes), ""])
        if name not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, name, attributes):  # within <svg>
        self.elements.append([name, dict(attributes), ""])

    def handle_endtag(self, name):
        assert self._open.pop()[0] == name

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, name, **attributes):
        return [
            (held, " ".join(text.split()) if n != "pre" else text)
            for n, held, text in self.elements
            if n == name and all(held.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]

    def texts(self, name, **attributes):
        return [text for _, text in self.all(name, **attributes)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(finished):
    return Page(make_page(finished))


@pytest.fixture
def copied(finished, tmp_path):
    """The run folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def change(path, **values):
    path.write_text(json.dumps(sealed(unsealed(json.loads(path.read_text())) | values)))


def test_the_page_needs_no_other_file_and_no_network(finished, page):
    text = (finished / "report.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert not {"script", "link", "iframe", "object", "source"} & {name for name, _, _ in page.elements}
    assert "url(" not in text.replace("url(#", "")
    targets = {held["id"] for _, held, _ in page.elements if "id" in held}
    for _, held, _ in page.elements:
        assert held.get("src", "data:").startswith("data:")
        if "href" in held:
            assert held["href"][0] == "#"
            assert held["href"][1:] in targets
    assert len(text) < 3e6


def test_every_picture_decodes_and_says_what_it_shows(page):
    pictures = page.all("img")
    assert len(pictures) == 6 * 11 + 4 * 4  # queries with ten ranks, and Grad-CAM of pairs
    for held, _ in pictures:
        kind, _, content = held["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as image:
            assert image.size == (24, 48)
            assert np.asarray(image).std() > 5
        assert "identity" in held["alt"]
    for held, text in page.all("svg"):
        assert held["aria-label"]
        assert "step" in text or "cosine similarity" in text


def test_ids_are_unique_and_headings_in_order(page):
    ids = [held["id"] for _, held, _ in page.elements if "id" in held]
    assert len(ids) == len(set(ids))
    levels = [int(name[1]) for name, _, _ in page.elements if name in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(after - before <= 2 for before, after in pairwise(levels))
    assert len(page.all("table")) == len(page.all("caption"))


def test_the_result_is_result_jsons_and_says_that_nothing_is_published(finished, page):
    result = json.loads((finished / "result.json").read_text())
    cells = page.texts("td", role="cell")
    trained, deviation = result["protocol"]["mean"], result["protocol"]["std"]
    assert cells[:6] == [f"{100 * trained[name]:.2f} ± {100 * deviation[name]:.2f}" for name in trained]
    assert cells[6:12] == [f"{100 * value:.2f}" for value in result["untrained"].values()]
    assert cells[12:] == [f"{100 * value:.2f}" for value in result["chance"].values()]
    assert page.texts("th", scope="row", role="rowheader") == [
        "ours trained",
        "ours untrained",
        "chance random rankings",
    ]
    assert any(text.startswith("Published: none. The papers") for text in page.texts("p", class_="note"))


def test_the_curves_are_those_of_the_log(finished, page):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    labels = [held["aria-label"] for held, _ in page.all("svg")]
    titles = [label.partition(" over the steps")[0] for label in labels[:-1]]
    assert titles == ["loss", "id", "pht", "msel", "dcl", "learning rate", "metrics on the test set"]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert labels[0].endswith(f"loss from {losses[0]:.3g} to {losses[-1]:.3g}")
    assert f"mAP from {100 * rows[2]['evaluation']['map']:.3g}" in labels[6]


def test_the_queries_are_those_of_the_evaluation(finished, page):
    protocol = json.loads((finished / "result.json").read_text())["protocol"]
    said = f"{protocol['num_queries']} queries have a mean of {protocol['trials'][0]['map']:.2%}"
    assert said in " ".join(page.texts("p"))
    (trained,) = load_trained([finished / "model.safetensors"])
    data = read_data(trained.config.data)
    features, trials = searched_features(trained.extractor, data, trained.config.evaluation)
    ranked = sorted(rank_queries(features, data.test, trials[0], data.protocol), key=lambda one: one.average_precision)
    shown = [held["alt"] for held, _ in page.all("img")][: 6 * 11]
    titles = [title.partition(", first")[0] for title in page.texts("h4")[:6]]
    for number, one in enumerate([*ranked[:-4:-1], *ranked[:3]]):
        assert titles[number] == f"Query {1 + number % 3}: average precision {one.average_precision:.1%}"
        alts = shown[11 * number : 11 * (number + 1)]
        assert alts[0] == f"query: infrared picture of identity {data.test.name(one.query)}"
        for rank, (index, right) in enumerate(zip(one.gallery[:10], one.matches, strict=False), 1):
            verdict = "right" if right else "wrong"
            assert alts[rank] == f"rank {rank}: visible picture of identity {data.test.name(index)}, {verdict}"


def test_what_ran_and_the_whole_configuration_are_there(finished, page):
    record = json.loads((finished / "run.json").read_text())
    facts = dict(zip(page.texts("th", scope="row")[3:], page.texts("td")[18:], strict=True))
    assert facts["data checksum"] == record["data"]["checksum"]
    assert facts["seed"] == "0"
    assert facts["device"] == "CPU; eager"
    assert f"mindspore {record['versions']['mindspore']}" in facts["versions"]
    assert "train.num" not in facts["command"]
    assert "model.embed_dim=16" in facts["command"]
    shown = yaml.safe_load("".join(page.texts("pre")))
    whole = yaml.safe_load((finished / "config.yaml").read_text())
    for stage in whole["stages"]:
        stage["losses"] = {name: term for name, term in stage["losses"].items() if term is not None}
    assert shown == whole


def test_the_same_run_gives_the_same_page(finished, page):
    before = (finished / "report.html").read_bytes()
    make_page(finished)
    assert (finished / "report.html").read_bytes() == before


def test_without_queries_there_are_no_people(copied):
    page = Page(make_page(copied, "--queries", 0))
    assert not page.all("img")
    assert "Similarities across the modalities" in page.texts("h2")
    assert not {"Best and worst queries", "Grad-CAM"} & set(page.texts("h2"))


def test_a_run_that_has_not_ended_gives_what_there_is(copied, capfd):
    (copied / "result.json").unlink()
    (copied / "model.safetensors").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')  # as while it is being written
    page = Page(make_page(copied))
    said = "no result yet (epoch 2 of 2, step 4 so far)"
    assert f"note: {copied} has {said}; the page shows what there is" in capfd.readouterr().out
    notes = page.texts("p", class_="note")
    assert any("No result yet (epoch 2 of 2, step 4 so far)" in note for note in notes)
    assert "From last.safetensors: training has not ended." in notes
    assert page.all("img")
    assert len(page.all("table")) == 1  # what ran


def test_a_run_that_has_only_begun_gives_its_configuration(copied, capfd):
    for name in ("result.json", "model.safetensors", "last.safetensors", "metrics.jsonl"):
        (copied / name).unlink()
    page = Page(make_page(copied))
    notes = page.texts("p", class_="note")
    assert any("no step has been logged yet" in note for note in notes)
    assert any(note.startswith("No curves: ") for note in notes)
    assert any("holds no checkpoint" in note for note in notes)
    assert not page.all("img")
    assert len(page.all("pre")) == 9


def real_run(folder, recipe):
    """A run folder as train.py leaves it, of a recipe on a data set that is not here."""
    config = load_config(CONFIG_ROOT / recipe, ["model.pretrained=weights.safetensors", "model.num_classes=395"])
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run_record(config, folder / "gone")))
    metrics = {"rank1": 0.6, "rank5": 0.8, "rank10": 0.9, "rank20": 0.95, "map": 0.6, "minp": 0.5}
    protocol = {"mean": metrics, "std": dict.fromkeys(metrics, 0.0), "trials": 10 * [metrics]}
    protocol |= {"num_queries": 3803, "num_gallery": 301, "sha256": "0" * 64}
    (folder / "result.json").write_text(json.dumps({"trained": metrics, "protocol": protocol}))
    return folder


def test_the_papers_numbers_stand_beside_those_of_their_recipe(tmp_path, capfd):
    page = Page(make_page(real_run(tmp_path / "run", "pmt/sysu.yaml")))
    rows = page.texts("th", scope="row", role="rowheader")
    assert rows[0] == "ours trained"
    assert rows[1].startswith("published PMT: PMT (AAAI 2023), Table 5, ")
    first, second = rows[1].split("; ")
    assert {"Table 3", "Table 4", "Figure 6"} <= set(first.split(", "))
    assert second == "MUN (ICCV 2023), Table 4"
    assert rows[2] == "difference trained minus published"
    cells = page.texts("td", role="cell")
    assert cells[6:12] == ["67.53", "–", "95.36", "98.64", "64.98", "51.86"]
    assert cells[12:18] == ["-7.53", "–", "-5.36", "-3.64", "-4.98", "-1.86"]
    assert "run holds no checkpoint" in capfd.readouterr().out


def test_a_data_set_that_has_moved_is_said_and_can_be_given(finished, copied, tmp_path, capfd):
    change(copied / "run.json", data=json.loads((copied / "run.json").read_text())["data"] | {"root": "gone"})
    config = json.loads((copied / "run.json").read_text())["config"]
    config["data"]["name"] = "sysu_mm01"
    change(copied / "run.json", config=config)
    model, result = copied / "model.safetensors", json.loads((copied / "result.json").read_text())
    held = read_checkpoint(model)
    write_checkpoint(model, held.arrays, held.meta | {"config": config}, MINDSPORE)
    change(copied / "result.json", protocol=result["protocol"] | {"sha256": file_checksum(model)})
    notes = Page(make_page(copied)).texts("p", class_="note")
    assert any("gone: no such folder" in note and "--data-root D says where it is now" in note for note in notes)
    assert "note: no pictures: gone: no such folder" in capfd.readouterr().out
    page = Page(make_page(copied, "--data-root", finished.parent / "data"))
    assert len(page.all("img")) == 6 * 11 + 4 * 4


def test_pictures_that_have_changed_are_said(finished, copied, tmp_path):
    root = shutil.copytree(finished.parent / "data", tmp_path / "data")
    picture = next(root.glob("cam1/*/*.jpg"))
    picture.write_bytes(picture.read_bytes() + b" ")
    accept_changes(root)
    notes = Page(make_page(copied, "--data-root", root)).texts("p", class_="note")
    assert any("are not those of the run: their checksum is" in note for note in notes)


@pytest.mark.parametrize("name", ["untrained", "chance"])
@pytest.mark.parametrize("held", [None, {}])
def test_a_comparison_that_is_missing_is_said(copied, capfd, name, held):
    change(copied / "result.json", **{name: held})
    said = refusal(capfd, command, report, copied)
    assert f"result.json: lacks '{name}', which evaluation.compare_untrained asked for; use" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: holds no run (no run.json); give a run folder of train.py"),
        (("RUN", "--data-root", "file"), "file is not a synthetic set"),
        (("BROKEN",), "run.json: is not what train.py writes"),
    ],
)
def test_bad_input_is_refused_in_one_line(finished, tmp_path, monkeypatch, capfd, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    (tmp_path / "file").write_text("")
    known = {"RUN": finished, "BROKEN": "broken"}
    assert said in refusal(capfd, command, report, *(known.get(argument, argument) for argument in arguments))

"""Each kind of picture by its command: the file's kind and size, what two checkpoints change, and what is refused."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ms_vireid import visualize
from ms_vireid.command.running import run
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import write_json
from ms_vireid.search import trained_model
from ms_vireid.visualization import embedding
from ms_vireid.visualization.embedding import draw_embedding
from tests.data.tree import accept_changes
from tests.test_train import refusal

DPI = 200


@pytest.fixture
def draw(monkeypatch, tmp_path):
    def drawn(kind, *arguments, output="figure.png"):
        device = () if kind == "curves" else ("--device", "CPU")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["visualize.py", kind, *map(str, arguments), "--output", output, *device])
        run(visualize.main)
        return tmp_path / output

    return drawn


def pictures(data, infrared, count=2):
    return [path for path, r in zip(data.test.paths, data.test.infrared, strict=True) if r == infrared][:count]


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_gradcam_of_two_checkpoints_differs_and_the_picture_row_does_not(draw, checkpoints, data):
    options = ("--images", *pictures(data, False), "--relative", "--reference", pictures(data, True)[0])
    first = pixels(draw("gradcam", "--checkpoint", checkpoints["pmt"], checkpoints["pmt2"], *options))
    second = pixels(draw("gradcam", "--checkpoint", checkpoints["pmt2"], checkpoints["pmt"], *options))
    assert first.shape == second.shape
    assert min(first.shape[:2]) > 2 * DPI
    third = first.shape[0] // 3
    same = first[: third - 20, 60:] == second[: third - 20, 60:]
    assert same.mean() > 0.999
    assert (first[third:] != second[third:]).mean() > 0.05


@pytest.mark.parametrize("family", ["agw", "mun"])
def test_gradcam_and_features_of_the_convolutional_models(draw, checkpoints, data, family):
    both = (*pictures(data, False, 1), *pictures(data, True, 1))
    assert pixels(draw("gradcam", "--checkpoint", checkpoints[family], "--images", *both)).std() > 10
    path = draw("features", "--checkpoint", checkpoints[family], "--visible", both[0], "--infrared", both[1])
    assert pixels(path).std() > 10


def test_ranking_similarity_and_embedding_of_a_data_set(draw, checkpoints, data, capfd):
    ranking = pixels(draw("ranking", "--checkpoint", checkpoints["pmt"], "--queries", "2", "--choose", "worst"))
    assert ranking.shape[1] == pytest.approx(11.4 * 0.62 * DPI, abs=1)
    first, second = pictures(data, infrared=True)
    options = "--checkpoint", checkpoints["pmt"], "--query"
    chosen, turned = (pixels(draw("ranking", *options, *pair)) for pair in ((first, second), (second, first)))
    assert chosen.shape == turned.shape == ranking.shape
    assert (chosen[60:300, :100] != turned[60:300, :100]).any()
    runs = checkpoints["pmt"].parent, checkpoints["pmt2"].parent
    similarity = draw("similarity", "--checkpoint", *runs, "--labels", "a", "b")
    assert pixels(similarity).shape[:2] == (2.5 * DPI, 6.5 * DPI)
    options = ("--identities", "3", "--pictures", "2")
    embedding = draw("embedding", "--checkpoint", checkpoints["mun"], *options, output="figure.svg")
    text = embedding.read_text()
    assert text.startswith("<?xml")
    assert re.search(r'width="403\.2pt" height="230\.4pt"', text)  # 5.6 x 3.2 inches
    again = draw("embedding", "--checkpoint", checkpoints["mun"], *options, output="again.svg")
    assert again.read_text() == text
    assert "written: again.svg" in capfd.readouterr().out


def test_several_runs_are_embedded_with_the_same_people_under_their_names_and_results(
    draw, checkpoints, data, capfd, monkeypatch
):
    result = {"trained": {"rank1": 0.625, "map": 0.5}, "protocol": {"mean": {}, "std": {}, "trials": [{}]}}
    result["protocol"] |= {"num_queries": 1, "num_gallery": 1, "sha256": file_checksum(checkpoints["pmt"])}
    results = [checkpoints[name].parent / "result.json" for name in ("pmt", "pmt2")]
    for path in results:  # of the first one's model
        write_json(path, result)
    drawn = []
    monkeypatch.setattr(embedding, "draw_embedding", lambda *a: drawn.append(a) or draw_embedding(*a))
    runs = checkpoints["pmt"], checkpoints["pmt2"].parent, checkpoints["mun"]
    options = ("--identities", 3, "--pictures", 2, "--method", "pca", "--dimensions", 2)
    try:
        path = draw("embedding", "--checkpoint", *runs, *options)
    finally:
        for written in results:
            written.unlink()
    ((samples, titles, dimensions, method),) = drawn
    assert titles == ["pmt\nrank-1 62.5 %, mAP 50.0 %", "pmt2", "mun"]
    assert (list(dimensions), method) == ([2], "pca")
    first, second, third = ([*zip(one.identities, one.modalities, strict=True)] for one in samples)
    assert first == second == third[: len(first)]
    assert np.abs(samples[0].features - samples[1].features).max() > 1e-3
    assert pixels(path).shape[1] == pytest.approx(8.3 * DPI, abs=1)
    assert "other pictures" not in capfd.readouterr().out


def test_a_run_of_other_pictures_is_named(draw, checkpoints, data, capfd, monkeypatch):
    loaded = trained_model.load

    def of_others(*arguments):
        models = loaded(*arguments)
        models[1].record["data_checksum"] = "0" * 64
        return models

    monkeypatch.setattr(trained_model, "load", of_others)
    options = ("--method", "pca", "--dimensions", 2, "--labels", "day", "night")
    draw("embedding", "--checkpoint", checkpoints["pmt"], checkpoints["pmt2"], *options)
    notes = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: night: was not trained on the pictures under {data.root}"]


def test_curves_of_a_run(draw, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "step": 1, "loss": 1.0, "lr_full": 0.1}\n')
    height, width, *_ = pixels(draw("curves", tmp_path)).shape
    assert abs(height - 2.05 * DPI) <= 1  # Matplotlib 3.10 rounds down
    assert width == 5 * DPI


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gradcam", "--checkpoint", "P", "P", "P", "--images", "V"), "--checkpoint: 3 given, gradcam takes at most 2"),
        (("gradcam", "--checkpoint", "P", "--images", "loose.jpg"), "loose.jpg: its folders do not say the modality"),
        (("ranking", "--checkpoint", "P", "--query", *51 * ["a"]), "--query, pictures: 51: must be at most 50"),
        (("gradcam", "--checkpoint", "P", "--images", *51 * ["a"]), "--images, pictures: 51: must be at most 50 (a"),
        (("ranking", "--checkpoint", "P", "P"), "--checkpoint: 2 given, ranking takes at most 1"),
        (("similarity", "--checkpoint", "P", "--labels", "a", "b"), "--labels: 2 given for 1; give one each"),
        (("features", "--checkpoint", "P", "--visible", "V", "V", "--infrared", "V"), "give as many of each"),
        (("curves", "nowhere"), "nowhere: no such metrics.jsonl of a run"),
    ],
)
def test_bad_input_is_refused_in_one_line(draw, checkpoints, data, capfd, monkeypatch, arguments, said):
    known = {"P": checkpoints["pmt"], "V": pictures(data, False)[0]}
    kind, *rest = (known.get(argument, argument) for argument in arguments)
    assert said in refusal(capfd, draw, kind, *rest)


def test_a_test_set_without_a_match_is_refused(draw, checkpoints, data, capfd, tmp_path):
    root = shutil.copytree(data.root, tmp_path / "data")
    first, *others = sorted({*data.test.identities})
    for lost in [*root.glob(f"cam[1245]/{first:04d}"), *(one for n in others for one in root.glob(f"cam[36]/{n:04d}"))]:
        shutil.rmtree(lost)
    accept_changes(root)
    said = refusal(capfd, draw, "ranking", "--checkpoint", checkpoints["pmt"], "--data-root", root)
    assert said.startswith(f"error: {root}: none of the 4 queries has a match in its gallery of 12 images")

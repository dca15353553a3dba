"""The README's lines for two folders of one's own, as they stand there, on fewer steps."""

import importlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from ms_vireid import train
from ms_vireid.command.running import run
from ms_vireid.data.readers import read_folder
from tests.data.tree import write_folder, write_picture
from tests.test_train import refusal

evaluate = importlib.import_module("ms_vireid.evaluate")  # the command
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Search your own two folders\n.*?^```\n(.*?)^```", README, re.M | re.S)[1]
LINES = {words[1]: words[2:] for words in (shlex.split(line, comments=True) for line in SECTION.splitlines())}
FEWER_STEPS = ["stages.0.epochs=1", "stages.1.epochs=1", "train.iterations=2", "data.workers=0", "train.log_steps=1"]
# By operators, which compile nothing.
QUICK = [*FEWER_STEPS, "train.backend=eager", "evaluation.compare_untrained=false"]


def people(count):
    return tuple(f"{number:04d}" for number in range(1, count + 1))


def command(script, *further):
    """A line of the README, begun with `script`, in this process and folder."""
    run_script(importlib.import_module(script.removesuffix(".py").replace("/", ".")), *LINES[script], *further)


def run_script(module, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [module.__name__, "--device", "CPU", *words])
        run(module.main)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_twelve_people_are_trained_on_and_searched(folder, capsys):
    write_folder(folder / "people", people(12))
    command("ms_vireid/train.py", *FEWER_STEPS)
    printed = capsys.readouterr().out
    assert "note: 6 identities to train on: a batch has 6, not 32" in printed
    tested = re.search("^tested on 6 of 12 people: (.*)$", printed, re.M)[1]
    assert Path(LINES["ms_vireid/retrieve.py"][1]).name in tested
    for script in ("ms_vireid/report.py", "ms_vireid/extract.py", "ms_vireid/retrieve.py"):
        command(script)
    assert "rank  similarity" in capsys.readouterr().out
    assert {"day.npz", "found.png"} <= {path.name for path in folder.iterdir()}
    assert (folder / "runs/own/report.html").is_file()


def test_a_person_has_one_name_everywhere(folder, capsys):
    """Folders that neither begin at 0 nor have a name alone in numbers: the user's name for each, wherever it is."""
    names = ("0011", "0012", "0021", "0022", "anna", "ben with a long name")
    write_folder(folder / "people", names)
    command("ms_vireid/train.py", *QUICK)
    assert "tested on 3 of 6 people: 0022, anna, ben with a long name" in capsys.readouterr().out
    command("ms_vireid/report.py")
    page = (folder / "runs/own/report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'alt="query: infrared picture of identity ([^"]+)"', page)) == set(names[3:])
    command("ms_vireid/extract.py")
    command("ms_vireid/retrieve.py", "--query", "people/infrared/anna", "--json", "found.json", "--top-k", "12")
    found = json.loads(Path("found.json").read_text())["queries"][0]
    assert found["identity"] == "anna"
    assert {(hit["identity"], hit["match"]) for hit in found["hits"]} == {(name, name == "anna") for name in names}
    assert re.search("yes +- +anna  anna/0.jpg", capsys.readouterr().out)


def test_pictures_of_every_suffix_are_read_and_other_files_named(folder, caplog, capsys):
    write_folder(folder / "people", people(4))
    for number, suffix in enumerate((".webp", ".tif", ".tiff", ".TIFF")):
        write_picture(folder / "people/visible/0001" / f"x{suffix}", seed=number)
    for name in ("x.gif", "notes.txt", "Thumbs.db", ".DS_Store"):
        (folder / "people/visible/0001" / name).write_text("")
    data = read_folder(folder / "people", 0.5)
    assert {path.suffix for path in data.train.paths} == {".jpg", ".webp", ".tif", ".tiff", ".TIFF"}
    command("ms_vireid/train.py", *QUICK)
    command("ms_vireid/extract.py")
    assert "12 pictures: 12 visible" in capsys.readouterr().out
    skipped = "are not .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp: 2 (%s/0001/notes.txt, %s/0001/x.gif)"
    said = [record.getMessage() for record in caplog.records]
    assert any(line.endswith(skipped % ("visible", "visible")) for line in said)
    assert any(line.endswith(skipped.replace("%s/", "")) for line in said)


@pytest.mark.parametrize("override", ["evaluation.mode=indoor", "evaluation.shots=10", "evaluation.trials=5"])
def test_a_training_refuses_what_its_evaluation_has_no_use_for(folder, capsys, override):
    write_folder(folder / "people", people(4))
    said = refusal(capsys, command, "ms_vireid/train.py", *QUICK, override)
    assert f"{override.partition('=')[0]}: has no effect on folder; leave it out" in said
    assert not (folder / "runs").exists()


def test_an_evaluation_says_what_it_is_and_refuses_what_does_not_apply(folder, capsys):
    write_folder(folder / "people", people(4))
    command("ms_vireid/train.py", *QUICK)
    checkpoint = ["--checkpoint", "runs/own/model.safetensors"]
    for options in (["--mode", "indoor"], ["--shots", "10"], ["--trials", "5"]):
        said = refusal(capsys, run_script, evaluate, *checkpoint, *options)
        assert f"{options[0]}: has no effect on folder; leave it out" in said
    run_script(evaluate, *checkpoint, "--direction", "visible-to-infrared", "--flip", "--json", "result.json")
    printed = capsys.readouterr().out
    said = "evaluated: trained on folder, data folder, direction visible-to-infrared, flip yes, renormalise no, "
    said += "rerank no, corrupted no\n"
    assert said in printed
    assert "4 queries among 4 pictures in 1 trial; checksum" in printed
    assert "±" not in printed
    features = {"flip": True, "renormalise": False, "rerank": False}
    done = {"trained_on": "folder", "data": "folder", "direction": "visible-to-infrared", **features}
    assert json.loads(Path("result.json").read_text())["evaluated"] == done | {"corrupted": False}


@pytest.mark.parametrize(("count", "batch"), [(4, 2), (40, 20), (70, 32)])
def test_the_batch_holds_as_many_people_as_there_are(count, batch, folder, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(train.Training, "train", lambda self, _: asked.append(self.config.train.num_identities))
    write_folder(folder / "people", people(count))
    command("ms_vireid/train.py")
    assert asked == [batch]
    assert (f"a batch has {batch}, not 32" in capsys.readouterr().out) == (count < 64)


def test_three_people_are_too_few(folder, capsys):
    write_folder(folder / "people", people(3))
    said = refusal(capsys, command, "ms_vireid/train.py", *QUICK)
    assert "1 identities to train on, each device needs at least 2; add people" in said


def test_nobody_is_tested_on_whom_the_model_or_the_one_before_it_was_trained_on(folder, capsys, caplog):
    write_folder(folder / "people", people(4))
    command("ms_vireid/train.py", *QUICK)  # on 0001 and 0002
    model = "runs/own/model.safetensors"
    shutil.copytree("people", "copy")
    Path("copy/visible/0001/0.jpg").rename("copy/visible/0001/renamed.jpg")
    caplog.clear()
    for root in ("people", "copy"):
        run_script(evaluate, "--checkpoint", model, "--data-root", root)
        assert "4 queries among 4 pictures" in capsys.readouterr().out
    assert "the model was trained on" not in caplog.text
    run_script(evaluate, "--checkpoint", model, "--data", "folder", "--data-root", "copy")
    assert "4 queries among 4 pictures" in capsys.readouterr().out
    note = "note: copy: the model was trained on 2 of the 4 people to test on, who are left out: 0001, 0002"
    assert [record.getMessage() for record in caplog.records] == [note]
    write_picture(folder / "people/visible/0000/0.jpg", seed=90)
    write_picture(folder / "people/infrared/0000/0.jpg", seed=91)
    run_script(evaluate, "--checkpoint", model, "--data-root", "people")  # 0002 is among the last half now
    assert "people: the model was trained on 1 of the 3 people to test on, who are left out: 0002" in caplog.text
    for person in ("visible/000{}", "infrared/000{}"):  # 0000, of whom it knows nothing, and 0001 exchange their names
        for one, other in (("0", "x"), ("1", "0"), ("x", "1")):
            Path("people", person.format(one)).rename(Path("people", person.format(other)))
    caplog.clear()
    run_script(evaluate, "--checkpoint", model, "--data-root", "people")
    assert "people: the model was trained on 1 of the 3 people to test on, who are left out: 0002" in caplog.text
    # A second model begins with the first, on people of whom the first knows 0002 and 0001 is not among them.
    shutil.rmtree("copy")
    for number, name in enumerate("11122233"):
        write_picture(folder / "copy" / ("visible", "infrared")[number % 2] / name / f"{number}.jpg", seed=50 + number)
    for modality in ("visible", "infrared"):
        shutil.copytree(f"people/{modality}/0002", f"copy/{modality}/4")
    other = ["data.name=folder", "--data-root", "copy", *QUICK, f"model.pretrained={model}"]
    caplog.clear()
    run_script(train, *other, "--output", "runs/second")
    assert "copy: the model was trained on 1 of the 2 people to test on, who are left out: 4" in caplog.text
    caplog.clear()
    run_script(evaluate, "--checkpoint", "runs/second/model.safetensors")
    assert "1 queries among 1 pictures" in capsys.readouterr().out
    assert "the model was trained on 1 of the 2 people to test on" in caplog.text


def test_a_folder_that_run_json_could_not_name_is_refused_before_training(folder, capsys):
    write_folder(folder / os.fsdecode(b"caf\xe9"))
    (folder / "people").symlink_to(os.fsdecode(b"caf\xe9"))
    said = refusal(capsys, run_script, train, "data.name=folder", "--data-root", "people", *QUICK, "--output", "run")
    assert r"caf\udce9': contains unprintable characters; rename" in said
    assert not (folder / "run").exists()


def test_models_that_were_tested_on_other_pictures_have_no_mean(folder, capsys):
    for name, names in (("people", people(4)), ("others", people(8)[4:])):
        write_folder(folder / name, names)
        write_picture(folder / name / "visible" / names[-1] / "0.jpg", seed=ord(name[0]))
        run_script(train, "data.name=folder", "--data-root", name, *QUICK, "--output", f"runs/{name}")
    both = "--checkpoint", "runs/people", "runs/others"
    for further in ((), ("--data", "folder")):
        said = refusal(capsys, run_script, evaluate, *both, *further)
        assert said.startswith(
            "error: runs/people and runs/others: are tested on different pictures, so they have no mean;"
        )
    for number, name in enumerate("xxyy"):
        write_picture(folder / "third" / ("visible", "infrared")[number % 2] / name / "0.jpg", seed=90 + number)
    run_script(evaluate, *both, "--data", "folder", "--data-root", "third")
    assert "mean: over the 2 checkpoints" in capsys.readouterr().out

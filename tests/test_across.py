"""report.py on the results of evaluate.py: one table of what was trained on one set and tested on another."""

import json
import sys
from pathlib import Path

import pytest

from ms_vireid import report
from ms_vireid.command.errors import InputError
from ms_vireid.files.writing import write_json

SEARCH = {"direction": "infrared-to-visible", "flip": False, "renormalise": False, "rerank": False, "corrupted": False}
METRICS = ("rank1", "rank5", "rank10", "rank20", "map", "minp")


def run(name, trained_on, tested_on, rank1, trials=1, root="/data/people", trained_root=None, **search):
    """What evaluate.py says of a checkpoint in runs/NAME."""
    spread = 1.5 if trials > 1 else 0
    mean, std = (dict.fromkeys(METRICS, value / 100) for value in (rank1, spread))
    each = [dict.fromkeys(METRICS, (rank1 + (-1) ** trial * spread) / 100) for trial in range(trials)]
    searched = {"trained_on": trained_on, "data": tested_on} | SEARCH | search
    about = {"checkpoint": f"runs/{name}/model.safetensors", "sha256": name[:1].encode().hex() * 32}
    about |= {"data_root": root, "trained_root": trained_root}
    counts = {"num_queries": 4, "num_gallery": 4, "checksum": "0" * 16}
    return about | counts | {"mean": mean, "std": std, "trials": each, "evaluated": searched}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def table(**results):
        for name, result in results.items():
            write_json(Path(f"{name}.json"), result)
        monkeypatch.setattr(sys, "argv", ["report.py", *(f"{name}.json" for name in results), "--output", "t.md"])
        report.main()
        return Path("t.md").read_text().splitlines()

    return table


def test_a_row_is_what_was_trained_and_columns_are_what_it_was_tested_on(write, capsys):
    several = [run(name, "sysu_mm01", "folder", rank1) for name, rank1 in (("a", 28.5), ("b", 31.5))]
    lines = write(
        own=run("a", "sysu_mm01", "sysu_mm01", 60, trials=10, mode="all", shots=1),
        other=run("a", "sysu_mm01", "regdb", 20, split=1, threshold=0.25, fmr=0.01, validation_people=206),
        back=run("r", "regdb", "regdb", 80.25, split=1),
        mean={"mean": dict.fromkeys(METRICS, 0.3), "std": dict.fromkeys(METRICS, 0.015), "runs": several},
    )
    sets = "sysu_mm01, infrared-to-visible, mode all, shots 1", "regdb, infrared-to-visible"
    sets += ("folder people, infrared-to-visible",)
    shown = [f"{name} {metric}" for name in sets for metric in ("rank-1", "mAP", "mINP")]
    assert lines[2] == f"| trained on | model | {' | '.join(shown)} |"
    assert lines[4:] == [
        f"| sysu_mm01 | a |{' 60.00 ± 1.50 |' * 3}{' 20.00 |' * 3}{' - |' * 3}",
        f"| regdb | r |{' - |' * 3}{' 80.25 |' * 3}{' - |' * 3}",
        f"| sysu_mm01 | a, b |{' - |' * 6}{' 30.00 ± 1.50 |' * 3}",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Results across data sets, in percent"
    assert printed[3].split() == ["sysu_mm01", "a", *["60.00", "±", "1.50"] * 3, *["20.00"] * 3, *"---"]


def test_the_order_of_models_and_keys_in_files_parts_nothing(write):
    one, other = (run(name, of, "regdb", 30, mode="all", shots=1) for name, of in (("a", "sysu_mm01"), ("b", "llcm")))
    mean = {"mean": dict.fromkeys(METRICS, 0.3), "std": dict.fromkeys(METRICS, 0.0)}
    elsewhere = [
        one | {"evaluated": dict(reversed((one["evaluated"] | {"data": "llcm"}).items()))} for one in (other, one)
    ]
    lines = write(
        x=mean | {"runs": [one, other]},
        y=mean | {"runs": elsewhere},
        z=run("c", "llcm", "llcm", 10, shots=1, mode="all"),
    )
    assert [line.split(" | ")[:2] for line in lines[4:]] == [["| llcm, sysu_mm01", "a, b"], ["| llcm", "c"]]
    assert lines[2].count("mode all, shots 1 rank-1") == 2


def test_folders_are_called_by_as_much_of_their_paths_as_tells_them_apart(write):
    lines = write(
        day=run("a", "folder", "folder", 60, root="/data/day/people", trained_root="/data/yard"),
        night=run("a", "folder", "folder", 20, root="/data/night/people", trained_root="/data/yard"),
        yard=run("b", "folder", "folder", 80, root="/data/yard", trained_root="/data/day/people"),
        old=run("c", "folder", "sysu_mm01", 80, root="/data/people"),
    )
    sets = ("folder day/people", "folder night/people", "folder yard", "sysu_mm01")
    shown = [f"{name}, infrared-to-visible {metric}" for name in sets for metric in ("rank-1", "mAP", "mINP")]
    assert lines[2] == f"| trained on | model | {' | '.join(shown)} |"
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        ["| folder yard", "a"],
        ["| folder day/people", "b"],
        ["| folder", "c"],
    ]


def test_what_is_no_result_or_is_given_twice_is_one_line(write):
    with pytest.raises(
        InputError, match=r"a\.json and b\.json: hold the same model's results on the same set; give one of them"
    ):
        write(a=run("a", "llcm", "regdb", 1), b=run("a", "llcm", "regdb", 1))
    earlier = run("a", "llcm", "regdb", 1)
    del earlier["evaluated"]["trained_on"]
    with pytest.raises(InputError, match=r"a\.json: lacks trained_on; make it again with evaluate\.py --json"):
        write(a=earlier)
    with pytest.raises(InputError, match=r"a\.json: is not what evaluate\.py writes .*; give a file of its --json"):
        write(a={"mean": {}})


@pytest.mark.parametrize(
    ("pictures", "said"), [(("0", "0"), ""), (("0", "1"), "are of"), (("0", ""), "may be"), (("", ""), "may be")]
)
def test_results_of_other_pictures_in_one_column_are_noted(write, caplog, pictures, said):
    one, other = (
        run(name, "folder", "regdb", 1, split=1) | {"pictures": p} for name, p in zip("ab", pictures, strict=True)
    )
    write(a=one, b=other, other_split=run("c", "folder", "regdb", 1, split=2) | {"pictures": "2"})
    noted = [record.getMessage() for record in caplog.records]
    assert [line.startswith(f"note: a.json and b.json: {said}") for line in noted] == [True] * bool(said)


ODD = {  # of one model's result, and whether it is several runs' instead
    "nan": ({"mean": {"map": float("nan")}}, False),
    "inf": ({"mean": {"map": float("inf")}}, False),
    "below 0": ({"mean": {"map": -3.0}}, False),
    "700 percent": ({"mean": {"map": 7.0}}, False),
    "a deviation of nan": ({"std": {"map": float("nan")}}, False),
    "a trial of 700 percent": ({"trials": [{"map": 7.0}]}, False),
    "not its trials'": ({"mean": dict.fromkeys(METRICS, 0.9)}, False),
    "not its trials' deviation": ({"std": dict.fromkeys(METRICS, 0.2)}, False),
    "no trials": ({"trials": []}, False),
    "not its runs'": ({"mean": dict.fromkeys(METRICS, 0.9), "std": dict.fromkeys(METRICS, 0.0)}, True),
    "a threshold of nan": ({"evaluated": {"trained_on": "llcm", "data": "llcm", "threshold": float("nan")}}, False),
}


@pytest.mark.parametrize("name", ODD)
def test_numbers_that_no_evaluation_gives_are_refused_also_without_a_checksum(tmp_path, monkeypatch, name):
    change, is_several = ODD[name]
    one = run("a", "llcm", "regdb", 30, trials=2)
    changed = {"runs": [one, one]} | change if is_several else one | change
    (tmp_path / "a.json").write_text(json.dumps(changed))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "a.json")])
    with pytest.raises(InputError, match=r"a\.json: is not what evaluate\.py writes .*; give a file of its --json"):
        report.main()


def test_escapes_and_line_breaks_in_names_are_printed_harmlessly(write, capsys):
    evil = "x\x1b[2J\n| y \u202e|"
    lines = write(a=run(evil, evil, evil, 30, mode=evil), b=run("b", "folder", "folder", 30, root=f"/{evil}"))
    printed = capsys.readouterr().out.rstrip("\n").split("\n")
    assert all(line.isprintable() for line in (*lines, *printed))
    assert [len(line.replace(r"\|", "").split("|")) for line in lines[2:]] == [10] * 4


def test_runs_and_results_are_not_mixed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report.py", "runs/a", "b.json"])
    with pytest.raises(InputError, match=r"b\.json: give one run folder, or \.json files of evaluate\.py --json alone"):
        report.main()

"""The first run on a device: its report, and what becomes of a step that fails, hangs or is refused."""

import argparse
import os
import sys
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import load_config
from ms_vireid.engine.run_folder import RunFolder
from parity import benchmark
from parity.measure import first_run
from parity.stand_in import build, missing

ROOT = Path(__file__).parents[2]


def run_first(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["first_run.py", *map(str, arguments)])
    first_run.main()


def python(code, name="a step"):
    return first_run.Step("operators", name, [sys.executable, "-c", code], first_run._table_rows)


def put_in_place_of_operators(monkeypatch, code):
    """Versions that take no time to tell, and one step."""
    monkeypatch.setattr(first_run, "_here", lambda *_: [sys.executable, "-c", "print('| device | CPU |')"])
    monkeypatch.setitem(first_run.STEPS, "operators", lambda *_: [python(code)])


def test_the_report_holds_versions_and_every_operators_error(monkeypatch, tmp_path, capsys):
    page = tmp_path / "report.md"
    run_first(monkeypatch, "--device", "CPU", "--quick", "--only", "operators", "--output", page)
    lines = page.read_text().splitlines()
    assert lines[0] == "# First run on CPU"
    assert "2 steps, 0 failed" in lines[4]
    versions = dict(line.strip("| ").split(" | ", 1) for line in lines if line.count("|") == 3)
    assert versions["device"] == "CPU"
    assert versions["mindspore"].startswith("2.10")
    assert versions["PyTorch sees the device"] == "yes"
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith(("| product", "| convolution"))]
    errors = [float(row[3].removeprefix("error ")) for row in rows if row[2] != "speed"]
    assert len(errors) == 2 * 2 * 3  # operators, precisions, and forward with two gradients
    assert max(errors) < 2e-3
    assert all(float(row[3].split()[0]) > 0 for row in rows if row[2] == "speed")
    assert "operators: operators ... passed" in capsys.readouterr().out


def test_a_wrong_product_is_over_its_limit(capsys, monkeypatch):
    import torch

    product = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda a, b: product(a, b) * (1 + 1e-4))
    with pytest.raises(SystemExit) as stopped:
        first_run.check_operators("CPU", True)
    assert stopped.value.code == 1
    over = [line for line in capsys.readouterr().out.splitlines() if "OVER" in line]
    assert {line.split(" | ")[1] for line in over} == {"float32"}
    assert all(line.startswith("| product") for line in over)


def test_a_step_that_fails_is_told_with_its_last_words_and_exit_code_1(monkeypatch, tmp_path):
    put_in_place_of_operators(monkeypatch, "print('last words'); raise SystemExit(3)")
    with pytest.raises(SystemExit) as stopped:
        run_first(monkeypatch, "--device", "CPU", "--only", "operators", "--output", tmp_path / "report.md")
    assert stopped.value.code == 1
    text = (tmp_path / "report.md").read_text()
    assert "2 steps, 1 failed" in text
    assert "a step: exit code 3. The last it printed:\n\n```\nlast words\n```" in text


def test_a_step_that_hangs_is_killed():
    outcome = first_run.perform(python("print('started', flush=True); import time; time.sleep(600)"), 3.0)
    assert (outcome.failed, outcome.verdict, outcome.output) == (True, "killed after 3 s", "started\n")


@pytest.mark.parametrize(
    ("code", "verdict", "figures"),
    [
        ("print('| a |'); raise SystemExit(1)", "exit code 1", True),
        ("print('| a |'); raise SystemExit(2)", "exit code 2", False),
        ("print('| a |'); raise ValueError('an operator that is missing')", "exit code 1", False),
    ],
)
def test_what_is_over_its_limit_has_its_figures_and_what_is_broken_none(code, verdict, figures):
    outcome = first_run.perform(python(code), 60.0)
    assert outcome.verdict == verdict
    assert outcome.failed
    assert bool(outcome.figures) is figures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "/no/such/folder/report.md"), "its folder does not exist"),
        (("--only", "magic"), "invalid choice: 'magic'"),
        (("--device", "Ascend"), "device Ascend: no Ascend NPU"),
    ],
)
def test_bad_arguments_end_in_one_line(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run_first(monkeypatch, *arguments)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_on_a_stand_in_values_are_judged_and_times_mean_nothing(device, tmp_path):
    if reason := missing(device):
        pytest.skip(reason)
    command = ["parity/measure/first_run.py", "--device", device, "--quick", "--only", "operators", "--output"]
    done = build(device).run([sys.executable, *command, str(tmp_path / "report.md")], 240.0, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    text = (tmp_path / "report.md").read_text()
    assert f"# First run on {device} (" in text
    assert "no time on this page means anything" in text
    assert "| operators | operators | passed |" in text
    name = {"GPU": "TF32", "Ascend": "HF32"}[device]
    assert f"| operators | {name} | passed |" in text
    assert f"| {name} | speed |" in text


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_every_recipe_is_a_configuration(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(first_run, "_torch_sees", lambda device: False)
    arguments = argparse.Namespace(device="GPU", quick=quick)
    for maker in ("training", "benchmark"):
        for step in first_run.STEPS[maker](arguments, tmp_path):
            options = step.command[step.command.index("--output") + 2 :]
            config = load_config(Path(step.command[step.command.index("--config") + 1]), options)
            assert config.model.name == step.name[:3].lower()
            assert (config.data.name, config.train.program) == ("synthetic", "auto")
            assert bool(config.train.amp) is ("amp" in step.name)


@pytest.mark.parametrize(("quick", "batch"), [(True, (2, 2, 4)), (False, (8, 4, 64))], ids=["quick", "full"])
def test_both_frameworks_are_measured_in_both_precisions_with_their_kernels(quick, batch, monkeypatch, tmp_path):
    monkeypatch.setattr(first_run, "_torch_sees", lambda device: True)
    monkeypatch.setattr(benchmark, "found_device", lambda device: device)
    monkeypatch.setattr(benchmark, "_elsewhere", lambda function: True)
    options = argparse.Namespace(device="GPU", quick=quick, output=tmp_path / "report.md")
    asked = []
    for step in first_run.STEPS["benchmark"](options, tmp_path):
        monkeypatch.setattr(sys, "argv", step.command[2:])
        given = benchmark._parse()
        assert (given.identities, given.instances, given.images, given.steps) == (*batch, 20)
        asked.append((given.only, given.overrides[-1:], given.kernels.name))
    small = list(first_run.TINY["PMT"][-1:]) if quick else []
    assert asked == [
        (["train_step", "inference"], small, "report.kernels-float32.json"),
        (["train_step"], ["train.amp=float16"], "report.kernels-float16.json"),
    ]


def test_a_training_that_is_repeated_is_compared_by_its_weights(tmp_path):
    for name, weights in {"first": b"1", "same": b"1", "other": b"2"}.items():
        folder = tmp_path / name
        folder.mkdir()
        RunFolder(folder).model.write_bytes(weights)
        (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5, "images_per_second": 20.0}\n')
        (folder / "result.json").write_text('{"trained": {"rank1": 0.5}, "chance": {"rank1": 0.25}}')
    rows = [
        first_run._training_row(name, tmp_path / name, tmp_path / "first", "peak MiB: 7\n")[0]
        for name in ("same", "other")
    ]
    assert rows == [
        "| same | 3 | 20 | 1.5000 | 50.00 | 25.00 | 7 | yes |",
        "| other | 3 | 20 | 1.5000 | 50.00 | 25.00 | 7 | no |",
    ]
    assert first_run._training_row("none", tmp_path / "none", "", "") == []

import re
import sys

import pytest
from mindspore import nn

from ms_vireid.backends.numba.replacements import TABLE
from ms_vireid.command.errors import InputError
from ms_vireid.replaceable import Replacement
from parity import cases, report

BACKENDS = ("numba", "eager", "graph")


def run_report(monkeypatch, *arguments):
    """In this process, whose modules a test may have changed, unless --processes says otherwise."""
    monkeypatch.setattr(sys, "argv", ["report.py", "--device", "CPU", "--processes", "1", *map(str, arguments)])
    report.main()


def row_of(case, lines):
    return next(line for line in lines if line.startswith(case))


def test_each_case_is_a_line_with_a_column_for_each_backend_and_the_last_line_sums_up(monkeypatch, capsys):
    run_report(monkeypatch, "--rung", 2, "--match", "Norm", "--small")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"MindSpore 2\.10.* beside PyTorch \d\S+ \(built for (CPUs|CUDA \d+\.\d)\)", lines[0])
    assert re.fullmatch(r"case +numba +eager +graph  verdict +time  where", lines[2])
    errors = r"( +\d\.\de-\d\d of 1e-0[45]){3}"
    assert re.match(rf"2 LayerNorm{errors}  ok +\d+\.\d s  (numba|eager|graph): ", row_of("2 LayerNorm", lines))
    assert re.fullmatch(r"\d cases, \d+ comparisons, 0 over tolerance, in \d+ s", lines[-1])


def test_what_runs_once_has_one_error(monkeypatch, capsys):
    run_report(monkeypatch, "--rung", 2, 3, "--match", "osition embedding")
    lines = capsys.readouterr().out.splitlines()
    assert len(re.findall(r"\de-\d\d of 1e-05, once", row_of("2 position", lines))) == 1
    assert re.search(r"2 layers +1e-05 +\d\.\de-\d\d, once  position embedding resized: ", "\n".join(lines))


def test_a_loss_is_the_same_by_numba_and_eager_and_computed_once_for_both(monkeypatch, capsys):
    run_report(monkeypatch, "--rung", 3, "--match", "IdentityConsistency", "--backend", "eager", "numba")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"case +numba +eager  verdict +time  where", lines[2])  # chosen ones, in their order
    first, second = re.findall(r"\d\.\de-\d\d of 1e-0\d", row_of("3 IdentityConsistencyLoss", lines))
    assert first == second
    assert lines[-1].startswith("1 cases, 4 comparisons, 0 over")


def test_a_difference_stands_in_its_backends_column_and_ends_in_exit_code_1(monkeypatch, capsys):
    original = TABLE[nn.GELU.construct].by
    monkeypatch.setitem(TABLE, nn.GELU.construct, Replacement(lambda cell, x: 1.001 * original(cell, x)))
    with pytest.raises(SystemExit) as stopped:
        run_report(monkeypatch, "--rung", 2, "--match", "GELU", "--small")
    assert stopped.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    ok = r" +\d\.\de-\d\d of 1e-0\d"
    assert re.match(rf"2 GELU{ok}!{ok}{ok}  OVER  .* numba: output 0, at ", row_of("2 GELU", lines))
    assert "1 over tolerance: 2 GELU (numba)" in lines[-1]


def test_two_processes_print_what_one_does_in_the_same_order(monkeypatch, capsys):
    chosen = "--rung", 2, "--match", "Norm", "--small", "--backend", "eager"
    run_report(monkeypatch, *chosen)
    alone = capsys.readouterr().out
    run_report(monkeypatch, *chosen, "--processes", 2)
    assert _without_seconds(capsys.readouterr().out) == _without_seconds(alone)


def _without_seconds(printed):
    return re.sub(r" +\d+(\.\d)? s\b", "", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--match", "no such case"), "no case matches"),
        (("--rung", "8"), "invalid choice: 8"),
        (("--processes", "0"), "--processes 0: must be at least 1"),
        (("--backend", "interpreter"), "invalid choice: 'interpreter'"),
        (("--stand-in",), "--device CPU: stand-ins are for GPU and Ascend"),
        (("--device", "GPU", "--stand-in", "--backend", "numba"), "numba: the stand-in GPU has eager and graph"),
        (("--device", "Ascend", "--stand-in", "--backend", "cuda"), "cuda: the stand-in Ascend has eager and graph"),
        (("--device", "GPU", "--stand-in", "--rung", "1"), "no case matches --rung on a stand-in"),
    ],
)
def test_bad_arguments_end_in_one_line(monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        run_report(monkeypatch, *arguments)


def test_a_backend_that_the_device_does_not_have_is_refused():
    message = "--backend numba: GPU has eager and graph and cuda"
    with pytest.raises(InputError, match=message):
        cases.backends_of("GPU (NVIDIA H200)", ["graph", "numba"])


@pytest.mark.parametrize(("option", "value"), [("--rung", "2"), ("--match", "Norm"), ("--renew", None)])
def test_what_backends_compute_otherwise_is_printed_without_cases(monkeypatch, option, value):
    monkeypatch.setattr(sys, "argv", ["report.py", "--backends", option, *filter(None, [value])])
    with pytest.raises(InputError, match=f"{option}: --backends computes no case; leave it out"):
        report.main()

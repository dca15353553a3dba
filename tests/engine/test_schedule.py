import math

import pytest

from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.engine.optimizer import ParameterGroup
from ms_vireid.engine.schedule import iteration_steps, learning_rates, warmup_cosine, warmup_steps


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (3e-4, {1: 1.02e-4, 2: 2.01e-4, 3: 2.88696e-4, 12: 1.515e-4, 23: 4.27044e-6, 24: 3e-6}),
        (1.5e-4, {1: 5.2e-5, 2: 1.01e-4, 3: 1.44405e-4, 12: 7.65e-5, 23: 3.62880e-6, 24: 3e-6}),
    ],
    ids=["full-rate", "half-rate"],
)
def test_pmt_epochs_have_the_published_learning_rates(base, expected):
    for epoch, rate in expected.items():
        # The figures are given with six digits.
        assert warmup_cosine(epoch, base, 24, 3, 3e-6, 3e-6) == pytest.approx(rate, rel=3e-6)


@pytest.mark.parametrize("base", [3e-4, 1.5e-4])
def test_all_24_epochs_follow_the_warm_up_and_the_cosine_of_the_whole_run(base):
    expected = [3e-6 + (base - 3e-6) * epoch / 3 for epoch in (1, 2)]
    expected += [(base + 3e-6) / 2 + (base - 3e-6) / 2 * math.cos(math.radians(7.5 * epoch)) for epoch in range(3, 25)]
    rates = [warmup_cosine(epoch, base, 24, 3, 3e-6, 3e-6) for epoch in range(1, 25)]
    assert rates == pytest.approx(expected, rel=1e-12)  # the same formula in degrees: rounding only
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize("epoch", [0, 25])
def test_epochs_outside_the_run_are_refused(epoch):
    with pytest.raises(ValueError, match=f"got {epoch}"):
        warmup_cosine(epoch, 3e-4, 24, 3, 3e-6, 3e-6)


def test_without_warm_up_the_cosine_covers_every_epoch():
    assert warmup_cosine(1, 1.0, 2, 0, 0.0, 0.0) == pytest.approx(0.5)


# Epochs 1 to 10, 11 to 20, 21 to 50, 51 to 60.
AGW_RATES = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1] + [0.1] * 10 + [0.01] * 30 + [0.001] * 10


def test_all_60_epochs_of_agw_have_the_releases_learning_rates():
    rates = [warmup_steps(epoch, 0.1, 60, 10, (20, 50), 0.1) for epoch in range(1, 61)]
    assert rates == pytest.approx(AGW_RATES, rel=1e-12)


@pytest.mark.parametrize("epoch", [0, 61])
def test_epochs_outside_the_run_are_refused_by_the_steps_too(epoch):
    with pytest.raises(ValueError, match=f"got {epoch}"):
        warmup_steps(epoch, 0.1, 60, 10, (20, 50), 0.1)


def test_without_warm_up_the_steps_begin_at_the_base_rate():
    assert warmup_steps(1, 0.1, 60, 0, (20, 50), 0.1) == 0.1


MUN = {"epochs": 90, "warmup_epochs": 15, "start_lr": 1e-8, "milestones": (30, 60), "factor": 0.1}


def test_mun_warms_up_with_every_iteration_and_falls_twice():
    # 4 iterations an epoch: 60 of warm-up, whose k-th has 1e-8 + (2e-3 - 1e-8) k / 60; then to epochs 30, 60 and 90.
    expected = [1e-8 + (2e-3 - 1e-8) * k / 60 for k in range(60)]
    expected += [2e-3] * 15 * 4 + [2e-4] * 30 * 4 + [2e-5] * 30 * 4
    rates = [iteration_steps(k / 4, 2e-3, **MUN) for k in range(90 * 4)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[0] == 1e-8


@pytest.mark.parametrize("time", [-0.25, 90.0])
def test_times_outside_the_run_are_refused(time):
    with pytest.raises(ValueError, match=f"got {time}"):
        iteration_steps(time, 2e-3, **MUN)


GROUPS = [ParameterGroup("full", 1.0, ()), ParameterGroup("backbone", 0.5, ())]


@pytest.mark.parametrize(
    ("epoch", "done", "expected"),
    [
        (1, 0.0, [1e-8, 1e-8]),
        (3, 0.5, [1e-8 + (2e-3 - 1e-8) / 6, 1e-8 + (1e-3 - 1e-8) / 6]),
        (16, 0.0, [2e-3, 1e-3]),
        (30, 0.99, [2e-3, 1e-3]),
        (31, 0.0, [2e-4, 1e-4]),
        (90, 0.99, [2e-5, 1e-5]),
    ],
)
def test_mun_changes_within_an_epoch(epoch, done, expected):
    config = load_config(CONFIG_ROOT / "mun/sysu.yaml")
    assert learning_rates(config, GROUPS, epoch, done) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("path", ["pmt/sysu.yaml", "agw/sysu.yaml"])
def test_the_schedules_by_epoch_do_not_change_within_one(path):
    config = load_config(CONFIG_ROOT / path)
    assert learning_rates(config, GROUPS, 2, 0.7) == learning_rates(config, GROUPS, 2)


@pytest.mark.parametrize("epoch", [0, 91])
def test_epochs_outside_the_run_have_no_rates(epoch):
    with pytest.raises(ValueError, match=f"got {epoch - 1}"):
        learning_rates(load_config(CONFIG_ROOT / "mun/sysu.yaml"), GROUPS, epoch)


@pytest.mark.parametrize(
    ("path", "epoch", "expected"),
    [
        ("pmt/sysu.yaml", 12, [1.515e-4, 7.65e-5]),
        ("agw/sysu.yaml", 5, [0.05, 0.025]),
        ("agw/sysu.yaml", 51, [0.001, 0.0005]),
    ],
)
def test_each_group_follows_the_configured_schedule_from_its_own_rate(path, epoch, expected):
    config = load_config(CONFIG_ROOT / path)
    assert learning_rates(config, GROUPS, epoch) == pytest.approx(expected, rel=1e-12)

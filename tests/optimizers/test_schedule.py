import pytest

from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.optimizers.groups import ParameterGroup
from ms_vireid.optimizers.schedule import iteration_steps, learning_rates, warmup_cosine, warmup_steps


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


def test_without_warm_up_the_cosine_covers_every_epoch_and_the_steps_begin_at_the_base_rate():
    assert warmup_cosine(1, 1.0, 2, 0, 0.0, 0.0) == pytest.approx(0.5)
    assert warmup_steps(1, 0.1, 60, 0, (20, 50), 0.1) == 0.1


# Epochs 1 to 10, 11 to 20, 21 to 50, 51 to 60.
AGW_RATES = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1] + [0.1] * 10 + [0.01] * 30 + [0.001] * 10


def test_all_60_epochs_of_agw_have_the_releases_learning_rates():
    rates = [warmup_steps(epoch, 0.1, 60, 10, (20, 50), 0.1) for epoch in range(1, 61)]
    assert rates == pytest.approx(AGW_RATES, rel=1e-12)


@pytest.mark.parametrize("epoch", [0, 91])
@pytest.mark.parametrize("path", ["mun/sysu.yaml", "agw/sysu.yaml"])
def test_epochs_outside_the_run_are_refused(path, epoch):
    with pytest.raises(ValueError, match=f"got {epoch}"):
        learning_rates(load_config(CONFIG_ROOT / path), GROUPS, epoch)


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


def test_a_milestone_where_the_warm_up_ends_counts_at_once():
    assert [iteration_steps(time, 1.0, 4, 2, 0.0, (2,), 0.1) for time in (1.5, 2, 2.5)] == [0.75, 0.1, 0.1]


@pytest.mark.parametrize("path", ["pmt/sysu.yaml", "agw/sysu.yaml"])
def test_the_schedules_by_epoch_do_not_change_within_one(path):
    config = load_config(CONFIG_ROOT / path)
    assert learning_rates(config, GROUPS, 2, 0.7) == learning_rates(config, GROUPS, 2)


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

"""docs/fidelity.md: its links and names are there, its verdicts are of three words, and its numbers are those of the
configurations."""

import re
from pathlib import Path

import pytest

from ms_vireid.config import CONFIG_ROOT, load_config

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "fidelity.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 5]
ROWS = [row for row in ROWS if row[0] not in ("what", "---")]
LINK = re.compile(r"\[[^]]+\]\((\.\./[^)]+)\)((?:,? `[^`]+`)*)")


def problems_of(here: str) -> list[str]:
    """Links to nothing, and names that the linked file does not hold."""
    found = []
    for target, names in LINK.findall(here):
        path = (DOCS / target).resolve()
        if not path.exists():
            found.append(f"{target} is not there")
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [f"{name} is not in {target}" for name in re.findall(r"`([^`]+)`", names) if name not in text]
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_names_what_is_there_and_has_a_verdict(row):
    _, _, here, verdict = row
    assert LINK.search(here), "no link to what is here"
    assert problems_of(here) == []
    assert re.match(r"(exact|ours|differs)\b", verdict), verdict


@pytest.mark.parametrize(
    ("here", "problem"),
    [
        ("[a](../ms_vireid/nowhere.py) `A`", "../ms_vireid/nowhere.py is not there"),
        ("[a](../ms_vireid/config/schema.py) `Config`, `Nothing`", "Nothing is not in ../ms_vireid/config/schema.py"),
    ],
)
def test_a_planted_error_is_named(here, problem):
    assert problems_of(here) == [problem]


def test_what_the_page_says_of_recipes_is_in_the_configurations():
    pmt, regdb, agw, mun, llcm = (
        load_config(CONFIG_ROOT / name)
        for name in ("pmt/sysu.yaml", "pmt/regdb.yaml", "agw/sysu.yaml", "mun/sysu.yaml", "pmt/llcm.yaml")
    )
    assert [stage.epochs for stage in pmt.stages] == [6, 18]
    assert [stage.epochs for stage in regdb.stages] == [6, 30]
    assert (pmt.data.resize_through, regdb.data.resize_through) == (None, (288, 144))
    assert pmt.stages[1].losses.msel.feature == "pooled"
    assert (agw.epochs, agw.train.replacement, agw.model.non_local_width) == (81, True, 1)
    assert (agw.stages[0].losses.wrt.weights, agw.stages[0].losses.id.weight) == ("released", 0.5)
    assert (mun.optimizer.backbone_factor, mun.optimizer.lr, mun.train.replacement) == (1.0, 0.002, False)
    assert (mun.augmentation.visible_channel_exchange, mun.model.kernel_order) == (0.5, (5, 7))
    assert (mun.stages[0].losses.triplet.margin, mun.stages[0].losses.ia.margin) == (0.3, 0.55)
    for config in (pmt, regdb, agw, mun, llcm):
        assert config.train.select == "last"
        assert not config.train.amp
        assert not config.evaluation.flip
    for name in ("agw-msel-pl", "agw-msel-pl-dcl"):
        stages = load_config(CONFIG_ROOT / f"ablations/pmt-table-4/{name}.yaml").stages
        assert [stage.epochs for stage in stages] == [6, 75]

"""docs/fidelity.md: its links, names and keys are there, its verdicts are of four words, every "our choice" of a recipe
has a line, and its numbers are those of the configurations."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.config.base import Section

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "fidelity.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^]]+\]\((\.\./[^)]+)\)((?:,? `[^`]+`)*)")
NAME = re.compile(r"`([^`]+)`")
VERDICT = re.compile(r"(printed|released|ours|differs)\b")


def rows_of(page: str) -> Iterator[list[str]]:
    """What, paper and release, here, verdict."""
    for line in page.splitlines():
        if line.startswith("| ") and line.count("|") == 5 and not line.startswith(("| what |", "| --- |")):
            yield line.strip("| ").split(" | ")


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def keys_of(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Every key there is, with the indices of lists left out; those of losses begin with `losses`."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}".removeprefix("stages.losses.")
        yield key if not prefix.startswith("stages.losses.") else f"losses.{key}"
        for inner in sections_in(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}.")


KEYS = frozenset(keys_of(Config))
KEY = re.compile(rf"(?:losses|{'|'.join(sorted(Config.model_fields))})(?:\.[a-z0-9_]+)+")


def names_of(cells: str) -> tuple[list[str], list[str]]:
    """The keys that a row names, and what else it says is wrong: links to nothing, names that the linked file does not
    hold, keys that there are not."""
    keys = [name for name in NAME.findall(cells) if KEY.fullmatch(name)]
    wrong = [f"{key} is not a key" for key in keys if key not in KEYS]
    for target, names in LINK.findall(cells):
        path = (DOCS / target).resolve()
        if not path.exists():
            wrong.append(f"{target} is not there")
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
            held = (name for name in NAME.findall(names) if name not in keys and name not in text)
            wrong += [f"{name} is not in {target}" for name in held]
    return keys, wrong


def choices_of(recipe: str) -> Iterator[str]:
    """Keys of a YAML text whose comment, beside them or right above them, says "our choice"."""
    above: list[tuple[int, str]] = []  # the sections that a line is in, with their indents
    announced = False
    for line in recipe.splitlines():
        content, _, comment = line.partition("#")
        says = "our choice" in comment.replace('"our choice"', "").lower()
        if key := re.match(r"( *(?:- )?)(\w+):", content):
            indent = len(key[1])
            above = [section for section in above if section[0] < indent] + [(indent, key[2])]
            if says or announced:
                yield ".".join(name for _, name in above).replace("stages.losses.", "losses.")
            announced = False
        elif comment:
            announced = announced or says


def problems_of(page: str) -> list[str]:
    problems, ours = [], []
    for what, _, here, verdict in rows_of(page):
        keys, wrong = names_of(f"{here} | {verdict}")
        problems += [f"{what}: {problem}" for problem in wrong]
        if not keys and not any(names for _, names in LINK.findall(here)):
            problems.append(f"{what}: names neither a key nor code")
        if not VERDICT.match(verdict):
            problems.append(f"{what}: the verdict is {verdict.split()[0]}")
        ours += keys if verdict.startswith("ours") else []
    for path in sorted(CONFIG_ROOT.rglob("*.yaml")):
        for key in choices_of(path.read_text(encoding="utf-8")):
            if key not in ours:  # a section cannot be one: beside each of its keys stands whose choice it is
                problems.append(f"{path.relative_to(CONFIG_ROOT)}: {key} is our choice, and has no such line")
    return problems


def test_every_line_names_what_there_is_and_every_choice_has_a_line():
    assert len(list(rows_of(PAGE))) > 80
    assert problems_of(PAGE) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("`model.ratios`", "`model.ratio`", "cross-modality learner, ratios 2, 4, 6, 12: model.ratio is not a key"),
        ("`squared_mmd`", "`cubed_mmd`", "L_ma: its kernel: cubed_mmd is not in ../ms_vireid/losses/mmd.py"),
        ("losses/mmd.py)", "losses/nmd.py)", "L_ma: its kernel: ../ms_vireid/losses/nmd.py is not there"),
        ("| ours: 8 x 4,", "| exact: 8 x 4,", "P x K, the length of an epoch: the verdict is exact:"),
        ("`model.beta_shape`, `model.beta_unit` | ours", "`model.beta` | ours",
         "mun/sysu.yaml: model.beta_shape is our choice, and has no such line"),
        ("| `model.tested` |", "| nothing |", "what is tested: names neither a key nor code"),
    ],
)  # fmt: skip
def test_a_planted_lie_is_named(old, new, problem):
    assert PAGE.count(old) == 1
    assert problem in problems_of(PAGE.replace(old, new))


def test_a_choice_is_told_by_the_comment_beside_or_above_its_key():
    recipe = """
# "our choice" stands where the paper leaves a value open
model:
  width: 64 # our choice
  # Our choice: as AGW
  # and not otherwise
  layers: [3, 4, 6, 3]
  depth: 12 # as printed
stages:
  - epochs: 90 # our choice
    losses:
      triplet: {margin: 0.3} # our choice
"""
    assert list(choices_of(recipe)) == ["model.width", "model.layers", "stages.epochs", "losses.triplet"]


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
    assert (agw.stages[0].losses.wrt.weights, agw.stages[0].losses.id.over) == ("released", "rows")
    assert (mun.optimizer.backbone_factor, mun.optimizer.lr, mun.train.replacement) == (1.0, 0.002, False)
    assert (mun.augmentation.visible_channel_exchange, mun.model.kernel_order) == (0.5, (5, 7))
    assert (mun.model.classified, mun.model.tested, mun.model.batch_norm) == ("bnneck", "bnneck", "joint")
    assert (mun.model.beta_shape, mun.model.beta_unit, mun.model.pooling_learned) == ("linear", "iteration", False)
    assert (mun.augmentation.visible_twice, mun.evaluation.renormalise) == (False, False)
    assert [mun.stages[0].losses.terms()[name].normalised for name in ("triplet", "ia")] == [False, False]
    assert (mun.stages[0].losses.triplet.margin, mun.stages[0].losses.ia.margin) == (0.3, 0.55)
    for config in (pmt, regdb, agw, mun, llcm):
        assert config.train.select == "last"
        assert not config.train.amp
        assert not config.evaluation.flip
    for name in ("agw-msel-pl", "agw-msel-pl-dcl"):
        stages = load_config(CONFIG_ROOT / f"ablations/pmt-table-4/{name}.yaml").stages
        assert [stage.epochs for stage in stages] == [6, 75]

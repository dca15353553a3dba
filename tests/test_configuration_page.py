"""docs/configuration.md has every key of the schema as it is there, and a recipe accepts what any page sets."""

import re
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, FREE_KEYS, Config, LossConfig, load_config
from tests.test_fidelity import KEYS
from tests.tools.configuration_tables import PAGES, TABLE, tables, up_to_date

ROOT = Path(__file__).parents[1]
RECIPES = [CONFIG_ROOT / name for name in ("pmt/sysu.yaml", "mun/sysu.yaml", "agw/sysu.yaml", "demo.yaml")]
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SETTING = re.compile(
    rf"\b(seed|(?:{'|'.join(Config.model_fields)})(?:\.\w+)+)=(\[[^]]*\]|\{{[^}}]*\}}|[^\s`'\"\],)}}]+)"
)
ADDED = "stages.0.losses.center."  # the loss that docs/extending.md adds; tests/test_python_pages.py trains with it


@pytest.mark.parametrize("language", PAGES)
def test_the_page_has_what_the_schema_says(language):
    text = PAGES[language].read_text(encoding="utf-8")
    assert [name for name, _, _ in TABLE.findall(text)] != []
    assert {name for name, _, _ in TABLE.findall(text)} == tables().keys()
    assert up_to_date(text, language) == text, "run python -m tests.tools.configuration_tables"
    assert [key for key in FREE_KEYS if f"`{key.rstrip('.')}`" not in text] == []


def test_every_key_has_a_row_with_its_meaning():
    made = tables()
    rows = [row for table in made.values() for row in table]
    assert [row.key for row in rows if not row.meaning] == []
    named = {row.key.strip("`").replace("stages.N.", "stages.") for row in rows}
    for key in [row.key.strip("`") for row in made["loss keys"]]:
        terms, _, name = key.rpartition(".")
        every = LossConfig.model_fields if terms == "TERM" else terms.strip("{}").split(",")
        named |= {f"losses.{term}.{name}" for term in every}
    named |= {f"losses.{row.key.strip('`')}" for row in made["losses"]}
    sections = {"stages.losses", *(key for key in KEYS if any(other.startswith(f"{key}.") for other in KEYS))}
    assert {key for key in KEYS - sections - named if not key.endswith(".name")} == set()


def test_a_planted_difference_is_mended():
    text = PAGES["en"].read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| `train.log_steps`"))
    for wrong in (text.replace(row + "\n", ""), text.replace(row, row.replace("`10`", "`20`"))):
        assert wrong != text
        assert up_to_date(wrong, "en") == text


def settings_of(text):
    """The settings that stand in one span or line of code together, but for those of a placeholder."""
    for code in CODE.findall(text):
        for line in code.splitlines():
            found = SETTING.findall(line.partition(" # ")[0])
            given = [(key, value) for key, value in found if ".key" not in key and not key.startswith(ADDED)]
            if given:
                yield [f"{key}={'FILE' if value == '...' else value}" for key, value in given]


def refusal(settings):
    """Why none of the recipes takes these settings together; None if one does."""
    problems = []
    for recipe in RECIPES:
        try:
            load_config(recipe, settings)
        except InputError as problem:
            problems.append(str(problem))
        else:
            return None
    return problems[0]


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh-CN.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
)
def test_a_recipe_takes_what_a_page_sets(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [problem for settings in settings_of(text) if (problem := refusal(settings))] == []


def test_what_no_recipe_takes_is_named():
    page = "Set `train.amp=true`, or\n```\npython ms_vireid/train.py data.root=a optimizer.rate=1  # train.amp=1\n```\n"
    assert list(settings_of(page)) == [["train.amp=true"], ["data.root=a", "optimizer.rate=1"]]
    first, second = (refusal(settings) for settings in settings_of(page))
    assert "train.amp: input should be False, 'float16' or 'bfloat16', got True" in first
    assert "unknown key 'optimizer.rate'" in second

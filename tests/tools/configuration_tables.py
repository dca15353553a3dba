"""The tables of docs/configuration.md in both languages, from the schema. `python -m tests.tools.configuration_tables`
writes them; tests/test_configuration_page.py compares.

A table follows its name, `<!-- data -->`; a new model's is added behind the other models'. The meaning of a key is the
comment beside it or above it in the schema; the Chinese page keeps its own.
"""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ms_vireid.config import (
    AdamWConfig,
    AugmentationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    SGDConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
    WarmupCosineConfig,
    WarmupStepsConfig,
)
from ms_vireid.config.base import Section
from ms_vireid.config.losses import Term
from ms_vireid.config.models import MODELS
from ms_vireid.config.schema import IterationStepsConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"en": DOCS / "configuration.md", "zh": DOCS / "zh-CN/configuration.md"}
TABLE = re.compile(r"<!-- ([\w ]+) -->\n((?:\|.*\n){2})((?:\|.*\n)*)")  # its name, its head, its rows
SECTIONS_OF_MODELS = [
    kind
    for model in MODELS.values()
    for kind in reversed(type(model).__mro__[: type(model).__mro__.index(ModelConfig)])
    if kind.model_fields.keys() != kind.__base__.model_fields.keys()  # it has keys of its own
]
SECTIONS = {  # of each table: the section, how its keys begin, and a section whose keys stand in a table before it
    "all": (Config, "", None),
    "data": (DataConfig, "data.", None),
    "data synthetic": (SyntheticConfig, "data.synthetic.", None),
    "augmentation": (AugmentationConfig, "augmentation.", None),
    "model": (ModelConfig, "model.", None),
    **{f"model {k.__name__.removesuffix('Config').lower()}": (k, "model.", k.__base__) for k in SECTIONS_OF_MODELS},
    "stages": (StageConfig, "stages.N.", None),
    "optimizer adamw": (AdamWConfig, "optimizer.", None),
    "optimizer sgd": (SGDConfig, "optimizer.", None),
    "schedule warmup_cosine": (WarmupCosineConfig, "schedule.", None),
    "schedule warmup_steps": (WarmupStepsConfig, "schedule.", None),
    "schedule iteration_steps": (IterationStepsConfig, "schedule.", None),
    "train": (TrainConfig, "train.", None),
    "evaluation": (EvaluationConfig, "evaluation.", None),
}


class Row(NamedTuple):
    key: str
    values: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"| {' | '.join(filled or ' ' for filled in self)} |".replace("|   |", "| |")


def comments(section: type[Section]) -> dict[str, str]:
    """What a class and its bases say of each key, beside it or on the lines above it."""
    said, above = {}, []
    kinds = [kind for kind in section.__mro__[: section.__mro__.index(Section)] if inspect.get_annotations(kind)]
    for kind in reversed(kinds):  # those that `Term.of` makes have no source and no keys
        for line in inspect.getsource(kind).splitlines():
            if line.startswith("    # "):
                above.append(line[6:])
            elif key := re.match(r"    (\w+): ", line):
                said[key[1]] = " ".join([*above, *line.split("  # ")[1:]])
                above = []
            else:
                above = []
    return said


def yaml(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml, value))}]"
    if isinstance(value, float):
        return str(value) if abs(value) >= 1e-3 or not value else f"{value:g}".replace("e-0", "e-")
    return value if isinstance(value, str) else json.dumps(value)


def alternatives(schema: dict) -> list[str]:
    """What the JSON schema of a key allows: values, ranges of whole numbers `1..8` or of others `0.0..1.0`, words."""
    if "anyOf" in schema:
        return [text for one in schema["anyOf"] for text in alternatives(one)]
    kind = schema.get("type")
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return [yaml(value) for value in values]
    if kind in ("integer", "number"):
        number = int if kind == "integer" else float
        low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
        if high is None:
            high = schema["exclusiveMaximum"] - (kind == "integer")
        if high == 2**53:  # any that float64 counts by ones
            return ["NUMBER"]
        below = "<" if kind == "number" and "maximum" not in schema else ""
        return [f"{yaml(number(low))}{'' if 'minimum' in schema else '<'}..{below}{yaml(number(high))}"]
    if kind == "array":
        parts = [text for one in schema.get("prefixItems", ()) for text in alternatives(one)]
        return [f"[{', '.join(parts or [*alternatives(schema['items']), '...'])}]"]
    if kind == "object":
        return [f"{{NAME: {', '.join(alternatives(schema['additionalProperties']))}}}"]
    words = {"boolean": ["true", "false"], "null": ["null"], "string": ["PATH" if "format" in schema else "TEXT"]}
    return words[kind]


def rows_of(section: type[Section], beginning: str, without: type[Section] | None = None) -> Iterator[Row]:
    """The rows of a section's keys, but for sections within it, and a `name` that decides which section it is."""
    meanings, schema = comments(section), section.model_json_schema()
    for key, allowed in schema["properties"].items():
        known = without is not None and key in without.model_fields
        if known or "$ref" in json.dumps(allowed) or (key == "name" and "enum" not in allowed):
            continue
        values = ", ".join(f"`{text}`" for text in alternatives(allowed))
        default = "" if key in schema.get("required", ()) else f"`{yaml(section.model_fields[key].default)}`"
        yield Row(f"`{beginning}{key}`", values, default, meanings[key])


def terms() -> dict[str, type[Term]]:
    return {name: field.annotation.__args__[0] for name, field in LossConfig.model_fields.items()}


def loss_rows() -> Iterator[Row]:
    """Each term with its loss."""
    meanings = comments(LossConfig)
    for name, term in terms().items():
        yield Row(f"`{name}`", f"`{term.loss}`", "`null`", meanings[name])


def key_rows() -> Iterator[Row]:
    """The keys of the terms; a row holds for all terms that have the same key."""
    names = defaultdict(list)
    for name, term in terms().items():
        for row in rows_of(term, ""):
            names[row].append(name)
    for row, of in names.items():
        key, all_terms = row.key.strip("`"), len(of) == len(terms())
        term = "TERM" if all_terms else of[0] if len(of) == 1 else f"{{{','.join(of)}}}"
        yield row._replace(key=f"`{term}.{key}`")


def tables() -> dict[str, list[Row]]:
    made = {name: list(rows_of(*arguments)) for name, arguments in SECTIONS.items()}
    return made | {"losses": list(loss_rows()), "loss keys": list(key_rows())}


def up_to_date(text: str, language: str) -> str:
    """A page with the tables that belong there. In Chinese a new key gets the English meaning."""
    made = tables()
    for name in made:
        if f"<!-- {name} -->" not in text:
            last = [table for table in TABLE.finditer(text) if table[1].startswith("model")][-1]
            added = f"\n`{name.removeprefix('model ')}`:\n\n<!-- {name} -->\n{last[2]}"
            text = text[: last.end()] + added + text[last.end() :]

    def table(found: re.Match) -> str:
        name, head, old = found.groups()
        kept = {}  # meanings in Chinese, also of a loss's key without the terms that have it: these may be more now
        if language == "zh":
            for key, rest, meaning in re.findall(r"^\| (`[^`]+`) (.*) \| (.*?) \|$", old, re.MULTILINE):
                kept |= {key: meaning, f"{key.rpartition('.')[2]} {rest}": meaning}
        rows = []
        for row in made[name]:
            alike = f"{row.key.rpartition('.')[2]} | {row.values} | {row.default}"
            rows.append(row._replace(meaning=kept.get(row.key, kept.get(alike, row.meaning))))
        return f"<!-- {name} -->\n{head}" + "".join(f"{row}\n" for row in rows)

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for language, page in PAGES.items():
        page.write_text(up_to_date(page.read_text(encoding="utf-8"), language), encoding="utf-8")

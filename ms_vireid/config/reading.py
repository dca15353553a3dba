"""Reading and writing configurations: YAML files with `base:` inheritance, and `key.sub=value` overrides."""

import argparse
import copy
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import ValidationError

from ms_vireid.command.arguments import plain, require, require_choice
from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.names import CONFIG_ROOT
from ms_vireid.config.base import Section
from ms_vireid.config.models import MODELS, ModelConfig, Setting, list_models
from ms_vireid.config.schema import Config
from ms_vireid.files.checks import read_text
from ms_vireid.files.writing import write_text

MAX_BYTES, MAX_BASES = 100_000, 20  # of YAML files in a chain of `base:`, and how many these are
TEMPLATE = "data.layout"  # the key
CHOSEN_BY_NAME = ("model", "optimizer", "schedule")  # sections whose `name` decides their keys
Schema = TypeVar("Schema", bound=Section)
# The type of a problem -> better words than pydantic's.
_MESSAGES = {"bool_type": "must be true or false", "is_instance_of": "must be text", "string_type": "must be text"}
_PLAIN = {  # what a value without quotes is
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?(0|[1-9][0-9]{0,30})",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
}


class _Loader(yaml.SafeLoader):
    """Takes values as YAML 1.2 does: `1e-3` is a number; `010`, `1:30`, `1_0`, `on` and dates are strings. Refuses
    repeated keys, tags, and aliases, with which a short file becomes a huge tree."""

    yaml_implicit_resolvers: ClassVar[dict] = {  # None: whatever a value begins with
        None: [(f"tag:yaml.org,2002:{kind}", re.compile(f"({text})$")) for kind, text in _PLAIN.items()]
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not supported; write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key, _ in node.value:
            if (name := str(key.value)) in keys:
                raise yaml.MarkedYAMLError(problem=f"'{name}' is given twice", problem_mark=key.start_mark)
            keys.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a string that `_Loader` or PyYAML's own loader would take for another type."""

    yaml_implicit_resolvers: ClassVar[dict] = yaml.SafeDumper.yaml_implicit_resolvers | _Loader.yaml_implicit_resolvers


def dump_yaml(tree: dict) -> str:
    """Write plain values as YAML, which `read_yaml` reads as the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def quoted(text: str) -> str:
    """Quote a text, such as a path, as the value of an override, which is YAML."""
    return yaml.dump(text, default_style='"', width=math.inf).rstrip("\n")


def _parse(text: str, source: str) -> Any:
    """Parse YAML; raises InputError, which names `source` and the line."""
    try:
        return copy.deepcopy(_load(text))
    except RecursionError:
        raise InputError(f"{source}: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        raise InputError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


@lru_cache(maxsize=256)  # a table reads the same recipes for each row
def _load(text: str) -> Any:
    return yaml.load(text, _Loader)


def load_config(path: Path | str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML file with its bases, apply `key.sub=value` overrides in order, and check the result.

    The project's own files, such as configs/pmt/sysu.yaml, are found from any folder. Raises InputError, which names
    the file or the key.
    """
    path = _located(Path(path))
    tree = _read_with_bases(path, ())
    for override in overrides:
        apply_override(tree, override)
    return check_config(tree, str(path))


def _located(path: Path) -> Path:
    ours = path.parts[:1] == ("configs",) and not path.exists() and (CONFIG_ROOT.parent / path).is_file()
    return CONFIG_ROOT.parent / path if ours else path


def config_files(path: Path) -> list[Path]:
    """List a file that `load_config` takes and those in its chain of `base:`."""
    path = _located(path)
    base = read_yaml(path).get("base")
    return [path, *(config_files(path.parent / base) if base else ())]


def config_from_arguments(arguments: argparse.Namespace, further: Sequence[str] = ()) -> Config:
    """Load the configuration that the arguments of `add_config` ask for, with `further` overrides."""
    overrides = [*arguments.overrides, *further]
    if (root := arguments.data_root) is not None:
        overrides.append(_option("--data-root", "data.root", quoted(root), overrides))
    return load_config(arguments.config, overrides)


def _option(option: str, key: str, value: object, overrides: Sequence[str]) -> str:
    """The override that an option stands for; raises InputError if another gives its key."""
    if other := next((word for word in overrides if word.startswith(f"{key}=")), None):
        raise InputError(f"{option} {value}: {other} says another; leave one of them out")
    return f"{key}={value}"


def recipe(arguments: argparse.Namespace) -> Config:
    """Load the configuration that the arguments of `add_recipe` ask for. Raises InputError if it does not say whether
    to start from ImageNet weights; the papers' recipes leave that to the user."""
    seed = [] if arguments.seed is None else [_option("--seed", "seed", arguments.seed, arguments.overrides)]
    config = config_from_arguments(arguments, seed)
    if config.model.pretrained is None:
        choice = (
            "give model.pretrained=PATH (which file: docs/training.md), or model.pretrained=none to train from scratch"
        )
        raise InputError(f"{arguments.config}: starts from ImageNet weights; {choice}")
    return config


def check_config(tree: Any, source: str, schema: type[Schema] = Config) -> Schema:
    """Check a plain tree, as read from YAML. Raises InputError for the first problem, which names `source`, the key and
    the number of other problems."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_first_problem(error)}") from None


def named_model(
    name: str, num_classes: int, image_size: Sequence[int], batch: Sequence[int], parts: int, overrides: dict[str, Any]
) -> tuple[ModelConfig, Setting]:
    """Return the configuration of a model in `list_models`, with some fields overridden, and its setting. Raises
    InputError for an unknown name or field, or a value that does not fit."""
    require_choice("name", name, list_models())
    require(num_classes is not None, "num_classes", None, "a whole number")
    model = MODELS[name]
    named = {key: plain(value) for key, value in (overrides | {"num_classes": num_classes}).items()}
    config = check_config(model.model_dump() | named, name, type(model))
    sizes = {"image_size": image_size, "batch": batch, "parts": parts}
    setting = check_config({key: plain(value) for key, value in sizes.items()}, name, Setting)
    if config.takes_one_size:  # other models take pictures of any size
        try:
            config.check_image(setting.image_size)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    return config, setting


def dump_config(config: Config) -> dict:
    """Return the resolved configuration as plain values, which `check_config` accepts."""
    return config.model_dump(mode="json")


def flat(tree: object, prefix: str = "") -> dict[str, object]:
    """Flatten a tree of plain values, such as a dumped configuration, to dotted keys."""
    if not isinstance(tree, dict | list):
        return {prefix: tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[str, object] = {}
    for key, value in parts:
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def differing_keys(ours: dict[str, object], theirs: dict[str, object], free: tuple[str, ...] = ()) -> list[str]:
    """List the keys in which two flat trees differ, sorted, except those that begin with one of `free`."""
    keys = sorted(ours.keys() | theirs.keys())
    return [key for key in keys if ours.get(key) != theirs.get(key) and not key.startswith(free)]


def round_trip(config: Config, source: str) -> Config:
    """Return a configuration as every command will read it from the files of a run. Raises InputError, which names
    `source`, for values that none would take."""
    text = dump_yaml(dump_config(config))
    if (size := len(text)) > MAX_BYTES:
        problem = f"the run's config.yaml would have {size:,} bytes, and at most {MAX_BYTES:,} are read"
        remedy = "give fewer stages, or one range of 16 bits for all cameras, data.sixteen_bit=[low, high]"
        raise InputError(f"{source}: {problem}; {remedy}")
    return check_config(_parse(text, source), source)


def save_config(config: Config, path: Path) -> None:
    write_text(path, dump_yaml(dump_config(config)))


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; raises InputError, which names the file and, where known, the line."""
    try:
        text = read_text(path, f"configuration file (the project's own are under {CONFIG_ROOT})", MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a configuration: {error}") from None
    return _parse(text, str(path))


def _read_with_bases(path: Path, children: tuple[Path, ...]) -> dict:
    """Read a YAML file, merged over the file that its `base:` names, relative to it; null removes an optional section.
    children: files that led here."""
    resolved = path.resolve()
    if resolved in children:
        raise InputError(f"{path}: 'base:' loops back to {children[-1]}")
    if len(children) == MAX_BASES:
        raise InputError(f"{path}: 'base:' chains more than {MAX_BASES} files; merge some")
    if children and sum(file.stat().st_size for file in (resolved, *children) if file.is_file()) > MAX_BYTES:
        raise InputError(f"{path}: 'base:' chains files of more than {MAX_BYTES:,} bytes; shorten some")
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a configuration must be a mapping of keys to values, not {_kind(tree)}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{path}: 'base:' must name one file, not {_kind(base)}")
    if not base.isprintable():
        raise InputError(f"{path}: 'base:' {shown(base)} is not a valid file name")
    return _merge(_read_with_bases(path.parent / base, (*children, resolved)), tree)


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: _merge(base.get(key), value) for key, value in over.items()}
    return over


def apply_override(tree: dict, override: str) -> None:
    """Set one value in place, such as `a.b=1` or `stages.0.epochs=2`; the value is YAML, except for a template, whose
    braces are not YAML's."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override '{override}' is not of the form key.sub=value")
    value = text if key == TEMPLATE else _parse(text, f"override '{override}'")
    *parents, last = key.split(".")
    node: Any = tree
    for depth, name in enumerate([*parents, last]):
        if isinstance(node, list):
            if not name.isdecimal() or len(name) > 9 or int(name) >= len(node):
                raise InputError(f"override '{override}': '{name}' is not an index below {len(node)}")
            name = int(name)
        elif not isinstance(node, dict):
            raise InputError(f"override '{override}': '{'.'.join(parents[:depth])}' is not a section")
        if depth == len(parents):
            node[name] = value
        else:
            if isinstance(node, dict) and node.get(name) is None:
                node[name] = {}
            node = node[name]


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    if parts and parts[0] in CHOSEN_BY_NAME:
        del parts[1:2]  # pydantic puts the section's name there
    path = ".".join(parts) or "configuration"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{path}'; docs/configuration.md lists all keys{more}"
    if problem["type"] == "union_tag_invalid":
        names = problem["ctx"]["expected_tags"].replace(", ", " or ")
        return f"{path}.name: input should be {names}, got {shown(problem['input']['name'])}{more}"
    kind, value = problem["type"], problem["input"]
    message = _MESSAGES.get(kind, problem["msg"].removeprefix("Value error, "))
    got = "" if kind in ("missing", "value_error") else f", got {shown(value)}"
    if message == "must be text" and isinstance(value, int | float):
        got += f"; put it in quotes, on a command line as '{path}=\"...\"'"
    return f"{path}: {message[0].lower() + message[1:]}{got}{more}"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"

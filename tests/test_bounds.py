"""Numbers of a configuration: each has its limits, and what they need is compared with the memory there is."""

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, Config, check_config, load_config
from ms_vireid.config.estimate import network_cost, require_memory_for
from ms_vireid.models import build_model

from .checkpoints import tiny_config

RECIPES = sorted(CONFIG_ROOT.rglob("*sysu.yaml"))


def numbers(schema, where=""):
    """Every place of a JSON schema where a number may stand, with the limits given there."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and "const" not in schema and "enum" not in schema:
            yield where, schema
        for key, value in schema.items():
            yield from numbers(value, f"{where}.{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from numbers(value, f"{where}.{index}")


def test_every_number_has_a_smallest_and_a_largest_value():
    found = list(numbers(Config.model_json_schema()))
    assert len(found) > 60
    open_ended = [where for where, s in found if not s.keys() & {"minimum", "exclusiveMinimum"}]
    open_ended += [where for where, s in found if not s.keys() & {"maximum", "exclusiveMaximum"}]
    assert open_ended == []


def test_every_list_of_the_schema_has_a_largest_length():
    def lists(schema, where=""):
        if isinstance(schema, dict):
            if schema.get("type") == "array" and "maxItems" not in schema:
                yield where
            for key, value in schema.items():
                yield from lists(value, f"{where}.{key}")

    assert list(lists(Config.model_json_schema())) == []


@pytest.mark.parametrize("family", ["pmt", "agw", "mun"])
def test_the_estimate_is_a_lower_bound_of_the_parameters_and_near_them(family, tmp_path):
    config = tiny_config(family, tmp_path)
    held = sum(int(np.prod(p.shape)) for p in build_model(config).get_parameters())
    assert 0.75 * held <= network_cost(config).parameters <= held


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("training", [True, False])
def test_the_papers_recipes_fit_into_32_gib(recipe, training, monkeypatch):
    monkeypatch.setattr("ms_vireid.devices.memory.available_memory", lambda: 32 * 2**30)
    config = load_config(recipe).with_num_classes(395)
    require_memory_for(config, training)


@pytest.mark.parametrize(
    "options",
    [
        ["model.embed_dim=98304"],
        ["model.depth=1000", "model.embed_dim=7680"],
        ["model.mlp_ratio=400", "model.embed_dim=7680"],
        ["data.image_size=[4096,4096]", "model.stride=1"],
        ["train.num_identities=10000", "train.num_instances=1000"],
        ["model.num_classes=1000000", "model.embed_dim=96000"],
        ["model={name: agw, width: 6400}", "augmentation={}"],
        ["model={name: mun, kernel_order: [701, 701], width: 6400}", "data.image_size=[240,144]"],
        ["model={name: mun, ratios: [72, 36]}", "data.image_size=[4032,4032]"],
    ],
)
def test_what_cannot_fit_is_refused_with_the_figure(options, monkeypatch):
    monkeypatch.setattr("ms_vireid.devices.memory.available_memory", lambda: 32 * 2**30)
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", options)
    with pytest.raises(InputError, match=r"needs [0-9,.]+ GiB of memory, there are 32\.0 GiB; make the model"):
        require_memory_for(config, training=True)


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputation_lowers_the_estimate(recompute):
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", [f"train.recompute={str(recompute).lower()}"])
    kept = network_cost(config).kept
    assert (kept < 6e6) is recompute


def test_the_estimate_is_compared_with_what_is_there(monkeypatch, tmp_path):
    config = tiny_config("pmt", tmp_path)
    monkeypatch.setattr("ms_vireid.devices.memory.available_memory", lambda: 1000)
    with pytest.raises(InputError, match="of memory"):
        require_memory_for(config, training=False)
    monkeypatch.setattr("ms_vireid.devices.memory.available_memory", lambda: None)  # not known on this system
    require_memory_for(config, training=False)


def test_a_number_of_any_size_is_one_line(tmp_path):
    with pytest.raises(InputError, match="seed"):
        check_config({"seed": 10**5000, "data": {"name": "synthetic"}}, "a")

"""Numbers of a configuration: each has its limits, and so have the weights and tokens that they give together."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, Config, PMTConfig, check_config, load_config, require_fitting
from ms_vireid.engine import run_folder
from ms_vireid.engine.run_folder import require_readable_log
from ms_vireid.files.checks import sealed
from ms_vireid.models import build_model

from .tiny_models import tiny_config


def of_type(schema, *types, where=""):
    """Every place of a JSON schema where a value of these types may stand, with the limits given there."""
    if isinstance(schema, dict):
        if schema.get("type") in types and not schema.keys() & {"const", "enum"}:
            yield where, schema.keys()
        for key, value in schema.items():
            yield from of_type(value, *types, where=f"{where}.{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from of_type(value, *types, where=f"{where}.{index}")


def test_every_number_has_a_smallest_and_a_largest_value_and_every_list_a_largest_length():
    schema = Config.model_json_schema()
    numbers, lists = list(of_type(schema, "integer", "number")), list(of_type(schema, "array"))
    assert len(numbers) > 60
    open_ended = [where for where, limits in numbers if not limits & {"minimum", "exclusiveMinimum"}]
    open_ended += [where for where, limits in numbers if not limits & {"maximum", "exclusiveMaximum"}]
    assert open_ended + [where for where, limits in lists if "maxItems" not in limits] == []


@pytest.mark.parametrize("family", ["pmt", "agw", "mun"])
def test_a_models_weights_are_a_lower_bound_and_not_far_below(family, tmp_path):
    config = tiny_config(family, tmp_path)
    held = sum(int(np.prod(p.shape)) for p in build_model(config).get_parameters())
    assert 0.3 * held <= config.model.weights <= held


@pytest.mark.parametrize(
    "options",
    [
        ["model.embed_dim=9600"],
        ["model.depth=100", "model.embed_dim=1536"],
        ["model.patch_size=256", "model.embed_dim=9600", "model.depth=1", "model.mlp_ratio=1"],
        ["model={name: agw, width: 1024}", "augmentation={}"],
        ["model={name: mun, expansion: 400, width: 256}", "data.image_size=[240,144]"],
        ["model={name: mun, ratios: [96, 48], width: 128}", "data.image_size=[768,768]"],
    ],
)
def test_a_model_that_is_far_too_large_is_refused(options):
    with pytest.raises(InputError, match=r"model: [0-9,]+ weights are more than 2,000,000,000; make the model smaller"):
        load_config(CONFIG_ROOT / "pmt/sysu.yaml", options)


def test_a_model_of_the_most_weights_is_taken_and_of_one_more_is_not(monkeypatch):
    most = PMTConfig().weights
    monkeypatch.setattr("ms_vireid.config.models.MOST_WEIGHTS", most)
    assert PMTConfig().weights == most
    monkeypatch.setattr("ms_vireid.config.models.MOST_WEIGHTS", most - 1)
    with pytest.raises(ValidationError, match="make the model smaller"):
        PMTConfig()


def test_too_many_tokens_are_refused():
    with pytest.raises(InputError, match=r"gives 16,384 tokens, more than 10,000; make model.stride larger"):
        load_config(CONFIG_ROOT / "pmt/sysu.yaml", ["data.image_size=[1024,1024]", "model={patch_size: 8, stride: 8}"])


def test_a_file_that_holds_far_fewer_numbers_than_its_model_is_refused():
    model = PMTConfig()
    require_fitting(Path("a.ckpt"), model, model.weights)
    with pytest.raises(
        InputError, match=r"a.ckpt: does not fit the model: its configuration asks for 85,524,480 weights"
    ):
        require_fitting(Path("a.ckpt"), model, 1000)


LONG_STAGE = "{epochs: 10000, losses: {id: {}}}, "


@pytest.mark.parametrize(
    ("options", "steps", "says"),
    [
        ([], 1_000_000, None),
        (["train.log_steps=1"], 100_000, None),
        (["train.log_steps=1"], 1_000_000, "metrics.jsonl would have 1,000,000 lines, more than"),
        (["train.evaluate_every=1", f"stages=[{LONG_STAGE}]"], 10_000, None),
        (["train.evaluate_every=1", f"stages=[{LONG_STAGE * 50}]"], 500_000, "metrics.jsonl would have 550,000 lines"),
        (["train.log_steps=1000000"], 2**31 - 1, None),
        (
            ["train.log_steps=1000000"],
            2**31,
            "2,147,483,648 steps are more than 2,147,483,647; lower the stages' epochs",
        ),
    ],
)
def test_a_run_whose_log_could_not_be_read_again_is_refused(options, steps, says):
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", options)
    if says is None:
        require_readable_log(config, steps)
        return
    with pytest.raises(InputError, match=says):
        require_readable_log(config, steps)


@pytest.mark.parametrize("recipe", ["pmt", "agw", "mun"])
def test_a_line_of_the_log_has_no_more_bytes_than_are_counted(recipe):
    terms = load_config(CONFIG_ROOT / recipe / "sysu.yaml").terms
    longest = dict.fromkeys(["loss", *terms, "lr_full", "lr_backbone", "images_per_second"], -1.2345678901234567e-123)
    row = json.dumps(sealed(longest | {"epoch": 2**31 - 1, "step": 2**31 - 1}))
    assert len(f"{row}\n") <= run_folder._NUMBER_BYTES * (len(terms) + run_folder._OTHER_NUMBERS)


def test_a_number_of_any_size_is_one_line(tmp_path):
    with pytest.raises(InputError, match="seed"):
        check_config({"seed": 10**5000, "data": {"name": "synthetic"}}, "a")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Allocate memory failed\n\n---- C++ Call Stack")])
def test_memory_that_runs_out_is_one_line(error, capfd):
    def command():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(command)
    (line,) = capfd.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert re.match(r"error: out of memory \((size unknown|Allocate memory failed)\); make the model", line)

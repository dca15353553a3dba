"""What a checkpoint's configuration decides, and what the run.json beside it does."""

from pathlib import Path

import numpy as np
import pytest

from ms_vireid.checkpoints.weights import Checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.config import DataConfig, EvaluationConfig, check_config, dump_config
from ms_vireid.engine.checkpoint_config import checkpoint_config
from ms_vireid.files.writing import write_json

from ..tiny_models import run_record, tiny_config

SUMMED = ("evaluation.flip=true", "evaluation.renormalise=true")


def checkpoint(folder, own, beside=None, held=10_000):
    """Of `held` numbers and with the options `own`; beside: those of the run.json in its folder, None without one."""
    config = dump_config(tiny_config("pmt", folder / "own", *own))
    if beside is not None:
        write_json(folder / "run.json", run_record(tiny_config("pmt", "run", *beside), folder))
    return Checkpoint(folder / "a.safetensors", {"weights": np.zeros(held)}, {"config": config})


@pytest.mark.parametrize(("own", "beside"), [(SUMMED, None), (SUMMED, ()), ((), SUMMED)])
def test_features_are_made_as_the_checkpoint_says_whatever_lies_beside_it(tmp_path, own, beside):
    evaluation = checkpoint_config(checkpoint(tmp_path, own, beside)).evaluation
    assert (evaluation.flip, evaluation.renormalise) == (own == SUMMED, own == SUMMED)


def test_places_and_numbers_of_a_checkpoint_are_not_believed_and_those_of_a_run_are(tmp_path):
    said = ("data.workers=7", "evaluation.frost=ice", "evaluation.batch_size=9")
    lone = checkpoint_config(checkpoint(tmp_path, said))
    assert (lone.data.root, lone.data.workers, lone.evaluation.frost, lone.evaluation.batch_size) == (None, 2, None, 64)
    of_a_run = checkpoint_config(checkpoint(tmp_path, said, ("data.workers=3",)))
    assert (of_a_run.data.root, of_a_run.data.workers) == (Path("run"), 3)


# Keys of these sections on which neither features nor an evaluation nor a search depend: where to read and how fast,
# what training alone does with pictures, and what else an evaluation computes.
SECTIONS = {"data": DataConfig, "evaluation": EvaluationConfig}
IDLE = {"root", "workers", "cache", "resize_through", "batch_size", "frost", "compare_untrained"}
OTHERS = {  # for each other key a value that is not the default
    "data.name": "folder",
    "data.trial": "2",
    "data.test_fraction": "0.25",
    "data.image_size": "[32,16]",
    "data.layout": "{identity}/{modality}/*",
    "data.sixteen_bit": "{infrared: [51241, 52181]}",
    "data.no_value": "[-9999, 65535]",
    "data.synthetic": "{seed: 5}",
    "evaluation.mode": "indoor",
    "evaluation.shots": "10",
    "evaluation.direction": "visible-to-infrared",
    "evaluation.trials": "3",
    "evaluation.flip": "true",
    "evaluation.renormalise": "true",
    "evaluation.rerank": "true",
}


def test_all_that_features_evaluation_and_search_depend_on_travels_with_the_model(tmp_path):
    of_sections = {f"{section}.{key}" for section in ("data", "evaluation") for key in SECTIONS[section].model_fields}
    assert of_sections - {f"data.{key}" for key in IDLE} - {f"evaluation.{key}" for key in IDLE} == OTHERS.keys()
    for name, value in OTHERS.items():
        more = ("evaluation.flip=true",) if name == "evaluation.renormalise" else ()
        own = checkpoint(tmp_path, (f"{name}={value}", *more))
        stored, trusted = check_config(own.meta["config"], ""), checkpoint_config(own)
        section, key = name.split(".")
        assert getattr(getattr(trusted, section), key) == getattr(getattr(stored, section), key), name
        assert getattr(getattr(stored, section), key) != getattr(getattr(tiny_config("pmt", tmp_path), section), key)


def test_a_models_section_is_believed_but_for_the_weights_that_it_began_from(tmp_path):
    own = checkpoint(tmp_path, ("model.drop_path=0.3",))
    assert checkpoint_config(own).model == check_config(own.meta["config"], "").model.model_copy(
        update={"pretrained": "none"}
    )


def test_a_model_larger_than_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not fit the model"):
        checkpoint_config(checkpoint(tmp_path, (), held=10))

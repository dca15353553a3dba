"""What a checkpoint's configuration decides, and what the run.json beside it does."""

from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import dump_config
from ms_vireid.engine.trusted import trusted_config
from ms_vireid.files.weights import Checkpoint
from ms_vireid.files.writing import write_json

from ..checkpoints import run_record, tiny_config

SUMMED = ("evaluation.flip=true", "evaluation.renormalise=true")


def checkpoint(folder, own, beside=None, held=10_000):
    """Of `held` numbers and with the options `own`; beside: those of the run.json in its folder, None without one."""
    config = dump_config(tiny_config("pmt", folder / "own", *own))
    if beside is not None:
        write_json(folder / "run.json", run_record(tiny_config("pmt", "run", *beside), folder))
    return Checkpoint(folder / "a.safetensors", {"weights": np.zeros(held)}, {"config": config})


@pytest.mark.parametrize(("own", "beside"), [(SUMMED, None), (SUMMED, ()), ((), SUMMED)])
def test_features_are_made_as_the_checkpoint_says_whatever_lies_beside_it(tmp_path, own, beside):
    evaluation = trusted_config(checkpoint(tmp_path, own, beside)).evaluation
    assert (evaluation.flip, evaluation.renormalise) == (own == SUMMED, own == SUMMED)


def test_places_and_numbers_of_a_checkpoint_are_not_believed_and_those_of_a_run_are(tmp_path):
    said = ("data.workers=7", "evaluation.frost=ice", "evaluation.trials=9")
    lone = trusted_config(checkpoint(tmp_path, said))
    assert (lone.data.root, lone.data.workers, lone.evaluation.frost, lone.evaluation.trials) == (None, 2, None, 10)
    of_a_run = trusted_config(checkpoint(tmp_path, said, ("data.workers=3",)))
    assert (of_a_run.data.root, of_a_run.data.workers) == (Path("run"), 3)


def test_a_model_larger_than_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not fit the model"):
        trusted_config(checkpoint(tmp_path, (), held=10))

"""What a checkpoint's configuration decides, and what the run.json beside it does."""

import pytest

from ms_vireid.inference.trained import load_trained

from ..checkpoints import write_checkpoint

SUMMED = ("evaluation.flip=true", "evaluation.renormalise=true")


@pytest.mark.parametrize(("own", "beside"), [(SUMMED, None), (SUMMED, ()), ((), SUMMED)])
def test_features_are_made_as_the_checkpoint_says_whatever_lies_beside_it(tmp_path, own, beside):
    path = write_checkpoint(tmp_path / "run/model.safetensors", "pmt", tmp_path / "data", *own)
    record = path.with_name("run.json")
    record.unlink()
    if beside is not None:
        write_checkpoint(tmp_path / "other/model.safetensors", "pmt", tmp_path / "data", *beside)
        (tmp_path / "other/run.json").rename(record)
    (trained,) = load_trained([path])
    evaluation = trained.config.evaluation
    assert (evaluation.flip, evaluation.renormalise) == (own == SUMMED, own == SUMMED)

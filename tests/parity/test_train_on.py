"""`model.pretrained` of a whole model: every weight but those of its people, in both frameworks."""

import numpy as np
import pytest
import torch

from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.checkpoints.layouts import torch_name
from ms_vireid.command.errors import InputError
from ms_vireid.models import build_model
from parity.mapping import values
from tests.parity.convert_cases import read, recipe, write_mindspore, write_weights
from torch_ref.models import build_model as build_torch_model

PEOPLE = ("classifier.", "visible_classifier.", "infrared_classifier.", "prototypes.memory", "prototypes.seen")


def torch_values(config):
    return {name: value.numpy() for name, value in build_torch_model(config).state_dict().items()}


def assert_started_from(model, path, caplog):
    """Both frameworks' models of 5 people have the file's weights, and fresh ones for their own people."""
    config = recipe(model, "model.num_classes=5", f"model.pretrained={path}")
    held = {torch_name(name): value.numpy() for name, value in read(weight_file(path)).weights.items()}
    for built in (values(build_model(config)), torch_values(config)):
        for name, value in built.items():
            if name.startswith(PEOPLE):
                assert value.shape != held[name].shape or not np.array_equal(value, held[name]), name
            elif not name.endswith("num_batches_tracked"):
                assert np.array_equal(value, held[name]), name
    line = next(line for line in caplog.messages if "starts from this model" in line)
    assert "classifier.weight" in line


@pytest.mark.parametrize("model", ["pmt", "mun"])
def test_a_run_s_folder_of_other_people(tmp_path, caplog, model):
    write_mindspore(tmp_path / "model.safetensors", recipe(model, "model.num_classes=7"))
    assert_started_from(model, tmp_path, caplog)


@pytest.mark.parametrize("model", ["pmt", "agw"])
def test_a_pth_of_this_project_and_a_plain_state_dict_under_a_prefix(tmp_path, caplog, model):
    module = write_weights(tmp_path / "a.pth", recipe(model, "model.num_classes=7"))
    assert_started_from(model, tmp_path / "a.pth", caplog)
    torch.save({f"_orig_mod.{name}": value for name, value in module.state_dict().items()}, tmp_path / "b.pth")
    caplog.clear()
    assert_started_from(model, tmp_path / "b.pth", caplog)


@pytest.mark.parametrize("build", [build_model, build_torch_model])
def test_another_architecture_is_refused_with_what_fits(tmp_path, build):
    write_weights(tmp_path / "a.pth", recipe("pmt"))
    with pytest.raises(InputError, match=r"does not fit the pmt: it was trained with model.depth=2; "):
        build(recipe("pmt", "model.depth=3", f"model.pretrained={tmp_path / 'a.pth'}"))
    with pytest.raises(InputError, match=r"it was trained with data.image_size=\[40, 24\]; 1 \(base.pos_embed is"):
        build(recipe("pmt", "data.image_size=[52,24]", f"model.pretrained={tmp_path / 'a.pth'}"))
    with pytest.raises(InputError, match=r"is of pmt, model.name is agw; give a --config of pmt"):
        build(recipe("agw", f"model.pretrained={tmp_path / 'a.pth'}"))

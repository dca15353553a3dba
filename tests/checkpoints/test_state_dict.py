"""Weights as people save them: prefixes, types, several sets, steps beside them; every weight arrives as it was."""

import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.checkpoints.state_dict import mismatch, plain_names, read_state_dict, recognise
from ms_vireid.checkpoints.weights import write_checkpoint
from ms_vireid.command.errors import InputError

BODY = {
    "conv1.weight": torch.arange(6.0).reshape(2, 3),
    "bn1.running_mean": torch.tensor([0.5, -0.5]),
    "bn1.num_batches_tracked": torch.tensor(7),
}


def assert_body(saved, body=BODY):
    assert saved.weights.keys() == body.keys()
    for name, tensor in body.items():
        assert saved.weights[name].dtype == tensor.numpy().dtype, name
        assert np.array_equal(saved.weights[name], tensor.numpy()), name


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", None),
        ("module.", "module. is cut from its names"),
        ("_orig_mod.", "_orig_mod. is cut from its names"),
        ("_orig_mod.module.", "_orig_mod. and module. is cut from its names"),
        ("any.thing.", "any. and thing. is cut from its names"),
    ],
)
def test_a_prefix_that_all_names_share_is_taken_off_and_said(tmp_path, caplog, prefix, said):
    torch.save({prefix + name: value for name, value in BODY.items()}, tmp_path / "a.pth")
    saved = read_state_dict(tmp_path / "a.pth")
    assert_body(saved)
    assert saved.names["conv1.weight"] == f"{prefix}conv1.weight"
    assert [line.partition("a.pth: ")[2] for line in caplog.messages] == ([said] if said else [])


def test_wrappers_inside_of_names_go_heads_stay_and_what_would_make_two_names_one_is_kept():
    assert plain_names(["base._orig_mod.a.weight", "base.b.weight", "neck.c.bias"])[0].keys() == {
        "base.a.weight",
        "base.b.weight",
        "neck.c.bias",
    }
    names, removed = plain_names(["m.backbone.conv1.weight", "m.backbone.bn1.bias", "m.head.fc.weight"])
    assert (list(names), removed) == (["conv1.weight", "bn1.bias", "head.fc.weight"], "m. and backbone.")
    assert list(plain_names(["a._orig_mod.w", "a.w"])[0]) == ["a._orig_mod.w", "a.w"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_other_floats_become_float32_and_integers_stay(tmp_path, dtype, suffix):
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in BODY.items()}
    if suffix == ".pth":
        torch.save(cast, tmp_path / "a.pth")
    elif suffix == ".safetensors":
        save_file(cast, tmp_path / "a.safetensors")
    else:
        arrays = {name: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for name, v in cast.items()}
        write_checkpoint(tmp_path / "a.ckpt", arrays, {}, "mindspore")
    assert_body(read_state_dict(tmp_path / f"a{suffix}"))


def test_counts_that_were_cast_with_the_weights_are_integers_again(tmp_path, caplog):
    torch.save({name: value.half() for name, value in BODY.items()}, tmp_path / "a.pth")
    assert_body(read_state_dict(tmp_path / "a.pth"))
    assert any("3 of its 3 arrays are float16" in line for line in caplog.messages)


def test_steps_and_an_optimizer_s_state_beside_weights_are_passed_over(tmp_path):
    """As AveragedModel and MindSpore's TrainOneStepCell save them."""
    averaged = {"n_averaged": torch.tensor(5)} | {f"module.{name}": value for name, value in BODY.items()}
    torch.save(averaged, tmp_path / "a.pth")
    saved = read_state_dict(tmp_path / "a.pth")
    assert_body(saved)
    assert saved.beside == {"n_averaged": ("[]", "no weights")}
    arrays = {f"network.{name}": value.numpy() for name, value in BODY.items()}
    arrays |= {f"moments.{name}": value for name, value in arrays.items()}
    arrays |= {"global_step": np.array([3], np.int32), "learning_rate": np.array(0.1, np.float32)}
    write_checkpoint(tmp_path / "a.ckpt", arrays, {}, "mindspore")
    saved = read_state_dict(tmp_path / "a.ckpt")
    assert_body(saved)
    assert len(saved.beside) == 5


def test_a_run_s_own_file_is_in_no_foreign_layout_whatever_its_names(tmp_path):
    arrays = {"visible_stem.conv1.weight": np.zeros((4, 3, 7, 7), np.float32)}  # as AGW's, of a model of one's own
    for record, title in (({}, "AGW, this project's"), ({"config": {"model": {"name": "agw_plus"}}}, None)):
        write_checkpoint(tmp_path / "a.safetensors", arrays, record, "mindspore")
        _, layout = recognise(read_state_dict(tmp_path / "a.safetensors"))
        assert (layout and layout.title) == title


def test_a_set_can_be_chosen_among_the_names_too(tmp_path):
    later = {name: value + 1 for name, value in BODY.items()}
    sets = {"student": BODY, "teacher": later}
    save_file(
        {f"model.{s}.{n}": v.clone() for s, of in sets.items() for n, v in of.items()}, tmp_path / "a.safetensors"
    )
    for choice in ("teacher", "model.teacher"):
        assert_body(read_state_dict(tmp_path / "a.safetensors", choice), later)
    with pytest.raises(InputError, match=r"no weights called 'ema', but names that begin with model; name one: --wei"):
        read_state_dict(tmp_path / "a.safetensors", "ema")


def test_a_set_that_is_not_asked_for_is_named(tmp_path, caplog):
    torch.save({"state_dict": BODY, "state_dict_ema": BODY}, tmp_path / "a.pth")
    assert_body(read_state_dict(tmp_path / "a.pth"))
    assert "of its sets of weights state_dict is taken, not state_dict_ema (name one: --weights" in caplog.text
    with pytest.raises(InputError, match=r"no weights called 'ema', but state_dict, state_dict_ema; name one"):
        read_state_dict(tmp_path / "a.pth", "ema")


def test_what_is_dropped_is_counted_in_one_line(tmp_path, caplog):
    content = {"state_dict": BODY, "epoch": 3, "args": types.SimpleNamespace(a=1), "ema": types.SimpleNamespace(a=BODY)}
    torch.save(content, tmp_path / "a.pth")
    saved = read_state_dict(tmp_path / "a.pth")
    assert_body(saved)
    said = "3 (epoch: int, args: types.SimpleNamespace, ema: types.SimpleNamespace)"
    assert f"a.pth: skipped beside its weights: {said}" in caplog.text
    assert saved.beside["args"] == ("types.SimpleNamespace", "no weights")


def test_many_mismatches_begin_with_their_reason():
    model = {f"layer{i}.{j}.conv.weight" for i in (1, 2) for j in range(6)} | {"head.weight"}
    assert mismatch(model - {"head.weight"}, model) == ""
    assert mismatch({f"teacher.{name}" for name in model} | {"loss.weight"}, model).startswith(
        "13 weights of 'teacher' do: give model.pretrained_weights=teacher, or convert.py --weights teacher; "
    )

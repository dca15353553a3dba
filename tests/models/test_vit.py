import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from safetensors.numpy import save_file

from ms_vireid.checkpoints.layouts import torch_name
from ms_vireid.checkpoints.pretrained import read_pretrained
from ms_vireid.command.errors import InputError
from ms_vireid.data.randomness import step_key
from ms_vireid.models import VisionTransformer, create_model
from ms_vireid.models.layers import DropPath
from ms_vireid.models.pretrained import load_pretrained_vit
from ms_vireid.models.vit import patch_grid, resize_position_embedding

SMALL = {"image_size": (32, 16), "patch_size": 8, "stride": 6, "embed_dim": 16, "depth": 2, "num_heads": 2}


def images(count, size=(32, 16), seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


def test_the_papers_grid_is_21_by_10():
    assert patch_grid((256, 128), 16, 12) == (21, 10)


def test_training_repeats_with_the_key_and_recomputation_changes_nothing():
    model = create_model("pmt_vit_tiny", 5, dropout=0.2, drop_path=0.2, **SMALL).set_train()
    pixels, key = Tensor(images(8)), Tensor(step_key(0, 7))
    weights = model.trainable_params()
    gradients = ms.value_and_grad(lambda x: model(x, None, key)[0].sum(), None, weights)
    value, first = gradients(pixels)
    _, second = gradients(pixels)
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(first, second, strict=True))
    model.base.recompute_blocks = True
    other_value, other = gradients(pixels)
    assert value.asnumpy() == other_value.asnumpy()
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(first, other, strict=True))


def test_each_branch_has_a_row_of_its_own_in_the_steps_factors():
    cells = VisionTransformer(**SMALL | {"depth": 3}, drop_path=0.2).cells_and_names()
    assert sorted(cell.layer for _, cell in cells if isinstance(cell, DropPath)) == list(range(6))


def test_what_does_not_fit_is_refused():
    for message, wrong in (
        (r"\(32, 16\).*\(16, 32\)", lambda: VisionTransformer(**SMALL)(Tensor(images(1, (16, 32))))),
        ("key", lambda: VisionTransformer(**SMALL, dropout=0.1).set_train()(Tensor(images(1)))),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(InputError, match=r"pmt_vit_huge.*pmt_vit_base"):
        create_model("pmt_vit_huge", 5)


def timm_weights(square=4):
    """A timm state dict for SMALL, with a square position grid and a head to drop."""
    rng = np.random.default_rng(0)
    vit = VisionTransformer(**SMALL)
    held = {torch_name(n): rng.standard_normal(p.shape).astype(np.float32) for n, p in vit.parameters_dict().items()}
    held["pos_embed"] = rng.standard_normal((1, 1 + square * square, 16)).astype(np.float32)
    return held | {"head.weight": np.zeros((10, 16), np.float32), "head.bias": np.zeros(10, np.float32)}


@pytest.mark.parametrize("grid", [(4, 4), (7, 3), (5, 11), (1, 2)])
def test_positions_are_resized_as_pytorch_does(grid):
    held = np.random.default_rng(0).standard_normal((1, 17, 6)).astype(np.float32)
    square = torch.from_numpy(held[:, 1:].reshape(1, 4, 4, 6)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(square, grid, mode="bilinear", align_corners=False)
    resized = resize_position_embedding(held, grid)
    assert np.array_equal(resized[:, 0], held[:, 0])
    assert resized[0, 1:] == pytest.approx(expected[0].flatten(1).T.numpy(), abs=1e-6)


def test_a_timm_file_loads_with_its_positions_resized_and_its_head_dropped(tmp_path):
    held = timm_weights()
    torch.save({"model": {name: torch.from_numpy(value) for name, value in held.items()}}, tmp_path / "vit.pth")
    vit = VisionTransformer(**SMALL)
    load_pretrained_vit(vit, read_pretrained(tmp_path / "vit.pth"))
    loaded = {torch_name(name): p.asnumpy() for name, p in vit.parameters_dict().items()}
    assert np.array_equal(loaded.pop("pos_embed"), resize_position_embedding(held["pos_embed"], (5, 2)))
    assert all(np.array_equal(value, held[name]) for name, value in loaded.items())


def test_weights_that_do_not_fit_are_all_named_and_nothing_is_set(tmp_path):
    held = timm_weights()
    held["extra"] = held.pop("norm.weight")
    held["cls_token"] = np.zeros((1, 1, 8), np.float32)
    save_file(held, tmp_path / "vit.safetensors")
    vit = VisionTransformer(**SMALL)
    before = vit.norm.beta.asnumpy().copy()
    with pytest.raises(InputError, match=r"cls_token is \(1, 1, 8\).*extra is not.*norm\.weight is missing"):
        load_pretrained_vit(vit, read_pretrained(tmp_path / "vit.safetensors"))
    assert np.array_equal(vit.norm.beta.asnumpy(), before)


def test_a_file_of_another_width_says_what_to_configure(tmp_path):
    save_file(timm_weights(), tmp_path / "vit.safetensors")
    wider = VisionTransformer(**SMALL | {"embed_dim": 32})
    with pytest.raises(
        InputError, match=r"ViT is 16 wide, the model's 32: give model\.embed_dim=16 model\.num_heads=1; 30"
    ):
        load_pretrained_vit(wider, read_pretrained(tmp_path / "vit.safetensors"))


def test_create_model_loads_the_file_that_it_is_given(tmp_path):
    held = timm_weights()
    save_file(held, tmp_path / "vit.safetensors")
    for given in (tmp_path / "vit.safetensors", str(tmp_path / "vit.safetensors")):
        model = create_model("pmt_vit_tiny", 3, **SMALL, pretrained=given)
        assert np.array_equal(model.base.norm.gamma.asnumpy(), held["norm.weight"])
    with pytest.raises(InputError, match=r"model\.pretrained: no such file .*nowhere\.safetensors"):
        create_model("pmt_vit_tiny", 3, **SMALL, pretrained=tmp_path / "nowhere.safetensors")

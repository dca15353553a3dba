import re

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from safetensors.numpy import save_file

from ms_vireid.checkpoints.layouts import torch_name
from ms_vireid.checkpoints.pretrained import read_pretrained
from ms_vireid.command.errors import InputError
from ms_vireid.config import other_sizes
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


def refused_weights(path, **sizes):
    with pytest.raises(InputError) as refused:
        load_pretrained_vit(VisionTransformer(**SMALL | sizes), read_pretrained(path))
    return str(refused.value)


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ({"embed_dim": 32}, "model.embed_dim=16 model.num_heads as its authors say"),
        ({"depth": 3, "patch_size": 6}, "model.depth=2 model.patch_size=8"),
        ({"mlp_ratio": 2}, "model.mlp_ratio=4"),
    ],
)
def test_a_file_of_other_sizes_says_what_to_configure(tmp_path, sizes, settings):
    save_file(timm_weights(), tmp_path / "vit.safetensors")
    said = refused_weights(tmp_path / "vit.safetensors", **sizes)
    assert f"does not fit the ViT: the file's ViT is of other sizes: give {settings}; " in said
    remedy = {key: int(size) for key, size in re.findall(r"model\.(\w+)=(\d+)", said)}
    load_pretrained_vit(VisionTransformer(**SMALL | sizes | remedy), read_pretrained(tmp_path / "vit.safetensors"))


@pytest.mark.parametrize(("width", "heads"), [(192, "=3"), (768, "=12"), (1280, "=16"), (1408, " as its authors say")])
def test_heads_are_said_of_published_widths_alone(width, heads):
    blocks = {"blocks.0.mlp.fc1.weight": (4, 1), "cls_token": (1, 1, width), "patch_embed.proj.weight": (1, 3, 8, 8)}
    assert f"model.num_heads{heads}; " in other_sizes(blocks, blocks | {"cls_token": (1, 1, 16)})


@pytest.mark.parametrize("layers", [1, 4])
def test_another_network_with_blocks_is_told_no_depth(tmp_path, layers):
    held = timm_weights()
    swin = {f"layers.{i}.{name}": weight for i in range(layers) for name, weight in held.items() if "blocks.0" in name}
    save_file(swin | {name: held[name] for name in held if "blocks" not in name}, tmp_path / "swin.safetensors")
    said = refused_weights(tmp_path / "swin.safetensors")
    assert "does not fit the ViT: these are the weights of another network; " in said
    assert "give " not in said


@pytest.mark.parametrize(
    ("trained", "average"),
    [("encoder_q", "encoder_k"), ("base_encoder", "momentum_encoder"), ("online", "ema_model"), ("student", "teacher")],
)
def test_of_a_network_and_its_moving_average_the_remedy_takes_the_network(tmp_path, trained, average):
    held = {name: torch.from_numpy(value) for name, value in timm_weights().items()}
    names = {f"module.{trained}.{name}": value for name, value in held.items()}
    names |= {f"module.{average}.{name}": value + 1 for name, value in held.items()}
    names |= {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    torch.save({"state_dict": names, "epoch": 3}, tmp_path / "moco.pth")
    (choice,) = re.findall(r"give model\.pretrained_weights=(\w+), or", refused_weights(tmp_path / "moco.pth"))
    vit = VisionTransformer(**SMALL)
    load_pretrained_vit(vit, read_pretrained(tmp_path / "moco.pth", choice=choice))
    assert np.array_equal(vit.norm.gamma.asnumpy(), held["norm.weight"].numpy())


def test_create_model_loads_the_file_that_it_is_given(tmp_path):
    held = timm_weights()
    save_file(held, tmp_path / "vit.safetensors")
    for given in (tmp_path / "vit.safetensors", str(tmp_path / "vit.safetensors")):
        model = create_model("pmt_vit_tiny", 3, **SMALL, pretrained=given)
        assert np.array_equal(model.base.norm.gamma.asnumpy(), held["norm.weight"])
    with pytest.raises(InputError, match=r"model\.pretrained: no such file .*nowhere\.safetensors"):
        create_model("pmt_vit_tiny", 3, **SMALL, pretrained=tmp_path / "nowhere.safetensors")

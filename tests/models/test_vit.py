import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file
from scipy.special import ndtr  # comes with mindspore

from ms_vireid.command.errors import InputError
from ms_vireid.data.randomness import step_key
from ms_vireid.models import VisionTransformer, create_model, list_models
from ms_vireid.models.pretrained import load_pretrained_vit, timm_name
from ms_vireid.models.vit import GELU, patch_grid, resize_position_embedding

SMALL = {"image_size": (32, 16), "patch_size": 8, "stride": 6, "embed_dim": 16, "depth": 2, "num_heads": 2}


def images(count, size=(32, 16), seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


def test_the_papers_grid_is_21_by_10():
    assert patch_grid((256, 128), 16, 12) == (21, 10)


def test_parameters_of_vit_base_are_named_and_shaped_as_timm_has_them():
    model = create_model("pmt_vit_base", num_classes=395, depth=1)
    shapes = {timm_name(name): tuple(p.shape) for name, p in model.base.parameters_dict().items()}
    assert shapes == {
        "cls_token": (1, 1, 768), "pos_embed": (1, 211, 768),
        "patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,),
        "blocks.0.norm1.weight": (768,), "blocks.0.norm1.bias": (768,),
        "blocks.0.attn.qkv.weight": (2304, 768), "blocks.0.attn.qkv.bias": (2304,),
        "blocks.0.attn.proj.weight": (768, 768), "blocks.0.attn.proj.bias": (768,),
        "blocks.0.norm2.weight": (768,), "blocks.0.norm2.bias": (768,),
        "blocks.0.mlp.fc1.weight": (3072, 768), "blocks.0.mlp.fc1.bias": (3072,),
        "blocks.0.mlp.fc2.weight": (768, 3072), "blocks.0.mlp.fc2.bias": (768,),
        "norm.weight": (768,), "norm.bias": (768,),
    }  # fmt: skip


def test_overlapping_patches_are_those_of_a_convolution():
    vit = VisionTransformer(**SMALL)
    pixels = images(2)
    weight = vit.patch_embed.proj.weight.asnumpy().astype(np.float64)
    patches = vit.patch_embed(Tensor(pixels)).asnumpy()  # [2, 5 * 2, 16]
    for n, (row, column) in enumerate((r, c) for r in range(5) for c in range(2)):
        window = pixels[:, :, 6 * row : 6 * row + 8, 6 * column : 6 * column + 8]
        # 192 float32 products of about 1e-1 summed.
        assert patches[:, n] == pytest.approx(np.einsum("nchw,dchw->nd", window, weight), abs=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_gelu_and_its_derivative_are_exact(jit):
    x = np.linspace(-6, 6, 25, dtype=np.float32)
    exact = x.astype(np.float64)
    distribution, density = ndtr(exact), np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
    gelu = GELU()

    def summed(u):
        return gelu(u).sum(), gelu(u)

    gradients = ms.value_and_grad(summed, 0, has_aux=True)
    (_, value), gradient = (ms.jit(gradients) if jit else gradients)(Tensor(x))
    # float32: half a unit in the last place of values up to 6.
    assert value.asnumpy() == pytest.approx(exact * distribution, abs=1e-6)
    assert gradient.asnumpy() == pytest.approx(distribution + exact * density, abs=1e-6)


def test_features_have_the_width_and_do_not_depend_on_the_rest_of_the_batch():
    vit = VisionTransformer(**SMALL)
    pixels = images(3)
    together = vit(Tensor(pixels)).asnumpy()
    assert together.shape == (3, 16)
    assert vit(Tensor(pixels[1:2])).asnumpy()[0] == pytest.approx(together[1], abs=1e-5)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(32, 16\).*\(16, 32\)"):
        VisionTransformer(**SMALL)(Tensor(images(1, (16, 32))))


def test_training_with_dropout_needs_the_steps_key():
    vit = VisionTransformer(**SMALL, dropout=0.1).set_train()
    with pytest.raises(ValueError, match="key"):
        vit(Tensor(images(1)))


@pytest.mark.parametrize("recompute", [False, True])
def test_training_repeats_with_the_key_and_recomputation_changes_nothing(recompute):
    model = create_model("pmt_vit_tiny", 5, dropout=0.2, drop_path=0.2, **_tiny()).set_train()
    model.base.recompute_blocks = recompute
    pixels, key = Tensor(images(8)), Tensor(step_key(0, 7))
    weights = model.trainable_params()
    gradients = ms.value_and_grad(lambda x: model(x, None, key)[0].sum(), None, weights)
    value, first = gradients(pixels)
    _, second = gradients(pixels)
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(first, second, strict=True))
    model.base.recompute_blocks = not recompute
    other_value, other = gradients(pixels)
    assert value.asnumpy() == other_value.asnumpy()
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(first, other, strict=True))


def _tiny():
    return {"image_size": (32, 16), "patch_size": 8, "stride": 6, "embed_dim": 16, "depth": 2, "num_heads": 2}


def test_evaluation_gives_unit_features_and_training_logits_and_raw_features():
    model = create_model("pmt_vit_tiny", 5, dropout=0.0, drop_path=0.0, **_tiny())
    assert np.linalg.norm(model(Tensor(images(3))).asnumpy(), axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    logits, features, _ = model.set_train()(Tensor(images(3)))
    assert (logits.shape, features.shape) == ((3, 5), (3, 16))


def test_models_are_made_by_name():
    assert "pmt_vit_base" in list_models()
    with pytest.raises(ValueError, match="pmt_vit_huge"):
        create_model("pmt_vit_huge", 5)


def slow_bilinear(grid, rows, columns):
    """Half-pixel centres, edges clamped, one output value at a time."""
    side = grid.shape[0]
    out = np.zeros((rows, columns, grid.shape[2]))
    for r in range(rows):
        for c in range(columns):
            y = min(max((r + 0.5) * side / rows - 0.5, 0), side - 1)
            x = min(max((c + 0.5) * side / columns - 0.5, 0), side - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
            top = grid[y0, x0] * (1 - x + x0) + grid[y0, x1] * (x - x0)
            bottom = grid[y1, x0] * (1 - x + x0) + grid[y1, x1] * (x - x0)
            out[r, c] = top * (1 - y + y0) + bottom * (y - y0)
    return out


def test_position_embeddings_are_resized_bilinearly_and_keep_the_cls_position():
    embedding = np.random.default_rng(0).standard_normal((1, 1 + 14 * 14, 8)).astype(np.float32)
    resized = resize_position_embedding(embedding, (21, 10))
    assert resized.shape == (1, 211, 8)
    assert np.array_equal(resized[:, :1], embedding[:, :1])
    expected = slow_bilinear(embedding[0, 1:].reshape(14, 14, 8).astype(np.float64), 21, 10)
    assert resized[0, 1:].reshape(21, 10, 8) == pytest.approx(expected, abs=1e-6)


def timm_weights(square=4):
    """A timm state dict for SMALL, with a square position grid and a head to drop."""
    rng = np.random.default_rng(0)
    vit = VisionTransformer(**SMALL)
    held = {timm_name(n): rng.standard_normal(p.shape).astype(np.float32) for n, p in vit.parameters_dict().items()}
    held["pos_embed"] = rng.standard_normal((1, 1 + square * square, 16)).astype(np.float32)
    return held | {"head.weight": np.zeros((10, 16), np.float32), "head.bias": np.zeros(10, np.float32)}


def test_a_timm_file_loads_with_its_positions_resized_and_its_head_dropped(tmp_path):
    held = timm_weights()
    save_file(held, tmp_path / "vit.safetensors")
    vit = VisionTransformer(**SMALL)
    load_pretrained_vit(vit, tmp_path / "vit.safetensors")
    loaded = {timm_name(name): p.asnumpy() for name, p in vit.parameters_dict().items()}
    expected = resize_position_embedding(held["pos_embed"], (5, 2))
    assert np.array_equal(loaded.pop("pos_embed"), expected)
    assert all(np.array_equal(value, held[name]) for name, value in loaded.items())


def test_a_ckpt_made_of_a_timm_file_loads_alike(tmp_path):
    held = timm_weights()
    ms.save_checkpoint([{"name": n, "data": Tensor(v)} for n, v in held.items()], str(tmp_path / "vit.ckpt"))
    vit = VisionTransformer(**SMALL)
    load_pretrained_vit(vit, tmp_path / "vit.ckpt")
    assert np.array_equal(vit.blocks[1].attn.qkv.weight.asnumpy(), held["blocks.1.attn.qkv.weight"])


def test_weights_that_do_not_fit_are_all_named_and_nothing_is_set(tmp_path):
    held = timm_weights()
    held["extra"] = held.pop("norm.weight")
    held["cls_token"] = np.zeros((1, 1, 8), np.float32)
    save_file(held, tmp_path / "vit.safetensors")
    vit = VisionTransformer(**SMALL)
    before = vit.norm.beta.asnumpy().copy()
    with pytest.raises(InputError, match=r"cls_token is \(1, 1, 8\).*extra is not.*norm\.weight is missing"):
        load_pretrained_vit(vit, tmp_path / "vit.safetensors")
    assert np.array_equal(vit.norm.beta.asnumpy(), before)

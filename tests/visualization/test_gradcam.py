"""Grad-CAM: a planted classifier's patch lights up, in a ViT and in a ResNet, and the map lies where the patch is."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.models import create_model
from ms_vireid.models.base import ReIDModel
from ms_vireid.visualization.maps import Decoded, at_pixels, draw_gradcam, gradcam, output_of, overlay

SIZE = (96, 48)
PATCH = (slice(48, 78), slice(16, 30))  # rows and columns of the bright patch
CENTRE = (63, 23)


def picture(modality="visible"):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[PATCH] = 255
    return Decoded(pixels, modality, "planted.png")


def set_to(parameter, *index, value=1.0):
    """All zeros, but for `value` at the index, if one is given."""
    held = np.zeros(parameter.shape, np.float32)
    if index:
        held[index] = value
    parameter.set_data(Tensor(held))


def planted_vit():
    """Channel 0 of a token is its patch's brightness, attention is even, and identity 1 likes channel 0 of the CLS.

    Channel 1 is constant: a LayerNorm would take the scale of a single channel away.
    """
    model = create_model(
        "pmt_vit_tiny", 3, SIZE, patch_size=16, stride=12, embed_dim=8, num_heads=1, depth=1, dropout=0.0, drop_path=0.0
    )
    model.set_train(False)
    for name, parameter in model.parameters_and_names():
        if "norm" not in name and "bottleneck" not in name:
            set_to(parameter)
    base = model.base
    set_to(base.patch_embed.proj.weight, 0, value=1 / (3 * 16 * 16))
    base.patch_embed.proj.bias.set_data(Tensor(np.array([2.2, 1, 0, 0, 0, 0, 0, 0], np.float32)))  # black is -2.1
    set_to(base.cls_token, 0, 0, 1)
    block = base.blocks[0]
    everything = np.arange(8)
    set_to(block.attn.qkv.weight, 16 + everything, everything)  # the values are the tokens themselves
    set_to(block.attn.proj.weight, everything, everything)
    set_to(model.classifier.weight, 1, 0)
    return model


def planted_resnet(family="agw_resnet50"):
    """Channel 0 is the brightness all the way to the last map, and identity 1 likes it."""
    own = {"ratios": (2, 3)} if family.startswith("mun") else {"non_local": (0, 1, 1, 0)}
    model = create_model(family, 3, SIZE, layers=(1, 1, 1, 1), width=4, **own)
    model.set_train(False)
    for name, parameter in model.parameters_and_names():
        if "conv" in name or "downsample.0" in name or "classifier" in name:
            set_to(parameter)
        if name.endswith("conv1.weight") and ("stem" in name or (name.count(".") == 2 and "_stage" in name)):
            set_to(parameter, 0, slice(None), 3, 3)
        if name.endswith("downsample.0.weight"):
            set_to(parameter, 0, 0)
        if "classifier" in name:
            set_to(parameter, 1, 0)
    return model


@pytest.mark.parametrize("make", [planted_vit, planted_resnet, lambda: planted_resnet("mun_resnet50")])
@pytest.mark.parametrize("relative", [False, True])
def test_the_patch_that_the_classifier_likes_is_lit(make, relative):
    heat = gradcam(make(), picture(), relative=relative)
    assert (heat.shape, heat.dtype) == (SIZE, np.float32)
    assert (heat.min(), heat.max()) == (0, 1)
    lit = np.argwhere(heat > 0.5)
    assert np.abs(lit.mean(axis=0) - CENTRE).max() < 6, lit.mean(axis=0)  # half a patch
    assert heat[PATCH].mean() > 4 * heat[:36].mean()


@pytest.mark.parametrize("family", ["pmt_vit_tiny", "agw_resnet50"])
def test_the_map_of_a_similarity_depends_on_the_reference(family):
    vit = {"embed_dim": 16, "num_heads": 2, "depth": 2}
    sizes = vit if family.startswith("pmt") else {"layers": (1, 1, 1, 1), "width": 4, "non_local": (0, 1, 1, 0)}
    model = create_model(family, 3, SIZE, **sizes)
    model.set_train(False)
    rng = np.random.default_rng(0)
    one, other = (Decoded(rng.integers(0, 256, (*SIZE, 3), np.uint8), m, "") for m in ("visible", "infrared"))
    heat = gradcam(model, one, other, relative=True)
    assert np.isfinite(heat).all()
    assert heat.max() == 1
    assert np.array_equal(heat, gradcam(model, one, other, relative=True))
    assert not np.allclose(heat, gradcam(model, one, one, relative=True))  # another reference


def test_a_vits_tokens_go_back_to_the_grid_of_256x128():
    model = create_model("pmt_vit_tiny", 3, embed_dim=8, num_heads=1, depth=1)
    tokens = np.arange(1 + 210, dtype=np.float32)[None, :, None] * np.ones((1, 1, 8), np.float32)
    maps = model.as_maps(tokens)
    assert maps.shape == (1, 8, 21, 10)
    assert maps[0, 3, 2, 5] == 1 + 2 * 10 + 5
    spot = np.zeros((21, 10))
    spot[4, 7] = 1
    there = np.argwhere(at_pixels(model, spot, (256, 128)) > 0.9)
    assert there.mean(axis=0) == pytest.approx([8 + 4 * 12 - 0.5, 8 + 7 * 12 - 0.5])  # the middle of the patch


def test_a_network_that_does_not_say_its_path_has_no_maps():
    with pytest.raises(InputError, match=r"ReIDModel defines no path, which feature maps and ONNX need: define it"):
        gradcam(ReIDModel(), picture())


def test_a_hook_leaves_nothing_behind():
    model = planted_resnet()
    images = picture().batch
    before = model(images, "visible").asnumpy()
    gradcam(model, picture())
    assert output_of(model.pool, lambda: model(images, "visible")).shape == (1, 128)
    assert np.array_equal(model(images, "visible").asnumpy(), before)
    assert ms.get_context("mode") == ms.PYNATIVE_MODE


@pytest.mark.parametrize("reference", [None, picture("infrared")])
def test_the_figure_has_a_panel_for_each_picture_and_map(reference):
    heats = [[np.zeros(SIZE), np.ones(SIZE)], [np.ones(SIZE), np.zeros(SIZE)]]
    figure = draw_gradcam([[picture(), picture()]] * 2, heats, ["one", "two"], reference)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 2 + 2 * 2 + (reference is not None)
    assert {axes.get_ylabel() for axes in shown} >= {"one", "two"}


def test_an_overlay_is_the_picture_in_gray_under_the_map():
    pixels = np.full((4, 2, 3), (30, 60, 120), np.uint8)
    heat = np.zeros((4, 2), np.float32)
    heat[1, 1] = 1
    shown = overlay(Decoded(pixels, "visible", ""), heat)
    assert (shown.shape, shown.dtype) == (pixels.shape, np.uint8)
    assert shown[0, 0].tolist() == [49, 49, 50]  # 0.7 of the gray 70, and inferno's nearly black beginning
    assert shown[1, 1].tolist() == [197, 199, 136]  # 0.3 of it, and 0.7 of inferno's end, (252, 255, 164)

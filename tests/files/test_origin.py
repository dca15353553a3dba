"""What is said of a file of ImageNet weights: by its content's SHA-256, its name, what lies beside it, its numbers."""

import hashlib
import json

import numpy as np
import pytest
import torch

from ms_vireid.files import origin
from ms_vireid.files.origin import identity, names_of, signs
from parity.oracles import timm, torchvision


def smooth(shape):
    """Numbers whose neighbours are alike, as trained filters'."""
    return np.random.default_rng(0).standard_normal(shape).cumsum(-1)


@pytest.fixture(scope="module")
def vit():
    held = timm.create_model("vit_base_patch16_224", depth=1).state_dict()
    return {name: value.numpy() for name, value in held.items()}


@pytest.fixture(scope="module")
def resnet():
    return {name: value.numpy() for name, value in torchvision.models.resnet50().state_dict().items()}


def as_trained(arrays, first, scale):
    return arrays | {first: smooth(arrays[first].shape), scale: np.full_like(arrays[scale], 0.9)}


@pytest.fixture
def trained_vit(vit):
    return as_trained(vit, "patch_embed.proj.weight", "norm.weight")


@pytest.fixture
def trained_resnet(resnet):
    return as_trained(resnet, "conv1.weight", "layer1.0.bn1.weight")


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path, monkeypatch):
    path = tmp_path / "any.pth"
    path.write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    assert identity(path, "ViT").startswith(
        f"not known by its SHA-256 ({digits}); the recipe's file is jx_vit_base_p16"
    )
    monkeypatch.setitem(origin._FILES, digits, ("deit.pth", "deit_base_patch16_224.fb_in1k"))
    assert identity(path, "ViT").startswith(
        "is deit.pth by its SHA-256; the recipe's file is jx_vit_base_p16_224-80ecf"
    )
    monkeypatch.setitem(origin._RECIPES, "ResNet", ("0676ba61", digits))
    assert identity(path, "ResNet") == "the recipe's file, deit.pth, by its SHA-256"


def test_a_name_with_digits_is_held_to_them(tmp_path):
    digest = hashlib.sha256(b"weights").hexdigest()
    for digits, said in (
        (digest[:8], "whole by its SHA-256; the recipe's file is resnet50-0676ba61.pth (timm's resnet50.tv_in1k)"),
        (digest, "whole by its SHA-256"),
        ("0676ba61", f"its name promises the SHA-256 0676ba61, it has {digest[:8]}: damaged or changed"),
    ):
        path = tmp_path / f"resnet50-{digits}.pth"
        path.write_bytes(b"weights")
        assert identity(path, "ResNet").startswith(said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "vit_base_patch16_224", "pretrained_cfg": {"tag": "augreg2_in21k_ft_in1k"}},
         "timm's vit_base_patch16_224.augreg2_in21k_ft_in1k by the config.json beside it; the recipe's file is"),
        ({"architecture": "resnet50", "pretrained_cfg": {}}, "timm's resnet50 by"),
        ({"model_type": "vit"}, "not known by"),
        ([], "not known by"),
        ({"architecture": "a", "pretrained_cfg": 3}, "not known by"),
    ],
)  # fmt: skip
def test_the_hubs_config_beside_a_file_is_read(tmp_path, config, said):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert identity(tmp_path / "model.safetensors", "ViT").startswith(said)


def test_nothing_is_said_of_numbers_that_could_be_the_recipes(trained_vit, trained_resnet):
    assert signs(trained_vit, "ViT") == signs(trained_resnet, "ResNet") == []


@pytest.mark.parametrize("network", ["ViT", "ResNet"])
def test_weights_before_training_are_told(request, network):
    scales, neighbours = signs(request.getfixturevalue(network.lower()), network)
    assert scales.endswith("was it ever trained?")
    assert neighbours.startswith("neighbouring weights of its first layer are not correlated")


@pytest.mark.parametrize(("errors", "told"), [(3.9, True), (4.1, False)])
def test_neighbours_are_correlated_from_four_standard_errors_on(trained_resnet, errors, told):
    pairs = 64 * 150
    left, apart = np.ones(pairs), np.tile([1.0, -1.0], pairs // 2)  # not correlated
    correlation = errors / np.sqrt(pairs)
    right = correlation * left + np.sqrt(1 - correlation**2) * apart
    held = trained_resnet | {"conv1.weight": np.stack([left, right], -1).reshape(64, 150, 1, 2)}
    assert any("are not correlated" in line for line in signs(held, "ResNet")) == told


def test_another_head_and_another_grid_are_told(trained_vit):
    head = {"head.weight": np.zeros((21_843, 768))}
    assert signs(trained_vit | head, "ViT") == ["has 21,843 classes, ImageNet-1k 1,000"]
    bare = {name: value for name, value in trained_vit.items() if not name.startswith("head.")}
    for body in (bare, bare | {"head.weight": np.array(1.0)}):
        assert signs(body, "ViT") == ["has no classifier: self-supervised (DINO, MAE), or a body alone"]
    (line,) = signs(trained_vit | {"pos_embed": np.zeros((1, 577, 768))}, "ViT")
    assert line.startswith("has 577 position embeddings")


@pytest.mark.parametrize(("scale", "told"), [(1, False), (255, True)])
def test_the_range_of_the_pixels_is_told_by_what_batchnorm_has_seen(trained_resnet, scale, told):
    """Pictures of one colour are the extreme: their pixels are all alike."""
    pixels = torch.rand(8, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(8, 3, 32, 32)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen = pixels * scale if told else (pixels - mean) / deviation
    weight = torch.from_numpy(trained_resnet["conv1.weight"]).float()
    response = torch.nn.functional.conv2d(seen, weight, stride=2, padding=3)
    variance = {"bn1.running_var": response.var((0, 2, 3)).numpy()}
    assert any("beyond the normalised range" in line for line in signs(trained_resnet | variance, "ResNet")) == told


@pytest.mark.parametrize(
    ("names", "network", "said"),
    [
        (["visual.conv1.weight"], "ViT", "its names are CLIP's; "),
        (["module.visual.conv1.weight"], "ViT", "its names are CLIP's; "),
        (["patch_embed.proj.weight", "dist_token"], "ViT", "its names are a distilled DeiT's; "),
        (["patch_embed.proj.weight"], "ViT", ""),
        (["patch_embed.proj.weight"], "ResNet", "its names are timm's ViT; "),
        (["layer1.0.conv1.weight"], "ViT", "its names are torchvision's ResNet; "),
    ],
)
def test_whose_names_do_not_fit(names, network, said):
    assert names_of(names, network) == said


def test_public_files_have_their_digits_in_their_names():
    assert all(f"-{digits}.pth" in name for digits, (name, _) in origin._FILES.items())


def test_timm_and_torchvision_call_these_files_so():
    urls = {tag: timm.get_pretrained_cfg(tag).url or "" for _, tag in origin._FILES.values()}
    named = {tag: name for name, tag in origin._FILES.values() if name != "resnet50-19c8e357.pth"}
    differing = {tag for tag, name in named.items() if not urls[tag].endswith(name)}
    assert differing <= {"vit_base_patch16_224.orig_in21k"}  # whose address timm keeps in a comment alone

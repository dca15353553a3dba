"""What is said of a file of ImageNet weights: by its content's SHA-256, its name, what lies beside it, its shapes."""

import hashlib
import json

import numpy as np
import pytest

from ms_vireid.files import origin
from ms_vireid.files.origin import identity, names_of, signs
from parity.oracles import timm, torchvision


@pytest.fixture(scope="module")
def vit():
    held = timm.create_model("vit_base_patch16_224", depth=1).state_dict()
    return {name: value.numpy() for name, value in held.items()} | {"norm.weight": np.full(768, 0.9)}


@pytest.fixture(scope="module")
def resnet():
    held = {name: value.numpy() for name, value in torchvision.models.resnet50().state_dict().items()}
    return held | {"layer1.0.bn1.weight": np.full(64, 0.9)}


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path, monkeypatch):
    path = tmp_path / "any.pth"
    path.write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    assert identity(path, "ViT").startswith(
        f"not known by its SHA-256 ({digits}); the recipe's file is jx_vit_base_p16"
    )
    monkeypatch.setitem(origin._FILES["ResNet"], digits, "another.pth")
    assert identity(path, "ResNet") == "the recipe's file, another.pth, by its SHA-256"


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


def test_the_config_that_timm_writes_beside_a_file_is_read(tmp_path):
    model = timm.create_model("vit_base_patch16_224.augreg2_in21k_ft_in1k", depth=1)
    timm.models._hub.save_config_for_hf(model, tmp_path / "config.json")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    said = "timm's vit_base_patch16_224.augreg2_in21k_ft_in1k by the config.json beside it; the recipe's file is"
    assert identity(tmp_path / "model.safetensors", "ViT").startswith(said)


@pytest.mark.parametrize("config", [{"model_type": "vit"}, [], {"architecture": "a", "pretrained_cfg": 3}])
def test_a_config_of_another_kind_is_passed_over(tmp_path, config):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert identity(tmp_path / "model.safetensors", "ViT").startswith("not known by")


def test_nothing_is_said_of_numbers_that_could_be_the_recipes(vit, resnet):
    assert signs(vit, "ViT") == signs(resnet, "ResNet") == []


def test_weights_before_training_are_told():
    for network, model in (
        ("ViT", timm.create_model("vit_tiny_patch16_224")),
        ("ResNet", timm.create_model("resnet50")),
    ):
        (line,) = signs({name: value.numpy() for name, value in model.state_dict().items()}, network)
        assert line.endswith("was it ever trained?")


def test_another_head_and_another_grid_are_told(vit):
    head = {"head.weight": np.zeros((21_843, 768))}
    assert signs(vit | head, "ViT") == ["has 21,843 classes, ImageNet-1k 1,000"]
    bare = {name: value for name, value in vit.items() if not name.startswith("head.")}
    for body in (bare, bare | {"head.weight": np.array(1.0)}):
        assert signs(body, "ViT") == ["has no classifier: self-supervised, or a body alone"]
    (line,) = signs(vit | {"pos_embed": np.zeros((1, 577, 768))}, "ViT")
    assert line.startswith("has 577 position embeddings")


OTHERS = {
    "a distilled DeiT's": lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
    "DINOv2's": lambda: timm.create_model("vit_small_patch14_dinov2", depth=1, img_size=28),
    "BEiT's": lambda: timm.create_model("beit_base_patch16_224", depth=1),
    "torchvision's ViT": lambda: torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8),
}


def test_whose_names_do_not_fit(vit, resnet):
    for whose, build in OTHERS.items():
        names = list(build().state_dict())
        assert (
            names_of(names, "ViT") == names_of([f"module.{n}" for n in names], "ResNet") == f"its names are {whose}; "
        )
    assert names_of(vit, "ViT") == names_of(resnet, "ResNet") == names_of(["a"], "ViT") == ""
    assert names_of(vit, "ResNet") == "its names are timm's ViT; "
    assert names_of(resnet, "ViT") == "its names are torchvision's ResNet; "
    assert len(OTHERS) + 2 == len(origin._FOREIGN)


def test_timm_calls_the_recipes_files_so():
    urls = {
        tag: timm.get_pretrained_cfg(tag).url for tag in ("resnet50.tv_in1k", "vit_base_patch16_224.orig_in21k_ft_in1k")
    }
    for tag, url in urls.items():
        (said,) = (f for files in origin._FILES.values() for f in files.values() if f.endswith(f"(timm's {tag})"))
        assert url.endswith(said.partition(" ")[0])
    for files in origin._FILES.values():
        assert all(f"-{digits}.pth " in said for digits, said in files.items())

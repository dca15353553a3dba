"""The converter on files of others: recognised by their names, and the features are those of both frameworks and of
the library that the file comes from, within 1e-5 of their scale."""

import re

import mindspore as ms
import numpy as np
import pytest
import torch
from torch.nn import functional

from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MINDSPORE
from ms_vireid.config import CONFIG_ROOT
from ms_vireid.engine.checkpoint import load_checkpoint as load_mindspore
from ms_vireid.models import build_model
from parity.oracles import timm_vit, torchvision
from tests.parity.convert_cases import (
    SMALL,
    assert_equal,
    convert,
    images_of,
    ms_features,
    random_state_dict,
    read,
    recipe,
    torch_features,
    worst,
)
from torch_ref.models import ResNet
from torch_ref.models import build_model as build_torch_model

FORWARD = 1e-5
CLASSES = 11


def original(model, *overrides):
    config = recipe(model, f"model.num_classes={CLASSES}", *overrides)
    module = build_torch_model(config)
    module.load_state_dict(random_state_dict(module))
    return config, module


def pmt_release(module):
    """As the authors save it: the names are ours, in their order; some of their versions have a head left over."""
    weights = module.state_dict()
    order = ("base.", "classifier.", "bottleneck.")
    weights = {name: value for start in order for name, value in weights.items() if name.startswith(start)}
    return weights | {"base.fc.weight": torch.zeros(1000, 16), "base.fc.bias": torch.zeros(1000)}


def agw_baseline(module, config, g=".g.0."):
    """As the AGW baseline names it: three whole ResNets, and `g` a list of one layer."""
    spare = {
        name: torch.full_like(value, 9)
        for name, value in ResNet(config.model.layers, config.model.width).state_dict().items()
    }
    names = {"visible_stem.": "visible_module.visible.", "infrared_stem.": "thermal_module.thermal."}
    names |= {"base.": "base_resnet.base.", "non_local_2.": "NL_2.", "non_local_3.": "NL_3."}
    weights = {new + name: value for new in list(names.values())[:3] for name, value in spare.items()}
    for name, value in module.state_dict().items():
        start = next((start for start in names if name.startswith(start)), "")
        renamed = names.get(start, "") + name.removeprefix(start)
        weights[renamed.replace(".g.", g) if renamed.startswith("NL_") else renamed] = value
    return weights


def assert_features(config, module, path):
    """Of the converted file through ms_vireid, against the model that the file was made from."""
    images = images_of(config)
    for modality in ("visible", "infrared"):
        assert worst(ms_features(path, images, modality), torch_features(module, images, modality)) < FORWARD


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net", "model_state"])
def test_the_authors_pmt(monkeypatch, capsys, tmp_path, prefix, wrapper):
    config, module = original("pmt")
    weights = {prefix + name: value for name, value in pmt_release(module).items()}
    torch.save({wrapper: weights, "epoch": 24} if wrapper else weights, tmp_path / "SYSU_best.pth")
    convert(monkeypatch, tmp_path / "SYSU_best.pth", tmp_path / "pmt.safetensors", *SMALL["pmt"])
    printed = capsys.readouterr().out
    assert f"{3 if wrapper else 2} dropped" in printed
    assert load_mindspore(tmp_path / "pmt.safetensors").meta["config"]["model"]["num_classes"] == CLASSES
    assert_features(config, module, tmp_path / "pmt.safetensors")


@pytest.mark.parametrize("g", [".g.0.", ".g."])
@pytest.mark.parametrize("width", [1, 4])
def test_the_agw_baseline(monkeypatch, capsys, tmp_path, g, width):
    config, module = original("agw", f"model.non_local_width={width}")
    state = {"net": agw_baseline(module, config, g), "cmc": np.linspace(0.4, 1, 20), "mAP": np.float64(0.4), "epoch": 9}
    torch.save(state, tmp_path / "sysu_agw_best.t")
    convert(monkeypatch, tmp_path / "sysu_agw_best.t", tmp_path / "ours.pth", "--dry-run", *SMALL["agw"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "visible_module.visible.conv1.weight [8, 3, 7, 7] visible_stem.conv1.weight [8, 3, 7, 7] renamed" in lines
    assert f"NL_2.0{g}bias [{width}] non_local_2.0.g.bias [{width}] renamed" in lines
    assert "base_resnet.base.conv1.weight [8, 3, 7, 7] dropped: of this ResNet only layer1 to layer4 are run" in lines
    assert "cmc numpy.core.multiarray._reconstruct dropped: no weights" in lines
    convert(monkeypatch, tmp_path / "sysu_agw_best.t", tmp_path / "agw.safetensors", *SMALL["agw"])
    assert_features(config, module, tmp_path / "agw.safetensors")
    convert(monkeypatch, tmp_path / "agw.safetensors", tmp_path / "agw.pth")
    assert_equal(read(tmp_path / "agw.pth").weights, module.state_dict())


@pytest.mark.parametrize("model", ["pmt", "agw"])
def test_a_plain_state_dict_of_torch_ref(monkeypatch, tmp_path, model):
    config, module = original(model)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.safetensors", *SMALL[model])
    assert_features(config, module, tmp_path / "a.safetensors")


VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
VIT_OPTIONS = [f"model.{key}={value}" for key, value in VIT.items()] + ["model.mlp_ratio=4"]


def timm_file(path):
    """timm's own ViT for 32x32 pixels, 4x4 patches, with ImageNet's head."""
    vit = timm_vit((32, 32), stride=8, **VIT).eval()
    vit.load_state_dict(random_state_dict(vit))
    torch.save(vit.state_dict() | {"head.weight": torch.zeros(10, 16), "head.bias": torch.zeros(10)}, path)
    return vit


def direct(positions, source, grid):
    """A position embedding resized by PyTorch, from the grid that it has."""
    held = positions[:, 1:].reshape(1, *source, -1).permute(0, 3, 1, 2)
    held = functional.interpolate(held, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :1], held.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)], dim=1)


def backbone_features(suffix, path, options, images):
    """Of the ViT in a model that starts from `path`."""
    config = recipe("pmt", *options, f"model.pretrained={path}")
    if suffix == ".pth":
        base = build_torch_model(config).base.eval()
        with torch.no_grad():
            return base(torch.from_numpy(images)).numpy()
    base = build_model(config).base
    base.set_train(False)
    return base(ms.Tensor(images)).asnumpy()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pth"])
@pytest.mark.parametrize(("size", "stride", "grid"), [((32, 32), 8, (4, 4)), ((40, 24), 6, (6, 3))])
def test_timm_s_vit_at_its_own_size_and_with_overlapping_patches(
    monkeypatch, capsys, tmp_path, suffix, size, stride, grid
):
    vit = timm_file(tmp_path / "vit.pth")
    options = [*VIT_OPTIONS, f"data.image_size={list(size)}", f"model.stride={stride}"]
    convert(monkeypatch, tmp_path / "vit.pth", tmp_path / f"base{suffix}", "--dry-run", *options)
    assert ("resized 4x4 -> 6x3" in capsys.readouterr().out) is (grid != (4, 4))
    convert(monkeypatch, tmp_path / "vit.pth", tmp_path / f"base{suffix}", *options)

    weights = vit.state_dict()
    resized = timm_vit(size, stride=stride, **VIT).eval()
    resized.load_state_dict(weights | {"pos_embed": direct(weights["pos_embed"], (4, 4), grid)})
    images = np.random.default_rng(5).normal(size=(3, 3, *size)).astype(np.float32)
    with torch.no_grad():
        theirs = resized(torch.from_numpy(images)).numpy()
    assert worst(backbone_features(suffix, tmp_path / f"base{suffix}", options, images), theirs) < FORWARD


def mindspore_file(path, weights, renamed):
    """A .ckpt of PyTorch's weights under other names: patterns with what replaces them, in order."""
    arrays = {}
    for name, value in weights.items():
        for pattern, new in renamed.items():
            name = re.sub(pattern, new, name)
        if not name.endswith("num_batches_tracked"):
            arrays[name] = value.numpy()
    write_checkpoint(path, arrays, {}, MINDSPORE)


MINDCV_RESNET = {
    r"(bn\d|downsample\.1)\.weight": r"\1.gamma",
    r"(bn\d|downsample\.1)\.bias": r"\1.beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    "downsample": "down_sample",
    "^fc": "classifier",
}
MINDCV_VIT = {
    r"(norm\d?)\.weight": r"\1.gamma",
    r"(norm\d?)\.bias": r"\1.beta",
    r"^blocks\.(\d)\.norm1": r"transformer.layers.\1.0.cell.0",
    r"^blocks\.(\d)\.attn\.qkv": r"transformer.layers.\1.0.cell.1.qkv",
    r"^blocks\.(\d)\.attn\.proj": r"transformer.layers.\1.0.cell.1.out",
    r"^blocks\.(\d)\.norm2": r"transformer.layers.\1.1.cell.0",
    r"^blocks\.(\d)\.mlp\.fc": r"transformer.layers.\1.1.cell.1.dense",
    r"^patch_embed\.proj": "patch_embedding.conv",
    r"^cls_token": "cls",
    r"^pos_embed$": "pos_embedding",
    r"^(?!head)": "backbone.",
    "^head": "head.classifier",
}


HUGGING_FACE_VIT = {
    r"^blocks\.(\d)\.norm1": r"encoder.layer.\1.layernorm_before",
    r"^blocks\.(\d)\.attn\.(query|key|value)": r"encoder.layer.\1.attention.attention.\2",
    r"^blocks\.(\d)\.attn\.proj": r"encoder.layer.\1.attention.output.dense",
    r"^blocks\.(\d)\.norm2": r"encoder.layer.\1.layernorm_after",
    r"^blocks\.(\d)\.mlp\.fc1": r"encoder.layer.\1.intermediate.dense",
    r"^blocks\.(\d)\.mlp\.fc2": r"encoder.layer.\1.output.dense",
    r"^norm": "layernorm",
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^cls_token": "embeddings.cls_token",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^(?!head)": "vit.",
    "^head": "classifier",
}
HUGGING_FACE_VIT_5 = HUGGING_FACE_VIT | {
    r"^blocks\.(\d)\.norm1": r"layers.\1.layernorm_before",
    r"^blocks\.(\d)\.attn\.(query|key|value)": lambda found: f"layers.{found[1]}.attention.{found[2][0]}_proj",
    r"^blocks\.(\d)\.attn\.proj": r"layers.\1.attention.o_proj",
    r"^blocks\.(\d)\.norm2": r"layers.\1.layernorm_after",
    r"^blocks\.(\d)\.mlp\.fc1": r"layers.\1.mlp.fc1",
    r"^blocks\.(\d)\.mlp\.fc2": r"layers.\1.mlp.fc2",
}
HUGGING_FACE_RESNET = {
    r"^conv1": "embedder.embedder.convolution",
    r"^bn1": "embedder.embedder.normalization",
    r"\.downsample\.0": ".shortcut.convolution",
    r"\.downsample\.1": ".shortcut.normalization",
    r"\.conv(\d)": lambda found: f".layer.{int(found[1]) - 1}.convolution",
    r"\.bn(\d)": lambda found: f".layer.{int(found[1]) - 1}.normalization",
    r"^layer(\d)\.(\d)": lambda found: f"encoder.stages.{int(found[1]) - 1}.layers.{found[2]}",
    r"^(?!fc)": "resnet.",
    "^fc": "classifier.1",
}


def split(weights):
    """A ViT's query, key and value as weights of their own."""
    for name, value in weights.items():
        if ".qkv." not in name:
            yield name, value
            continue
        for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
            yield name.replace("qkv", part), rows


@pytest.mark.parametrize(
    ("model", "renamed"),
    [
        ("pmt", MINDCV_VIT),
        ("agw", MINDCV_RESNET),
        ("pmt", HUGGING_FACE_VIT),
        ("pmt", {r"(norm\d?)\.weight": r"\1.gamma", r"(norm\d?)\.bias": r"\1.beta"} | HUGGING_FACE_VIT),
        ("pmt", HUGGING_FACE_VIT_5),
        ("agw", HUGGING_FACE_RESNET),
    ],
    ids=["mindcv", "mindcv's ResNet", "mindone", "mindone before mint", "transformers 5", "mindone's ResNet"],
)
def test_names_of_other_libraries_are_those_of_timm_and_torchvision(monkeypatch, tmp_path, model, renamed):
    if model == "pmt":
        timm_file(tmp_path / "theirs.pth")
        options = [*VIT_OPTIONS, "data.image_size=[40,24]", "model.stride=6"]
    else:
        resnet_file(tmp_path / "theirs.pth")
        options = RESNET_OPTIONS
    weights = torch.load(tmp_path / "theirs.pth", weights_only=True)
    if renamed not in (MINDCV_VIT, MINDCV_RESNET):
        weights = dict(split(weights))
    mindspore_file(tmp_path / "other.ckpt", weights, renamed)
    held, models = [], []
    for name in ("theirs.pth", "other.ckpt"):
        target = tmp_path / f"{name}.safetensors"
        convert(monkeypatch, tmp_path / name, target, "--to", "pytorch", *options)
        held.append({n: v for n, v in read(target).weights.items() if not n.endswith("num_batches_tracked")})
        models.append(build_model(recipe(model, *options, f"model.pretrained={tmp_path / name}")))
    assert_equal(*held)
    for one, other in zip(*(built.get_parameters() for built in models), strict=True):
        assert np.array_equal(one.asnumpy(), other.asnumpy()), one.name


def pos_embed(model):
    """The position embedding of a model in either framework."""
    value = model.base.pos_embed
    return value.asnumpy() if isinstance(value, ms.Parameter) else value.detach().numpy()


@pytest.mark.parametrize(
    ("source", "stated", "said"),
    [
        ((16, 8), True, None),
        ((16, 4), True, None),  # 64 = 8x8
        ((18, 8), True, None),  # 144 = 12x12
        ((8, 8), False, "taken as 8x8 patches; model.pretrained_grid overrides this"),
        ((3, 6), True, None),  # as many as the model's 6x3
    ],
)
def test_positions_of_every_grid_become_the_model_s(monkeypatch, capsys, caplog, tmp_path, source, stated, said):
    vit = timm_file(tmp_path / "vit.pth")
    held = torch.load(tmp_path / "vit.pth", weights_only=True)
    positions = torch.randn(1, 1 + source[0] * source[1], 16, generator=torch.Generator().manual_seed(0))
    torch.save(held | {"pos_embed": positions}, tmp_path / "vit.pth")
    options = [*VIT_OPTIONS, "data.image_size=[40,24]", "model.stride=6"]  # 6x3 patches
    options += [f"model.pretrained_grid={list(source)}"] if stated else []
    expected = direct(positions, source, (6, 3)).numpy()
    convert(monkeypatch, tmp_path / "vit.pth", tmp_path / "base.safetensors", *options)
    assert "1 resized" in capsys.readouterr().out
    assert [said in line for line in caplog.messages if "positions are" in line] == ([True] if said else [])
    config = recipe("pmt", *options, f"model.pretrained={tmp_path / 'vit.pth'}")
    converted = recipe("pmt", *options[:7], f"model.pretrained={tmp_path / 'base.safetensors'}")
    assert "pretrained_grid" not in load_mindspore(tmp_path / "base.safetensors").meta["config"]["model"]
    for model in (build_model(config), build_torch_model(config), build_model(converted)):
        assert pos_embed(model) == pytest.approx(expected, abs=1e-5)  # float32 of values up to 4
    assert vit.pos_embed.shape[1] == 17


def test_a_converted_backbone_s_grid_is_known_by_its_configuration(monkeypatch, caplog, tmp_path):
    timm_file(tmp_path / "vit.pth")
    size = ["data.image_size=[128,32]", "model.stride=8"]  # 16x4 patches: 64, a square as well
    convert(monkeypatch, tmp_path / "vit.pth", tmp_path / "base.safetensors", *VIT_OPTIONS, *size)
    positions = torch.from_numpy(load_mindspore(tmp_path / "base.safetensors").arrays["pos_embed"])
    caplog.clear()
    options = [*VIT_OPTIONS, "data.image_size=[40,24]", "model.stride=6"]
    model = build_model(recipe("pmt", *options, f"model.pretrained={tmp_path / 'base.safetensors'}"))
    assert pos_embed(model) == pytest.approx(direct(positions, (16, 4), (6, 3)).numpy(), abs=1e-5)
    assert not [line for line in caplog.messages if "positions are" in line]


def test_a_grid_that_does_not_fit_is_refused_and_so_is_one_of_a_whole_model(monkeypatch, tmp_path):
    timm_file(tmp_path / "vit.pth")
    options = [*VIT_OPTIONS, "data.image_size=[40,24]", "model.stride=6", "model.pretrained_grid=[5,4]"]
    with pytest.raises(InputError, match=r"model.pretrained_grid: 5x4 are 20 patches, it has 16 positions"):
        convert(monkeypatch, tmp_path / "vit.pth", tmp_path / "base.safetensors", *options)
    assert not (tmp_path / "base.safetensors").exists()
    torch.save(original("pmt")[1].state_dict(), tmp_path / "pmt.pth")
    config = recipe("pmt", "model.pretrained_grid=[6,3]", f"model.pretrained={tmp_path / 'pmt.pth'}")
    for build in (build_model, build_torch_model):
        with pytest.raises(InputError, match=r"is a whole model, .*; leave model.pretrained_grid out"):
            build(config)


MODEL_ZOO_RESNET = {r"\.downsample\.": ".down_sample_layer.", "^fc": "end_point"}


@pytest.mark.parametrize("build", [build_model, build_torch_model])
def test_the_resnet_of_mindspore_s_model_zoo_is_refused_and_mindcv_s_is_said_to_differ(
    monkeypatch, caplog, tmp_path, build
):
    resnet_file(tmp_path / "resnet.pth")
    weights = torch.load(tmp_path / "resnet.pth", weights_only=True)
    renamed = {k: v for k, v in MINDCV_RESNET.items() if k not in ("downsample", "^fc")}
    mindspore_file(tmp_path / "zoo.ckpt", weights, renamed | MODEL_ZOO_RESNET)
    line = r"is the ResNet-50 of MindSpore's model zoo: its shapes fit, but it pads as 'same' .*eps is 1e-4"
    with pytest.raises(InputError, match=line):
        convert(monkeypatch, tmp_path / "zoo.ckpt", tmp_path / "base.safetensors", *RESNET_OPTIONS)
    assert not (tmp_path / "base.safetensors").exists()
    with pytest.raises(InputError, match=line):
        build(recipe("agw", *RESNET_OPTIONS, f"model.pretrained={tmp_path / 'zoo.ckpt'}"))
    mindspore_file(tmp_path / "mindcv.ckpt", weights, MINDCV_RESNET)
    build(recipe("agw", *RESNET_OPTIONS, f"model.pretrained={tmp_path / 'mindcv.ckpt'}"))
    assert "mindcv.ckpt: is mindcv's ResNet-50: mindcv pads its max pooling at the end alone" in caplog.text
    caplog.clear()
    build(recipe("agw", *RESNET_OPTIONS, f"model.pretrained={tmp_path / 'resnet.pth'}"))
    assert "max pooling" not in caplog.text


RESNET_OPTIONS = [*SMALL["agw"], "model.layers=[1,1,1,1]", "model.width=64", "model.last_stride=2"]
RESNET_OPTIONS += ["model.non_local=[0,0,0,0]"]


def resnet_file(path):
    resnet = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10).eval()
    resnet.load_state_dict(random_state_dict(resnet))
    torch.save(resnet.state_dict(), path)
    return resnet


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pth"])
def test_torchvision_s_resnet(monkeypatch, tmp_path, suffix):
    resnet, options = resnet_file(tmp_path / "resnet.pth"), RESNET_OPTIONS
    convert(monkeypatch, tmp_path / "resnet.pth", tmp_path / f"base{suffix}", *options)
    config = recipe("agw", *options, f"model.pretrained={tmp_path / f'base{suffix}'}")
    images = np.random.default_rng(5).normal(size=(2, 3, 64, 32)).astype(np.float32)
    x = torch.from_numpy(images)
    with torch.no_grad():
        theirs = torch.nn.Sequential(*list(resnet.children())[:-2])(x).numpy()
        if suffix == ".pth":
            model = build_torch_model(config).eval()
            ours = [model.base(stem(x)).numpy() for stem in (model.visible_stem, model.infrared_stem)]
        else:
            model = build_model(config)
            model.set_train(False)
            stems = (model.visible_stem, model.infrared_stem)
            ours = [model.base(stem(ms.Tensor(images))).asnumpy() for stem in stems]
    assert all(worst(features, theirs) < FORWARD for features in ours)


def test_a_model_says_which_of_its_parts_a_backbone_s_file_fills(monkeypatch, tmp_path):
    resnet_file(tmp_path / "resnet.pth")
    mun = "--config", CONFIG_ROOT / "mun/sysu.yaml", *SMALL["mun"], "model.width=64"
    convert(monkeypatch, tmp_path / "resnet.pth", tmp_path / "base.safetensors", *mun)
    assert read_checkpoint(tmp_path / "base.safetensors").meta["parts"] == ["visible_stage", "shared"]


REAL = {
    "vit": (
        {"head.weight": (1000, 768), "head.bias": (1000,), "pre_logits.fc.weight": (768, 768)},
        ["pos_embed [1, 197, 768] pos_embed [1, 211, 768] resized 14x14 -> 21x10"],
        "153 keys: 99 copied, 1 resized, 50 renamed, 3 dropped",
    ),
    "resnet": ({}, [], "320 keys: 106 copied, 212 renamed, 2 dropped"),
}


@pytest.mark.parametrize("kind", REAL)
def test_the_libraries_models_at_their_real_shapes(monkeypatch, capsys, tmp_path, kind):
    more, said, count = REAL[kind]
    with torch.device("meta"):
        network = timm_vit((224, 224), 16, 16, 768, 12, 12) if kind == "vit" else torchvision.models.resnet50()
    weights = {name: torch.ones(value.shape, dtype=value.dtype) for name, value in network.state_dict().items()}
    weights |= {name: torch.ones(shape) for name, shape in more.items()}
    torch.save(weights, tmp_path / "theirs.pth")
    convert(monkeypatch, tmp_path / "theirs.pth", tmp_path / "ours.ckpt", "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert set(said) <= set(lines)
    assert lines[-2] == count


def test_the_classifier_gives_the_number_of_classes_unless_another_is_asked_for(monkeypatch, tmp_path):
    _, module = original("pmt")
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"classifier.weight is \[11, 16\], the network's is \[12, 16\]"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.safetensors", *SMALL["pmt"], "model.num_classes=12")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(("model", "title", "asked"), [("pmt", "PMT.*", "agw"), ("agw", "the AGW baseline", "pmt")])
def test_a_file_of_another_model_than_the_recipe_s_is_refused(monkeypatch, tmp_path, model, title, asked):
    config, module = original(model)
    torch.save(module.state_dict() if model == "pmt" else agw_baseline(module, config), tmp_path / "a.pth")
    recipe_of = "--config", CONFIG_ROOT / asked / "sysu.yaml"
    with pytest.raises(InputError, match=f"layout of {title}, the configuration's model is {asked}"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.safetensors", *recipe_of)


def test_names_of_no_known_layout_are_refused(monkeypatch, tmp_path):
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"encoder.weight.*of no known layout"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.safetensors")

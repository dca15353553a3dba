"""Where a file of ImageNet weights comes from, as far as it tells: shapes are the same for many recipes."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.files.checks import file_checksum, read_bytes
from ms_vireid.files.weights import has_checksum

_log = logging.getLogger(__name__)

# Public files of the same shapes, by the first digits of their SHA-256, which their publishers put into their names.
_FILES = {
    "80ecf9dd": ("jx_vit_base_p16_224-80ecf9dd.pth", "vit_base_patch16_224.orig_in21k_ft_in1k"),
    "83fb41ba": ("jx_vit_base_p16_384-83fb41ba.pth", "vit_base_patch16_384.orig_in21k_ft_in1k"),
    "e5005f0a": ("jx_vit_base_patch16_224_in21k-e5005f0a.pth", "vit_base_patch16_224.orig_in21k"),
    "b5f2ef4d": ("deit_base_patch16_224-b5f2ef4d.pth", "deit_base_patch16_224.fb_in1k"),
    "0676ba61": ("resnet50-0676ba61.pth", "resnet50.tv_in1k"),
    "19c8e357": ("resnet50-19c8e357.pth", "resnet50.tv_in1k"),
    "11ad3fa6": ("resnet50-11ad3fa6.pth", "resnet50.tv2_in1k"),
    "86acaeed": ("rw_resnet50-86acaeed.pth", "resnet50.bt_in1k"),
    "08389792": ("semi_supervised_resnet50-08389792.pth", "resnet50.fb_ssl_yfcc100m_ft_in1k"),
    "16a12f1b": ("semi_weakly_supervised_resnet50-16a12f1b.pth", "resnet50.fb_swsl_ig1b_ft_in1k"),
}
# By network, the digits of the recipe's files and the names of its first convolution, its classifier and a scale.
_RECIPES = {"ViT": ("80ecf9dd",), "ResNet": ("0676ba61", "19c8e357")}
_FIRST = {"ViT": "patch_embed.proj.weight", "ResNet": "conv1.weight"}
_CLASSIFIER = {"ViT": "head.weight", "ResNet": "fc.weight"}
_SCALES = {"ViT": "norm.weight", "ResNet": "layer1.0.bn1.weight"}
_FOREIGN = {  # names that other projects' files have, from the most telling on
    "decoder_embed.weight": "MAE's with its decoder",
    "head_dist.weight": "a distilled DeiT's",
    "dist_token": "a distilled DeiT's",
    "visual.conv1.weight": "CLIP's",
    "blocks.0.ls1.gamma": "DINOv2's",
    "blocks.0.gamma_1": "BEiT's or data2vec's",
    "pre_logits.fc.weight": "timm's of ImageNet-21k, before the training on ImageNet-1k",
    "embeddings.patch_embeddings.projection.weight": "the transformers library's ViT",
    "vit.embeddings.patch_embeddings.projection.weight": "the transformers library's ViT",
    "resnet.embedder.embedder.convolution.weight": "the transformers library's ResNet",
    "conv_proj.weight": "torchvision's ViT",
    "stem.conv1.weight": "detectron2's ResNet",
    "patch_embed.proj.weight": "timm's ViT",
    "layer1.0.conv1.weight": "torchvision's ResNet",
}
_OWN = {"ViT": "patch_embed.proj.weight", "ResNet": "layer1.0.conv1.weight"}
_LARGEST = 2.7**2  # of a normalised pixel, squared: (1 - 0.406) / 0.225 is 2.64
_CONFIG_BYTES = 1_000_000
_PROMISED = re.compile(r"-([0-9a-f]{8,64})(?=\.)")  # digits of a SHA-256, in a file's name


def note_origin(path: Path, arrays: Mapping[str, np.ndarray], network: str) -> None:
    """One line in the log for what a file of a "ViT" or a "ResNet" is, and one for each sign that it is another
    recipe's, or may be damaged. arrays: all that it holds, by timm's or torchvision's names."""
    for line in (identity(path, network), *signs(arrays, network)):
        _note(path, line)
    note_unproven(path)


def note_unproven(path: Path) -> None:
    """One line in the log for a file of weights, which has been read, if nothing tells whether it is whole: no checksum
    of its own, no digits in its name, and none of the files known here."""
    if has_checksum(path) or _PROMISED.search(path.name):
        return
    if (digest := file_checksum(path))[:8] not in _FILES:
        _note(path, f"has no checksum: damage shows only if its SHA-256 is not its publisher's; it is {digest}")


def _note(path: Path, line: str) -> None:
    _log.warning("%s", one_line(f"note: {path}: {line}"))


def identity(path: Path, network: str) -> str:
    """Which public file this is by its SHA-256, by its name or by the config.json beside it, and the recipe's."""
    digest = file_checksum(path)
    name, tag = _FILES[_RECIPES[network][0]]
    recipe = f"the recipe's file is {name} (timm's {tag})"
    if digest[:8] in _RECIPES[network]:
        return f"the recipe's file, {_FILES[digest[:8]][0]}, by its SHA-256"
    if digest[:8] in _FILES:
        return f"is {_FILES[digest[:8]][0]} by its SHA-256; {recipe}"
    if promised := _PROMISED.search(path.name):
        if not digest.startswith(promised[1]):
            return f"its name promises the SHA-256 {promised[1]}, it has {digest[:8]}: damaged or changed; {recipe}"
        return f"whole by its SHA-256; {recipe}"
    if beside := _architecture(path):
        return f"timm's {beside} by the config.json beside it; {recipe}"
    return f"not known by its SHA-256 ({digest[:8]}); {recipe}"


def signs(arrays: Mapping[str, np.ndarray], network: str) -> list[str]:
    """What tells, in the arrays themselves, that they are not those of a network trained on ImageNet-1k."""
    return [*_head_signs(arrays, network), *_first_layer_signs(arrays, network)]


def names_of(names: Iterable[str], network: str) -> str:
    """Whose names these are, where they do not fit a network, as the end of an error; "" if nothing is known."""
    held = {name.removeprefix("module.") for name in names} - {_OWN[network]}
    whose = next((title for mark, title in _FOREIGN.items() if mark in held), None)
    return f"; its names are {whose}" if whose else ""


def _head_signs(arrays: Mapping[str, np.ndarray], network: str) -> list[str]:
    found = []
    classifier = arrays.get(_CLASSIFIER[network])
    if classifier is None or not classifier.ndim:
        found.append("has no classifier: self-supervised (DINO, MAE), or a body alone")
    elif len(classifier) != 1000:
        found.append(f"has {len(classifier):,} classes, ImageNet-1k 1,000")
    if network == "ViT" and (tokens := arrays["pos_embed"].shape[1]) != 197:
        found.append(f"has {tokens} position embeddings, a ViT-B/16 of 224x224 pixels 197")
    return found


def _first_layer_signs(arrays: Mapping[str, np.ndarray], network: str) -> list[str]:
    found = []
    first = arrays[_FIRST[network]].astype(np.float64)
    if (arrays[_SCALES[network]] == 1).all():
        found.append("its normalisation is as before training: was it ever trained?")
    left, right = first[..., :-1].ravel(), first[..., 1:].ravel()
    scale = np.sqrt((left @ left) * (right @ right))
    if scale and abs(left @ right) / scale < 4 / np.sqrt(left.size):  # 4 standard errors of no correlation
        found.append("neighbouring weights of its first layer are not correlated, as before training")
    variance = arrays.get("bn1.running_var")
    if variance is not None:
        flat = first.reshape(len(first), -1)
        # E[(w x)^2] <= |w|^2 E[|x|^2], which normalised pixels bound.
        if (variance > (flat**2).sum(1) * flat.shape[1] * _LARGEST).any():
            found.append("its first layer has seen pixels beyond the normalised range, perhaps 0 to 255")
    return found


def _architecture(path: Path) -> str | None:
    """The model that timm's config.json, beside a file from the Hugging Face hub, says it is."""
    beside = path.with_name("config.json")
    try:
        tree = json.loads(read_bytes(beside, "file", _CONFIG_BYTES))
        name, tag = tree["architecture"], tree["pretrained_cfg"].get("tag")
    except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # none, or another program's
    return f"{name}.{tag}"[:100] if tag else str(name)[:100]

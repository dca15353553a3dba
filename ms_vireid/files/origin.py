"""Where a file of ImageNet weights comes from, as far as it can be told: many recipes have the same shapes."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, one_line, summary
from ms_vireid.files.checks import file_checksum, read_bytes
from ms_vireid.files.shards import INDEX, read_index
from ms_vireid.files.weights import has_checksum

_log = logging.getLogger(__name__)

# Public files of the same shapes, by the first digits of their SHA-256, which are part of their names.
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
# By network: the recipes' files in `_FILES`; names of the first convolution, the classifier and one normalisation.
_RECIPES = {"ViT": ("80ecf9dd",), "ResNet": ("0676ba61", "19c8e357")}
_FIRST = {"ViT": "patch_embed.proj.weight", "ResNet": "conv1.weight"}
_CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight", "head.classifier.weight", "head.fc.weight")
_SCALES = {"ViT": "norm.weight", "ResNet": "layer1.0.bn1.weight"}
_FOREIGN = {  # names in other projects' files, the most specific first
    "decoder_embed.weight": "MAE's with its decoder",
    "head_dist.weight": "a distilled DeiT's",
    "dist_token": "a distilled DeiT's",
    "visual.conv1.weight": "CLIP's",
    "blocks.0.ls1.gamma": "DINOv2's",
    "blocks.0.gamma_1": "BEiT's or data2vec's",
    "pre_logits.fc.weight": "timm's of ImageNet-21k, before the training on ImageNet-1k",
    "embeddings.distillation_token": "a distilled DeiT's of the transformers library",
    "encoder.layer.0.lambda_1": "BEiT's or data2vec's of the transformers library",
    "encoder.layer.0.layer_scale1.lambda1": "DINOv2's of the transformers library",
    "embeddings.patch_embeddings.projection.weight": "the transformers library's",
    "embedder.embedder.convolution.weight": "the transformers library's ResNet",
    "conv_proj.weight": "torchvision's ViT",
    "stem.conv1.weight": "detectron2's ResNet",
    "patch_embed.proj.weight": "timm's ViT",
    "layer1.0.conv1.weight": "torchvision's ResNet",
}
_EXPECTED = {"ViT": "patch_embed.proj.weight", "ResNet": "layer1.0.conv1.weight"}  # of `_FOREIGN`
_MAX_PIXEL_SQUARE = 2.7**2  # normalised: (1 - 0.406) / 0.225 is 2.64
_MAX_CONFIG_BYTES = 1_000_000
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?=\.)")  # first digits of the SHA-256


def note_origin(path: Path, arrays: Mapping[str, np.ndarray], network: str) -> None:
    """Log one line that says what a file of a "ViT" or a "ResNet" is, and one for each sign that it belongs to another
    recipe or may be damaged. arrays: its whole content, by timm's or torchvision's names."""
    for line in (identity(path, network), *signs(arrays, network)):
        note(path, line)
    note_unproven(path)


def note_unproven(path: Path) -> None:
    """Log one line if nothing shows whether a weight file is intact: it has no checksum and no hash in its name, and is
    none of the known files. Call it after the file has been read."""
    if has_checksum(path) or _HASH_IN_NAME.search(path.name):
        return
    if path.name.endswith(INDEX):
        digests = summary([f"{file.name} {file_checksum(file)[:8]}" for file in read_index(path)])
        note(path, f"has no checksum: damage shows only if its shards' SHA-256 are not their publisher's: {digests}")
    elif (digest := file_checksum(path))[:8] not in _FILES:
        note(path, f"has no checksum: damage shows only if its SHA-256 is not its publisher's; it is {digest}")


def note(path: Path, line: str) -> None:
    """Log a line about a file."""
    _log.warning("%s", one_line(f"note: {path}: {line}"))


def identity(path: Path, network: str) -> str:
    """Say which public file this is, by its SHA-256, name or config.json, and which one the recipe uses."""
    name, tag = _FILES[_RECIPES[network][0]]
    recipe = f"the recipe's file is {name} (timm's {tag})"
    if path.name.endswith(INDEX):
        architecture = _architecture(path)
        whose = f"timm's {architecture} by the config.json beside it" if architecture else "not known"
        return f"{whose}, in shards; {recipe}"
    digest = file_checksum(path)
    if digest[:8] in _RECIPES[network]:
        return f"the recipe's file, {_FILES[digest[:8]][0]}, by its SHA-256"
    if digest[:8] in _FILES:
        return f"is {_FILES[digest[:8]][0]} by its SHA-256; {recipe}"
    if promised := _HASH_IN_NAME.search(path.name):
        if not digest.startswith(promised[1]):
            return f"its name promises the SHA-256 {promised[1]}, it has {digest[:8]}: damaged or changed; {recipe}"
        return f"whole by its SHA-256; {recipe}"
    if architecture := _architecture(path):
        return f"timm's {architecture} by the config.json beside it; {recipe}"
    return f"not known by its SHA-256 ({digest[:8]}); {recipe}"


def signs(arrays: Mapping[str, np.ndarray], network: str) -> list[str]:
    """List what shows, in the arrays themselves, that they were not trained on ImageNet-1k."""
    signs = []
    classifier = next((arrays[name] for name in _CLASSIFIERS if name in arrays), None)
    if classifier is None or not classifier.ndim:
        signs.append("has no classifier: self-supervised (DINO, MAE), or a body alone")
    elif len(classifier) != 1000:
        signs.append(f"has {len(classifier):,} classes, ImageNet-1k 1,000")
    if network == "ViT" and (tokens := arrays["pos_embed"].shape[1]) != 197:
        signs.append(f"has {tokens} position embeddings, a ViT-B/16 of 224x224 pixels 197")
    first = arrays[_FIRST[network]].astype(np.float64)
    if (arrays[_SCALES[network]] == 1).all():
        signs.append("its normalisation is as before training: was it ever trained?")
    left, right = first[..., :-1].ravel(), first[..., 1:].ravel()
    scale = np.sqrt((left @ left) * (right @ right))
    if scale and abs(left @ right) / scale < 4 / np.sqrt(left.size):  # 4 standard errors of no correlation
        signs.append("neighbouring weights of its first layer are not correlated, as before training")
    variance = arrays.get("bn1.running_var")
    if variance is not None:
        flat = first.reshape(len(first), -1)
        # E[(w x)^2] <= |w|^2 E[|x|^2], which is bounded for normalised pixels.
        if (variance > (flat**2).sum(1) * flat.shape[1] * _MAX_PIXEL_SQUARE).any():
            signs.append("its first layer has seen pixels beyond the normalised range, perhaps 0 to 255")
    return signs


def names_of(names: Iterable[str], network: str) -> str:
    """Say which project names arrays like these, as the beginning of an error about names that do not fit; "" if
    unknown. names: a file's own, with any prefix. network: the expected one."""
    names = [f".{name}" for name in names]
    marks = [mark for mark in _FOREIGN if mark != _EXPECTED.get(network) and any(n.endswith(f".{mark}") for n in names)]
    return f"its names are {_FOREIGN[marks[0]]}; " if marks else ""


def _architecture(path: Path) -> str | None:
    """Read the model's name from the config.json that timm puts beside a file on the Hugging Face hub."""
    try:
        tree = json.loads(read_bytes(path.with_name("config.json"), "file", _MAX_CONFIG_BYTES))
        name, tag = tree["architecture"], tree["pretrained_cfg"].get("tag")
    except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # missing, or another program's
    return f"{name}.{tag}"[:100] if tag else str(name)[:100]

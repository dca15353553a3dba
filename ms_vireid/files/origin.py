"""What a file of pretrained weights is, by its content, its name, the config.json beside it, and its shapes. All
findings are notes: none refuses a file that fits."""

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

# The recipes' files by network and the first digits of their SHA-256, which are part of their names.
_FILES = {
    "ViT": {"80ecf9dd": "jx_vit_base_p16_224-80ecf9dd.pth (timm's vit_base_patch16_224.orig_in21k_ft_in1k)"},
    "ResNet": {
        "0676ba61": "resnet50-0676ba61.pth (timm's resnet50.tv_in1k)",
        "19c8e357": "resnet50-19c8e357.pth (torchvision's earlier one)",
    },
}
_CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight", "head.classifier.weight", "head.fc.weight")
_SCALES = {"ViT": "norm.weight", "ResNet": "layer1.0.bn1.weight"}
_FOREIGN = {  # names in the files of timm and torchvision, the most specific first
    "dist_token": "a distilled DeiT's",
    "blocks.0.ls1.gamma": "DINOv2's",
    "blocks.0.gamma_1": "BEiT's",
    "conv_proj.weight": "torchvision's ViT",
    "patch_embed.proj.weight": "timm's ViT",
    "layer1.0.conv1.weight": "torchvision's ResNet",
}
_EXPECTED = {"ViT": "patch_embed.proj.weight", "ResNet": "layer1.0.conv1.weight"}  # of `_FOREIGN`
_MAX_CONFIG_BYTES = 1_000_000
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?=\.)")  # first digits of the SHA-256


def note_origin(path: Path, arrays: Mapping[str, np.ndarray], network: str) -> None:
    """Log one line that says what a file of a "ViT" or a "ResNet" is, and one for each sign that it belongs to another
    recipe. arrays: its whole content, by timm's or torchvision's names."""
    for line in (identity(path, network), *signs(arrays, network)):
        note(path, line)


def note_unproven(path: Path) -> None:
    """Log one line if nothing shows whether a weight file is intact: it has no checksum and no hash in its name, and is
    no recipe's file. Call it after the file has been read."""
    if has_checksum(path) or _HASH_IN_NAME.search(path.name):
        return
    if path.name.endswith(INDEX):
        digests = summary([f"{file.name} {file_checksum(file)[:8]}" for file in read_index(path)])
        note(path, f"has no checksum: damage shows only if its shards' SHA-256 are not their publisher's: {digests}")
    elif not any((digest := file_checksum(path))[:8] in files for files in _FILES.values()):
        note(path, f"has no checksum: damage shows only if its SHA-256 is not its publisher's; it is {digest}")


def note(path: Path, line: str) -> None:
    """Log a line about a file."""
    _log.warning("%s", one_line(f"note: {path}: {line}"))


def identity(path: Path, network: str) -> str:
    """Say which public file this is, by its SHA-256, name or config.json, and which one the recipe uses."""
    recipe = f"the recipe's file is {next(iter(_FILES[network].values()))}"
    architecture = _architecture(path)
    of_timm = f"timm's {architecture} by the config.json beside it" if architecture else ""
    if path.name.endswith(INDEX):
        return f"{of_timm or 'not known'}, in shards; {recipe}"
    digest = file_checksum(path)
    if digest[:8] in _FILES[network]:
        return f"the recipe's file, {_FILES[network][digest[:8]]}, by its SHA-256"
    if promised := _HASH_IN_NAME.search(path.name):
        if not digest.startswith(promised[1]):
            return f"its name promises the SHA-256 {promised[1]}, it has {digest[:8]}: damaged or changed; {recipe}"
        return f"whole by its SHA-256; {recipe}"
    return f"{of_timm or f'not known by its SHA-256 ({digest[:8]})'}; {recipe}"


def signs(arrays: Mapping[str, np.ndarray], network: str) -> list[str]:
    """List what shows, in the arrays themselves, that they were not trained on ImageNet-1k."""
    signs = []
    classifier = next((arrays[name] for name in _CLASSIFIERS if name in arrays), None)
    if classifier is None or not classifier.ndim:
        signs.append("has no classifier: self-supervised, or a body alone")
    elif len(classifier) != 1000:
        signs.append(f"has {len(classifier):,} classes, ImageNet-1k 1,000")
    if network == "ViT" and (tokens := arrays["pos_embed"].shape[1]) != 197:
        signs.append(f"has {tokens} position embeddings, a ViT-B/16 of 224x224 pixels 197")
    if (arrays[_SCALES[network]] == 1).all():
        signs.append("its normalisation is as before training: was it ever trained?")
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

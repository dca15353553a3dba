"""Twin of `ms_vireid.models.pretrained`, whose docstrings hold here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.config import other_width
from ms_vireid.files.origin import names_of, note_origin
from torch_ref.models.resnet import ResNet
from torch_ref.models.vit import VisionTransformer, resize_position_embedding
from torch_ref.models.weight_file import read_weights

WHERE_VIT = (
    "timm's vit_base_patch16_224 (the paper's file is jx_vit_base_p16_224-80ecf9dd.pth) is on the timm project's "
    "release page and on the Hugging Face hub"
)
WHERE_RESNET = "torchvision's resnet50 (IMAGENET1K_V1: resnet50-0676ba61.pth) is on PyTorch's download pages"


def load_pretrained_vit(vit: VisionTransformer, path: Path) -> None:
    stored = _read(path, WHERE_VIT)
    weights = {k: v for k, v in stored.items() if not k.startswith(("head.", "fc_norm."))}
    if "pos_embed" in weights and weights["pos_embed"].ndim == 3 and weights["pos_embed"].shape[1] != vit.tokens:
        try:
            weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], vit.patch_embed.grid_size)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    advice = other_width(weights, vit.embed_dim)
    _set(path, "ViT", weights, list(vit.state_dict().items()), advice)
    note_origin(Path(path), _arrays(stored), "ViT")


def load_pretrained_resnet(parts: Sequence[ResNet], path: Path) -> None:
    counters = "num_batches_tracked"
    stored = _read(path, WHERE_RESNET)
    weights = {n: v for n, v in stored.items() if not n.startswith("fc.") and not n.endswith(counters)}
    named = [pair for part in parts for pair in part.state_dict().items() if not pair[0].endswith(counters)]
    _set(path, "ResNet", weights, named)
    note_origin(Path(path), _arrays(stored), "ResNet")


def _read(path: Path | str, where: str) -> dict[str, Tensor]:
    path = Path(path)
    if not path.exists():
        raise InputError(f"model.pretrained: no such file {path}; {where}; or set model.pretrained=none")
    return read_weights(path)


def _arrays(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().float().numpy() for name, value in weights.items()}


def _set(
    path: Path, network: str, weights: dict[str, Tensor], targets: Sequence[tuple[str, Tensor]], advice: str = ""
) -> None:
    names = {name for name, _ in targets}
    problems = {f"{name} is missing" for name in names - weights.keys()}
    problems |= {f"{name} is not in the model" for name in weights.keys() - names}
    problems |= {
        f"{name} is {tuple(weights[name].shape)}, the model's {tuple(target.shape)}"
        for name, target in targets
        if name in weights and weights[name].shape != target.shape
    }
    problems |= {f"{name} is not finite" for name in names & weights.keys() if not weights[name].isfinite().all()}
    if problems:
        listed = ", ".join(sorted(problems)[:10])
        raise InputError(
            f"{path}: does not fit the {network}: {len(problems)} ({listed}){advice or names_of(weights, network)}"
        )
    for name, target in targets:
        target.copy_(weights[name])  # a state dict's tensors are detached from the graph

"""ImageNet weights from a user's own file."""

from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter

from ms_vireid.command.errors import InputError
from ms_vireid.config import other_width
from ms_vireid.files.origin import names_of, note_origin
from ms_vireid.files.weights import read_checkpoint
from ms_vireid.models.resnet import ResNet
from ms_vireid.models.vit import VisionTransformer, resize_position_embedding

WHERE_VIT = (
    "timm's vit_base_patch16_224 (the paper's file is jx_vit_base_p16_224-80ecf9dd.pth) is on the timm project's "
    "release page and on the Hugging Face hub"
)
WHERE_RESNET = "torchvision's resnet50 (IMAGENET1K_V1: resnet50-0676ba61.pth) is on PyTorch's download pages"


def load_pretrained_vit(vit: VisionTransformer, path: Path) -> None:
    """Load a timm ViT state dict from .pth or .safetensors, or a .ckpt made of one; set nothing unless everything fits.

    The head is dropped and the square grid of position embeddings is resized to the model's patches. The log says which
    public file it is. Raises InputError for a missing file (with where to get it), another format, or weights that are
    missing, extra, misshapen or not finite.
    """
    stored = {timm_name(name): value for name, value in _read(path, WHERE_VIT).items()}
    weights = {name: value for name, value in stored.items() if not name.startswith(("head.", "fc_norm."))}
    rows, columns = vit.patch_embed.grid_size
    if "pos_embed" in weights and weights["pos_embed"].ndim == 3 and weights["pos_embed"].shape[1] != vit.tokens:
        try:
            weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], (rows, columns))
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    targets = [(timm_name(name), parameter) for name, parameter in vit.parameters_dict().items()]
    _set(path, "ViT", weights, targets, other_width(weights, vit.embed_dim))
    note_origin(Path(path), stored, "ViT")


def load_pretrained_resnet(parts: Sequence[ResNet], path: Path) -> None:
    """Load a torchvision ResNet-50 state dict into the parts of a network, as `load_pretrained_vit` does. Two stems get
    the same weights. The classifier `fc` and the counters `num_batches_tracked` are dropped.
    """
    stored = {torchvision_name(name): value for name, value in _read(path, WHERE_RESNET).items()}
    weights = {n: v for n, v in stored.items() if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}
    named = [pair for part in parts for pair in part.parameters_and_names()]
    _set(path, "ResNet", weights, [(torchvision_name(name), parameter) for name, parameter in named])
    note_origin(Path(path), stored, "ResNet")


def _read(path: Path | str, where: str) -> dict[str, np.ndarray]:
    path = Path(path)
    if not path.exists():
        raise InputError(f"model.pretrained: no such file {path}; {where}; or set model.pretrained=none")
    return read_checkpoint(path).arrays


def _set(
    path: Path, network: str, weights: dict[str, np.ndarray], targets: Sequence[tuple[str, Parameter]], advice: str = ""
) -> None:
    """Set each target to the weight of its name; all must fit, and no weight may be left over. advice: ends the error
    line with what to do."""
    names = {name for name, _ in targets}
    problems = {f"{name} is missing" for name in names - weights.keys()}
    problems |= {f"{name} is not in the model" for name in weights.keys() - names}
    problems |= {
        f"{name} is {weights[name].shape}, the model's {tuple(target.shape)}"
        for name, target in targets
        if name in weights and weights[name].shape != tuple(target.shape)
    }
    problems |= {f"{name} is not finite" for name in names & weights.keys() if not np.isfinite(weights[name]).all()}
    if problems:
        listed = ", ".join(sorted(problems)[:10])
        raise InputError(
            f"{path}: does not fit the {network}: {len(problems)} ({listed}){advice or names_of(weights, network)}"
        )
    for name, target in targets:
        target.set_data(ms.Tensor(weights[name].astype(np.float32)))


def timm_name(name: str) -> str:
    """timm's name for a parameter of the ViT: MindSpore calls LayerNorm's weight and bias gamma and beta."""
    name = name.removeprefix("base.")
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


def torchvision_name(name: str) -> str:
    """torchvision's name for a parameter of the ResNet: MindSpore has other names for those of BatchNorm."""
    name = name.replace(".moving_mean", ".running_mean").replace(".moving_variance", ".running_var")
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")

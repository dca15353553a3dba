"""Models from the configuration or by name, and ImageNet weights from a user's own file."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ms_vireid.config import Config, ModelConfig
from ms_vireid.errors import InputError
from torch_ref.models.pmt import PMT
from torch_ref.models.vit import VisionTransformer, resize_position_embedding

MODELS = {
    "pmt_vit_base": ModelConfig(),
    "pmt_vit_small": ModelConfig(embed_dim=384, num_heads=6),
    "pmt_vit_tiny": ModelConfig(embed_dim=192, num_heads=3),
}
WHERE_WEIGHTS = (
    "timm's vit_base_patch16_224 (the paper's file is jx_vit_base_p16_224-80ecf9dd.pth) is on the timm project's "
    "release page and on the Hugging Face hub"
)


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(MODELS)


def create_model(name: str, num_classes: int, image_size: tuple[int, int] = (256, 128), **overrides) -> nn.Module:
    """A model by name, as in timm and mindcv; `overrides` are fields of `ms_vireid.config.ModelConfig`.

    Raises:
        ValueError: no model of that name.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(list_models())}")
    return _build(MODELS[name].model_copy(update=overrides), num_classes, image_size)


def build_model(config: Config) -> nn.Module:
    """The configured model, with its pretrained weights if `model.pretrained` names a file.

    Weights are drawn from `config.seed`, by PyTorch's generator: another draw than MindSpore's of that seed.

    Raises:
        InputError: the weight file is missing or does not fit.
        ValueError: the number of identities is neither configured nor known for the data set.
    """
    if config.num_classes is None:
        raise ValueError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    torch.manual_seed(config.seed)
    model = _build(config.model, config.num_classes, config.data.image_size, config.train.recompute)
    if config.model.pretrained != "none":
        load_pretrained_vit(model.base, Path(config.model.pretrained).expanduser())
    return model


def _build(model: ModelConfig, num_classes: int, image_size: tuple[int, int], recompute: bool = False) -> nn.Module:
    architecture = model.model_dump(exclude={"name", "num_classes", "pretrained"})
    return PMT(num_classes, image_size=image_size, recompute=recompute, **architecture)


def load_pretrained_vit(vit: VisionTransformer, path: Path) -> None:
    """Load a timm ViT state dict from .safetensors, .pth or .pt; nothing is set unless all fits.

    The head is dropped and the square grid of position embeddings is resized to the model's patches.

    Raises:
        InputError: no such file (the message says where it can be had), not one of the formats, or weights missing,
            extra or misshapen.
    """
    if not path.is_file():
        raise InputError(f"model.pretrained: no such file {path}; {WHERE_WEIGHTS}; or set model.pretrained=none")
    weights = {k: v for k, v in read_weights(path).items() if not k.startswith(("head.", "fc_norm."))}
    targets = vit.state_dict()
    if "pos_embed" in weights and weights["pos_embed"].ndim == 3 and weights["pos_embed"].shape[1] != vit.tokens:
        try:
            weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], vit.patch_embed.grid_size)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    problems = [f"{name} is missing" for name in targets.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - targets.keys()]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, the model's {tuple(target.shape)}"
        for name, target in targets.items()
        if name in weights and weights[name].shape != target.shape
    ]
    if problems:
        raise InputError(f"{path}: does not fit the ViT: {len(problems)} ({', '.join(sorted(problems)[:10])})")
    vit.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pth or .pt file.

    Raises:
        InputError: another format, or a file that is not whole.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise InputError(f"{path}: weights are read from .safetensors, .pth or .pt")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        size = path.stat().st_size
        raise InputError(
            f"{path}: not a whole weight file ({size} bytes, cut off, damaged or foreign); use another copy"
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: holds no plain state dict (tensors by name)")
    return weights

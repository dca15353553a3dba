"""Models from the configuration or by name, and ImageNet weights from a user's own file."""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from ms_vireid.config import Config, ModelConfig, expand_user
from ms_vireid.errors import InputError
from ms_vireid.models.pmt import PMT
from ms_vireid.models.vit import VisionTransformer, resize_position_embedding
from ms_vireid.models.weight_file import read_weights

MODELS = {
    "pmt_vit_base": ModelConfig(),
    "pmt_vit_small": ModelConfig(embed_dim=384, num_heads=6),
    "pmt_vit_tiny": ModelConfig(embed_dim=192, num_heads=3),
}
WHERE_WEIGHTS = (
    "timm's vit_base_patch16_224 (the paper's file is jx_vit_base_p16_224-80ecf9dd.pth) is on the timm project's "
    "release page and on the Hugging Face hub; bring it as .safetensors, or as .ckpt from parity/convert.py"
)


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(MODELS)


def create_model(name: str, num_classes: int, image_size: tuple[int, int] = (256, 128), **overrides) -> nn.Cell:
    """A model by name, as in timm and mindcv; `overrides` are fields of `ms_vireid.config.ModelConfig`.

    Raises:
        ValueError: no model of that name.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(list_models())}")
    return _build(MODELS[name].model_copy(update=overrides), num_classes, image_size)


def build_model(config: Config) -> nn.Cell:
    """The configured model, with its pretrained weights if `model.pretrained` names a file.

    Weights are drawn from `config.seed`.

    Raises:
        InputError: the weight file is missing or does not fit.
        ValueError: the number of identities is neither configured nor known for the data set.
    """
    if config.num_classes is None:
        raise ValueError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    ms.set_seed(config.seed)
    model = _build(config.model, config.num_classes, config.data.image_size, config.train.recompute)
    if config.model.pretrained != "none":
        load_pretrained_vit(model.base, expand_user(config.model.pretrained))
    return model


def _build(model: ModelConfig, num_classes: int, image_size: tuple[int, int], recompute: bool = False) -> nn.Cell:
    architecture = model.model_dump(exclude={"name", "num_classes", "pretrained"})
    return PMT(num_classes, image_size=image_size, recompute=recompute, **architecture)


def load_pretrained_vit(vit: VisionTransformer, path: Path) -> None:
    """Load a timm ViT state dict from .safetensors, or from a .ckpt made of one; nothing is set unless all fits.

    The head is dropped and the square grid of position embeddings is resized to the model's patches.

    Raises:
        InputError: no such file (the message says where it can be had), not one of the formats, or weights missing,
            extra or misshapen.
    """
    if not path.is_file():
        raise InputError(f"model.pretrained: no such file {path}; {WHERE_WEIGHTS}; or set model.pretrained=none")
    held = {timm_name(name): value for name, value in read_weights(path).items()}
    weights = {name: value for name, value in held.items() if not name.startswith(("head.", "fc_norm."))}
    targets = {timm_name(name): parameter for name, parameter in vit.parameters_dict().items()}
    rows, columns = vit.patch_embed.grid_size
    if "pos_embed" in weights and weights["pos_embed"].ndim == 3 and weights["pos_embed"].shape[1] != vit.tokens:
        try:
            weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], (rows, columns))
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    problems = [f"{name} is missing" for name in targets.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - targets.keys()]
    problems += [
        f"{name} is {weights[name].shape}, the model's {tuple(target.shape)}"
        for name, target in targets.items()
        if name in weights and weights[name].shape != tuple(target.shape)
    ]
    if problems:
        raise InputError(f"{path}: does not fit the ViT: {len(problems)} ({', '.join(sorted(problems)[:10])})")
    for name, target in targets.items():
        target.set_data(ms.Tensor(weights[name].astype(np.float32)))


def timm_name(name: str) -> str:
    """timm's name of one of the ViT's parameters: MindSpore calls LayerNorm's weight and bias gamma and beta."""
    name = name.removeprefix("base.")
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")

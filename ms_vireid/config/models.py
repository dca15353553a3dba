"""The models' sections: what each network is made of, in either framework."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ms_vireid.command.errors import InputError
from ms_vireid.config.base import Count, Positive, Rate, Section, Share, Side, between, choice, one_of

MOST_WEIGHTS = 2_000_000_000
WeightFile = Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)]
Width = between(1, 10_000)  # channels
Blocks = between(1, 100)
Kernel = between(1, 99)
_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published ViTs, by their width


class Setting(Section):
    """What a network depends on besides its own section of the configuration."""

    image_size: tuple[Side, Side] = (256, 128)  # (H, W)
    batch: tuple[Positive, Positive] = (8, 4)  # P and K
    # PK pictures each: the visible ones, their second version if there is one, the infrared ones
    parts: choice(2, 3) = 2
    terms: frozenset[str] = frozenset({"ma"})  # names of the loss terms
    recompute: bool = False  # keep fewer activations in training and compute the others again
    inference: bool = False  # without the parts that only training needs


class ModelConfig(Section):
    """The keys of every model."""

    has_auxiliary: ClassVar[bool] = False  # the network makes a modality between visible and infrared
    takes_versions: ClassVar[bool] = False  # for augmentation.visible_twice
    takes_one_size: ClassVar[bool] = False  # the network is built for one size of pictures
    backbone: ClassVar[str] = ""  # "ViT" or "ResNet" if public files of that network fit (checkpoints/layouts.py)
    backbone_source: ClassVar[str] = ""  # where such a file is to be had
    network: ClassVar[str]  # a class in the file of `models` called `name`
    name: str
    num_classes: between(1, 100_000) | None = None  # size of the classifier; null: the people of the training set
    # file or run folder to start from: ImageNet weights or a trained model; none: train from scratch; null: train.py
    # asks for one or the other
    pretrained: WeightFile | None = "none"
    pretrained_weights: str | None = None  # which of several sets of weights in that file; null: the plain one
    grid: ClassVar[None] = None  # the patches of that file's positions, where the network has some

    @classmethod
    def of(cls, name: str, network: str) -> type["ModelConfig"]:
        """The section of another network with the same keys."""
        variables = {"__annotations__": {"name": Literal[name]}, "name": name, "network": network}
        return type(cls)(f"{network}Config", (cls,), variables | {"__module__": __name__})

    @property
    def from_scratch(self) -> bool:
        return self.pretrained in (None, "none")

    def check_image(self, size: tuple[int, int]) -> None:
        """Raise ValueError for pictures of (H, W) that the network cannot take."""

    def progress(self, step: int, steps: int, iterations: int) -> float:
        """The progress of training at a step of `steps`, of which an epoch has `iterations`: 0 at the first, 1 at the
        last."""
        return step / max(steps - 1, 1)

    @property
    def weights(self) -> int:
        """A lower bound on the number of parameters, from the largest layers."""
        return 0

    def check(self) -> None:
        if self.weights > MOST_WEIGHTS:
            raise ValueError(f"{self.weights:,} weights are more than {MOST_WEIGHTS:,}; make the model smaller")


class PMTConfig(ModelConfig):
    """The ViT of PMT; `pretrained` is a timm ViT-B/16 224 file, or a PMT."""

    network = "PMT"
    backbone = "ViT"
    backbone_source = (
        "timm's vit_base_patch16_224 (the paper's file is jx_vit_base_p16_224-80ecf9dd.pth) is on the timm project's "
        "release page and on the Hugging Face hub"
    )
    takes_one_size = True
    name: Literal["pmt"] = "pmt"
    # rows and columns of patches that the file's position embedding is for; null: the model's own or a square
    pretrained_grid: tuple[Side, Side] | None = None
    patch_size: Side = 16  # side of a patch, in pixels
    stride: Side = 12  # pixels from one patch to the next
    embed_dim: Width = 768  # width of the tokens
    depth: Blocks = 12  # blocks
    num_heads: Width = 12  # attention heads, which share embed_dim
    mlp_ratio: between(1, 100) = 4  # width of the MLP over embed_dim
    dropout: Rate = 0.03  # share of values that dropout sets to 0
    # share of branches that stochastic depth skips in the last block, growing from 0 in the first
    drop_path: Rate = 0.1

    @property
    def grid(self) -> tuple[int, int] | None:
        return self.pretrained_grid

    def check(self) -> None:
        super().check()
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")

    def check_image(self, size: tuple[int, int]) -> None:
        _require_sides(size, self.patch_size, f"model.patch_size {self.patch_size}")
        tokens = math.prod((side - self.patch_size) // self.stride + 1 for side in size)
        if tokens > 10_000:
            raise ValueError(
                f"data.image_size {size} gives {tokens:,} tokens, more than 10,000; make model.stride larger"
            )

    @property
    def weights(self) -> int:
        blocks = self.depth * (4 + 2 * self.mlp_ratio) * self.embed_dim
        return (3 * self.patch_size**2 + blocks) * self.embed_dim


class ResNetConfig(ModelConfig):
    """The keys of models on a ResNet-50; `pretrained` is a torchvision ResNet-50 file, or the same model's."""

    backbone = "ResNet"
    backbone_source = "torchvision's resnet50 (IMAGENET1K_V1: resnet50-0676ba61.pth) is on PyTorch's download pages"
    takes_versions = True
    layers: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)  # blocks of each stage
    width: between(1, 6400) = 64  # channels of the stem
    last_stride: choice(1, 2) = 1  # stride of the last stage
    pooling_power: Annotated[float, Field(ge=0.01, le=300)] = 3.0  # p of generalised-mean pooling (GeM)

    def check_image(self, size: tuple[int, int]) -> None:
        stride = 16 * self.last_stride
        _require_sides(size, stride, f"the network's stride {stride}")

    @property
    def weights(self) -> int:
        return 17 * self.width**2 * sum(blocks * 4**stage for stage, blocks in enumerate(self.layers))


class AGWConfig(ResNetConfig):
    """The ResNet-50 of AGW."""

    network = "AGW"
    name: Literal["agw"] = "agw"
    # how many of each stage's last blocks are followed by a non-local block
    non_local: tuple[Count, Count, Count, Count] = (0, 2, 3, 0)
    non_local_width: Width | None = 1  # inner channels of a non-local block, as released; null: half of its channels

    def check(self) -> None:
        super().check()
        if any(count > blocks for count, blocks in zip(self.non_local, self.layers, strict=True)):
            raise ValueError(f"non_local {list(self.non_local)} exceeds the blocks of layers {list(self.layers)}")


class MUNConfig(ResNetConfig):
    """The ResNet-50 of MUN with its auxiliary modality; the loss terms decide whether there are prototypes and C_a."""

    network = "MUN"
    name: Literal["mun"] = "mun"
    specific: Literal["layer1", "stem"] = "layer1"  # how far each modality has weights of its own
    # the modality between visible and infrared (Table 2); none: the baseline, without any
    intermediate: Literal["auxiliary", "X", "mixed", "syncretic", "none"] = "auxiliary"
    expansion: between(1, 400) = 4  # width of an intra-modality learner over its channels
    kernel_order: tuple[Kernel, Kernel] = (5, 7)  # kernel sizes on the first and second half of the channels (Eq. 2)
    # by which the cross-modality learner's average pooling shrinks a feature map
    ratios: Annotated[tuple[Side, ...], Field(min_length=1, max_length=100)] = (2, 4, 6, 12)
    layer_scale: Literal["channel", "scalar"] = "channel"  # a layer scale for each channel, or one for all
    mixing: Literal["picture", "pixel"] = "picture"  # in the mixed modality, what has its own share of both others
    # what a prototype belongs to, a place in the batch or a person; none: L_ma compares pooled features
    memory: Literal["slots", "identity", "none"] = "slots"
    # how much of a prototype each batch replaces, at the first iteration and at the last
    beta: tuple[Share, Share] = (1e-8, 1.0)
    # how beta gets from one to the other; constant: it has the last value throughout
    beta_shape: Literal["linear", "constant", "cosine"] = "linear"
    beta_unit: Literal["iteration", "epoch"] = "iteration"  # how often beta changes
    classified: Literal["bnneck", "pooled"] = "bnneck"  # features that the classifiers take, after or before BNNeck
    tested: Literal["bnneck", "pooled"] = "bnneck"  # features that retrieval compares
    # whether the shared stages normalise all modalities together, or each by its own statistics
    batch_norm: Literal["joint", "each"] = "joint"
    pooling_learned: bool = False  # whether GeM's p is trained, starting from pooling_power

    @property
    def has_auxiliary(self) -> bool:
        return self.intermediate != "none"

    def check(self) -> None:
        super().check()
        if any(kernel % 2 == 0 for kernel in self.kernel_order):
            raise ValueError(f"kernel_order: the kernels' sizes must be odd, not {list(self.kernel_order)}")
        if self.specific == "stem" and self.width % 2:
            raise ValueError(f"width {self.width} must be even with specific=stem, as each half has its own kernels")

    def progress(self, step: int, steps: int, iterations: int) -> float:
        """The progress of beta: 0 at its first value, 1 at its last."""
        if self.beta_unit == "epoch":
            step, steps = step // iterations, steps // iterations
        share = super().progress(step, steps, iterations)
        return {"linear": share, "constant": 1.0, "cosine": 0.5 - 0.5 * math.cos(math.pi * share)}[self.beta_shape]

    def check_image(self, size: tuple[int, int]) -> None:
        """The generator pools the first stage's feature maps, whose sides must be multiples of every ratio."""
        super().check_image(size)
        if self.intermediate == "auxiliary":
            rows, columns = (math.ceil(math.ceil(side / 2) / 2) for side in size)  # after the stem's two strides
            check_pooled(rows, columns, self.ratios)

    @property
    def weights(self) -> int:
        learners = 4 * self.expansion + sum(ratio**2 for ratio in self.ratios)
        channels = 4 * self.width if self.specific == "layer1" else self.width
        return super().weights + (learners * channels**2 if self.intermediate == "auxiliary" else 0)


def check_pooled(rows: int, columns: int, ratios: tuple[int, ...]) -> None:
    """Raise ValueError unless every pooling ratio divides the sides of the first stage's feature maps."""
    step = math.lcm(*ratios)
    if rows % step or columns % step:
        fitting = [4 * max(1, round(side / step)) * step for side in (rows, columns)]
        raise ValueError(
            f"model.ratios {list(ratios)} do not divide the feature maps of {rows}x{columns}; "
            f"the sides of pictures (data.image_size) must be multiples of {4 * step}, as {fitting}"
        )


def _require_sides(size: tuple[int, int], minimum: int, what: str) -> None:
    if min(size) < minimum:
        raise ValueError(f"data.image_size {size} is smaller than {what}")


def require_fitting(path: Path, model: ModelConfig, numbers: int) -> None:
    """Raise InputError if a file of so many numbers asks for a model with far more weights, before these are made."""
    if model.weights > 4 * numbers:  # a file for inference lacks the weights that only training needs
        problem = f"its configuration asks for {model.weights:,} weights, it holds {numbers:,}"
        raise InputError(f"{path}: does not fit the model: {problem}; use another copy")


def other_sizes(weights: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What to configure if a file holds the weights of a ViT of other sizes than the model's, as the beginning of an
    error; else "". weights: arrays by name. wanted: arrays or shapes of the model, likewise."""
    kinds = [{_BLOCK.sub("", name) for name in names if _BLOCK.search(name)} for names in (weights, wanted)]
    stored, own = map(_vit_sizes, (weights, wanted))
    settings = [f"model.{key}={size:g}" for key, size in stored.items() if size != own.get(key)]
    if kinds[0] != kinds[1] or not settings:
        return ""
    if (width := stored["embed_dim"]) != own["embed_dim"]:
        heads = f"={_HEADS[width]}" if width in _HEADS else " as its authors say"
        settings.append(f"model.num_heads{heads}")
    return f"the file's ViT is of other sizes: give {' '.join(settings)}; "


def _vit_sizes(weights: Mapping[str, Any]) -> dict[str, float]:
    """The sizes of a ViT that the shapes of its weights tell; {} for another network."""
    shapes = {name.removeprefix("base."): tuple(getattr(value, "shape", value)) for name, value in weights.items()}
    blocks = {found[1] for found in map(_BLOCK.match, shapes) if found}
    try:
        width, patch = shapes["cls_token"][2], shapes["patch_embed.proj.weight"][2]
        ratio = shapes["blocks.0.mlp.fc1.weight"][0] / width
    except (LookupError, ZeroDivisionError):
        return {}
    return {"embed_dim": width, "depth": len(blocks), "patch_size": patch, "mlp_ratio": ratio}


MODELS: dict[str, ModelConfig] = {
    "pmt_vit_base": PMTConfig(),
    "pmt_vit_small": PMTConfig(embed_dim=384, num_heads=6),
    "pmt_vit_tiny": PMTConfig(embed_dim=192, num_heads=3),
    "agw_resnet50": AGWConfig(),
    "mun_resnet50": MUNConfig(),
}
AnyModelConfig = one_of(*dict.fromkeys((PMTConfig, *map(type, MODELS.values()))))


def list_models() -> list[str]:
    """Names that `create_model` knows, in either framework."""
    return sorted(MODELS)

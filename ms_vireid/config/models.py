"""The models' sections: what each network is made of, and what it costs on paper."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, field_validator, model_validator

from ms_vireid.config.base import Blocks, Count, Kernel, Positive, Rate, Section, Share, Side, Width, between, named


@dataclass(frozen=True)
class Setting:
    """What a network depends on besides its own section of the configuration.

    image_size: (H, W). recompute: keep less and compute it again. batch: P and K. terms: names of the loss terms.
    inference: without the parts that only training needs.
    """

    image_size: tuple[int, int]
    recompute: bool = False
    batch: tuple[int, int] = (8, 4)
    terms: frozenset[str] = frozenset({"ma"})
    inference: bool = False


@dataclass(frozen=True)
class Cost:
    """parameters: how many numbers. kept: activations of a picture that training keeps. largest: those of the largest
    layer, which evaluation needs. A lower bound: a few per cent of the parameters may be missing, and about half of
    what training keeps."""

    parameters: int
    kept: int
    largest: int


class ModelConfig(Section):
    """The keys of every model."""

    can_recompute: ClassVar[bool] = False  # for train.recompute
    name: str
    num_classes: Positive | None = None  # default: the identities of the training set
    pretrained: str = "none"  # ImageNet weights (.safetensors or .ckpt), or none to train from scratch

    @property
    def has_auxiliary(self) -> bool:
        """Whether the network makes a modality between visible and infrared."""
        return False

    def arguments(self, setting: Setting) -> dict[str, Any]:
        """What the network is built with, besides the number of identities, in either framework."""
        return self.model_dump(exclude={"name", "num_classes", "pretrained"})

    def check_image(self, size: tuple[int, int]) -> None:
        """Raise ValueError for pictures of (H, W) that the network cannot take."""
        raise NotImplementedError

    def cost(self, setting: Setting, num_classes: int) -> Cost:
        raise NotImplementedError


class PMTConfig(ModelConfig):
    """The ViT of PMT; `pretrained` is a timm ViT-B/16 224 file."""

    can_recompute: ClassVar[bool] = True
    name: Literal["pmt"] = "pmt"
    patch_size: Side = 16
    stride: Side = 12
    embed_dim: Width = 768
    depth: Blocks = 12
    num_heads: Width = 12
    mlp_ratio: between(1, 400) = 4
    dropout: Rate = 0.03
    drop_path: Rate = 0.1

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "PMTConfig":
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        return self

    def arguments(self, setting: Setting) -> dict[str, Any]:
        return super().arguments(setting) | {"image_size": setting.image_size, "recompute": setting.recompute}

    def check_image(self, size: tuple[int, int]) -> None:
        _require_sides(size, self.patch_size, f"model.patch_size {self.patch_size}")

    def cost(self, setting: Setting, num_classes: int) -> Cost:
        rows, columns = ((side - self.patch_size) // self.stride + 1 for side in setting.image_size)
        tokens, dim, ratio = rows * columns + 1, self.embed_dim, self.mlp_ratio
        block = (4 + 2 * ratio) * dim**2 + (9 + ratio) * dim
        outside = 3 * self.patch_size**2 * dim + (tokens + 8 + num_classes) * dim
        in_block = (8 + 2 * ratio) * tokens * dim + self.num_heads * tokens**2
        kept = self.depth * tokens * dim + in_block if setting.recompute else self.depth * in_block
        largest = (4 + ratio) * tokens * dim + self.num_heads * tokens**2
        return Cost(outside + self.depth * block, kept, largest)


class ResNetConfig(ModelConfig):
    """What the models on a ResNet-50 have; `pretrained` is a torchvision ResNet-50 file."""

    layers: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)  # blocks of each stage
    width: between(1, 6400) = 64  # channels of the stem
    last_stride: Literal[1, 2] = 1  # of the last stage
    pooling_power: Annotated[float, Field(ge=0.01, le=300)] = 3.0  # p of GeM

    def check_image(self, size: tuple[int, int]) -> None:
        stride = 16 * self.last_stride
        _require_sides(size, stride, f"the network's stride {stride}")

    def cost(self, setting: Setting, num_classes: int) -> Cost:
        parts = self.parts(setting, num_classes)
        parameters, kept = map(sum, zip(*parts.values(), strict=True))
        return Cost(parameters, kept, largest=parts["visible stem"][1])

    def parts(self, setting: Setting, num_classes: int) -> dict[str, tuple[int, int]]:
        """Parameters and kept activations of each part of the network."""
        places = _stem_places(setting)
        stem = 3 * 49 * self.width, 2 * self.width * places
        parts = {"visible stem": stem, "infrared stem": stem}
        channels = self.width
        for stage, blocks in enumerate(self.layers):
            inner = self.width * 2**stage
            of_stage = places // 4 ** (1 + stage - (stage == 3 and self.last_stride == 1))
            weights = channels * 4 * inner + blocks * 13 * inner**2
            weights += (channels + (blocks - 1) * 4 * inner) * inner
            channels = 4 * inner
            parts[f"layer{stage + 1}"] = weights, blocks * 12 * inner * of_stage
        return parts | {"classifier": (num_classes * channels, 0)}


class AGWConfig(ResNetConfig):
    """The ResNet-50 of AGW."""

    name: Literal["agw"] = "agw"
    non_local: tuple[Count, Count, Count, Count] = (0, 2, 3, 0)  # last blocks of each stage that one follows
    non_local_width: Width | None = 1  # inner channels, as first released; null: half of the block's

    @model_validator(mode="after")
    def _non_local_blocks_follow_blocks(self) -> "AGWConfig":
        if any(count > blocks for count, blocks in zip(self.non_local, self.layers, strict=True)):
            raise ValueError(f"non_local {list(self.non_local)} exceeds the blocks of layers {list(self.layers)}")
        return self

    def parts(self, setting: Setting, num_classes: int) -> dict[str, tuple[int, int]]:
        parts = super().parts(setting, num_classes)
        for stage, count in enumerate(self.non_local):
            channels = 4 * self.width * 2**stage
            weights = 4 * count * channels * (self.non_local_width or channels // 2)
            parts[f"non-local blocks of layer{stage + 1}"] = weights, 0
        return parts


class MUNConfig(ResNetConfig):
    """The ResNet-50 of MUN with its auxiliary modality; the loss terms decide whether there are prototypes and C_a."""

    name: Literal["mun"] = "mun"
    specific: Literal["layer1", "stem"] = "layer1"  # how far each modality has its own weights
    intermediate: Literal["auxiliary", "X", "mixed", "syncretic", "none"] = "auxiliary"  # Table 2; none: the baseline B
    expansion: between(1, 400) = 4  # width of an intra-modality learner over its channels
    kernel_order: tuple[Kernel, Kernel] = (5, 7)  # on the first and second half of the channels (Eq. 2)
    ratios: Annotated[tuple[Side, ...], Field(min_length=1, max_length=100)] = (2, 4, 6, 12)  # of the average pooling
    layer_scale: Literal["channel", "scalar"] = "channel"
    mixing: Literal["picture", "pixel"] = "picture"  # what has a share of its own in the mixed modality
    memory: Literal["slots", "identity", "none"] = "slots"  # of the prototypes; none: L_ma compares pooled features
    beta: tuple[Share, Share] = (1e-8, 1.0)  # updating ratio of the prototypes, from the first iteration to the last

    @property
    def has_auxiliary(self) -> bool:
        return self.intermediate != "none"

    @field_validator("kernel_order")
    @classmethod
    def _odd(cls, value: tuple[int, int]) -> tuple[int, int]:
        if any(kernel % 2 == 0 for kernel in value):
            raise ValueError(f"the kernels' sizes must be odd, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _channels_can_be_halved(self) -> "MUNConfig":
        if self.specific == "stem" and self.width % 2:
            raise ValueError(f"width {self.width} must be even with specific=stem, as each half has its own kernels")
        return self

    def arguments(self, setting: Setting) -> dict[str, Any]:
        """Prototypes and C_a belong to the loss terms that use them."""
        return super().arguments(setting) | {
            "batch": setting.batch,
            "memory": self.memory if "ma" in setting.terms else "none",
            "auxiliary_classifier": "id_a" in setting.terms,
            "inference": setting.inference,
        }

    def check_image(self, size: tuple[int, int]) -> None:
        """The generator pools the first stage's feature maps, whose sides must be multiples of every ratio."""
        super().check_image(size)
        step = math.lcm(*self.ratios) if self.intermediate == "auxiliary" else 1
        maps = [math.ceil(math.ceil(side / 2) / 2) for side in size]  # after the stem's two strides
        if any(side % step for side in maps):
            fitting = [f"{4 * max(1, round(side / step)) * step}" for side in maps]
            raise ValueError(
                f"model.ratios {list(self.ratios)} do not divide the feature maps of {maps[0]}x{maps[1]} that "
                f"data.image_size {list(size)} gives; sides must be multiples of {4 * step}, as "
                f"[{', '.join(fitting)}]"
            )

    def parts(self, setting: Setting, num_classes: int) -> dict[str, tuple[int, int]]:
        parts = super().parts(setting, num_classes)
        parts["infrared classifier"] = parts["classifier"]
        if self.specific == "layer1":
            parts["infrared layer1"] = parts["layer1"]
        if self.intermediate == "auxiliary":
            channels = self.width * (4 if self.specific == "layer1" else 1)
            kernels = sum(kernel**2 for kernel in self.kernel_order)
            learner = 2 * self.expansion * channels**2 + channels // 2 * kernels
            cross = channels**2 * (sum(ratio**2 for ratio in self.ratios) + 2 * len(self.ratios))
            kept = (2 * self.expansion + len(self.ratios)) * channels * (_stem_places(setting) // 4)
            parts["generator"] = 2 * learner + cross, kept
        if self.memory != "none" and "ma" in setting.terms:
            parts["prototypes"] = 3 * (32 * self.width) ** 2, 0
        return parts


def _require_sides(size: tuple[int, int], least: int, what: str) -> None:
    if min(size) < least:
        raise ValueError(f"data.image_size {size} is smaller than {what}")


def _stem_places(setting: Setting) -> int:
    """Of the stem's feature maps."""
    return math.prod(math.ceil(side / 2) for side in setting.image_size)


AnyModelConfig = Annotated[
    Annotated[PMTConfig, Tag("pmt")] | Annotated[AGWConfig, Tag("agw")] | Annotated[MUNConfig, Tag("mun")], named("pmt")
]
MODELS: dict[str, ModelConfig] = {
    "agw_resnet50": AGWConfig(),
    "mun_resnet50": MUNConfig(),
    "pmt_vit_base": PMTConfig(),
    "pmt_vit_small": PMTConfig(embed_dim=384, num_heads=6),
    "pmt_vit_tiny": PMTConfig(embed_dim=192, num_heads=3),
}


def list_models() -> list[str]:
    """Names that `create_model` knows, in either framework."""
    return sorted(MODELS)


def model_by_name(name: str, **overrides: Any) -> ModelConfig:
    """The architecture of a name of `list_models`, with some of its fields set otherwise.

    Raises:
        ValueError: no model of that name, no such field, or a value that does not fit it.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(list_models())}")
    return type(MODELS[name]).model_validate(MODELS[name].model_dump() | overrides)

"""How the checkpoint files of other projects name our weights: one small table a layout.

The first rule in a table whose pattern matches the beginning of a name applies; a name that matches no rule stays as
it is. Names are without the prefix that all of a file's share; their last parts are PyTorch's or MindSpore's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ms_vireid.command.names import CONFIG_ROOT

# Last part of a parameter's name in MindSpore -> in PyTorch; what is not listed is called alike.
TORCH_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass(frozen=True)
class Rename:
    """`pattern` at the beginning of a name is replaced."""

    pattern: str
    replacement: str


@dataclass(frozen=True)
class Drop:
    """A name that begins with `pattern` is left out, because of `reason`."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class CheckpointLayout:
    """The names of one kind of file.

    title: for messages. marks: names that tell it from the others. model: a value of `model.name` that it fits.
    rules: what becomes of each name. sizes: configuration keys that a weight's shape gives: (name, axis).
    backbone: whose weights it holds, "ViT" or "ResNet", for `model.pretrained` of all models with this
        `ModelConfig.backbone`; "": of a whole model.
    resized: its position embedding, of a square grid, is resized to the model's patches.
    joined: by a part of a weight's name, those of the weights that it is made of, one behind the other.
    refusal: why the weights do not fit although their shapes do, and what to do; "" if they fit. difference: what their
        network computes otherwise, but little.
    """

    title: str
    marks: frozenset[str]
    model: str
    rules: tuple[Rename | Drop, ...] = ()
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)
    backbone: str = ""
    resized: str | None = None
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refusal: str = ""
    difference: str = ""

    @property
    def config(self) -> Path:
        """The recipe of its model, unless another one is given."""
        return CONFIG_ROOT / self.model / "sysu.yaml"

    def fits(self, model: str, backbone: str) -> bool:
        """Whether its weights may be those of a model of this name, on this backbone."""
        return backbone == self.backbone if self.backbone else model == self.model

    def target(self, name: str) -> tuple[str | None, str]:
        """Return our name of `name`, or None and the reason to leave it out."""
        for rule in self.rules:
            if found := re.match(rule.pattern, name):
                if isinstance(rule, Drop):
                    return None, rule.reason
                return found.expand(rule.replacement) + name[found.end() :], ""
        return name, ""


def torch_name(name: str) -> str:
    """PyTorch's name of a weight that has MindSpore's; others stay as they are."""
    path, dot, last = name.rpartition(".")
    return path + dot + TORCH_NAMES.get(last, last)


_CLASSIFIER = {"model.num_classes": ("classifier.weight", 0)}
_HEAD = "the forward pass never uses it"
_NOT_RUN = "of this ResNet only {} are run"
_NON_LOCAL = {"model.non_local_width": ("non_local_3.0.theta.weight", 0)}  # 1 in the first release, C/2 in later ones

PMT = CheckpointLayout(
    title="PMT, the authors' or this project's",
    marks=frozenset({"base.patch_embed.proj.weight"}),
    model="pmt",
    rules=(Drop(r"base\.(fc|head)\.", _HEAD),),
    sizes=_CLASSIFIER,
)
AGW = CheckpointLayout(
    title="AGW, this project's",
    marks=frozenset({"visible_stem.conv1.weight"}),
    model="agw",
    sizes=_CLASSIFIER | _NON_LOCAL,
)
AGW_BASELINE = CheckpointLayout(
    title="the AGW baseline",
    marks=frozenset({"base_resnet.base.layer1.0.conv1.weight"}),
    model="agw",
    rules=(
        Rename(r"visible_module\.visible\.(conv1|bn1)\.", r"visible_stem.\1."),
        Rename(r"thermal_module\.thermal\.(conv1|bn1)\.", r"infrared_stem.\1."),
        Drop(r"(visible_module\.visible|thermal_module\.thermal)\.", _NOT_RUN.format("conv1 and bn1")),
        Drop(r"base_resnet\.base\.(conv1|bn1|fc)\.", _NOT_RUN.format("layer1 to layer4")),
        Rename(r"base_resnet\.base\.", "base."),
        Rename(r"NL_([23])\.(\d+)\.g\.0\.", r"non_local_\1.\2.g."),  # g is a list of one layer there
        Rename(r"NL_([23])\.", r"non_local_\1."),
    ),
    sizes=_CLASSIFIER | _NON_LOCAL,
)
MUN = CheckpointLayout(
    title="MUN, this project's",
    marks=frozenset({"visible_stage.conv1.weight"}),
    model="mun",
    sizes={"model.num_classes": ("visible_classifier.weight", 0)},
)
TIMM_VIT = CheckpointLayout(
    title="timm's ViT",
    marks=frozenset({"patch_embed.proj.weight"}),
    model="pmt",
    rules=(Drop(r"(head|fc_norm|pre_logits)\.", "ImageNet's head"),),
    backbone="ViT",
    resized="pos_embed",
)
MINDCV_VIT = CheckpointLayout(
    title="mindcv's ViT",
    marks=frozenset({"patch_embedding.conv.weight"}),
    model="pmt",
    rules=(
        Drop(r"head\.", "ImageNet's head"),
        Rename(r"cls$", "cls_token"),
        Rename(r"pos_embedding$", "pos_embed"),
        Rename(r"patch_embedding\.conv\.", "patch_embed.proj."),
        Rename(r"transformer\.layers\.(\d+)\.0\.cell\.0\.", r"blocks.\1.norm1."),
        Rename(r"transformer\.layers\.(\d+)\.0\.cell\.1\.out\.", r"blocks.\1.attn.proj."),
        Rename(r"transformer\.layers\.(\d+)\.0\.cell\.1\.", r"blocks.\1.attn."),
        Rename(r"transformer\.layers\.(\d+)\.1\.cell\.0\.", r"blocks.\1.norm2."),
        Rename(r"transformer\.layers\.(\d+)\.1\.cell\.1\.dense([12])\.", r"blocks.\1.mlp.fc\2."),
    ),
    backbone="ViT",
    resized="pos_embed",
)
_HUGGING_FACE_VIT = (
    Drop(r"(classifier|pooler)\.", "ImageNet's head"),
    Drop(r"embeddings\.mask_token$", "of masked images"),
    Rename(r"embeddings\.cls_token$", "cls_token"),
    Rename(r"embeddings\.position_embeddings$", "pos_embed"),
    Rename(r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    Rename(r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    Rename(r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    Rename(r"layernorm\.", "norm."),
)
HUGGING_FACE_VIT = CheckpointLayout(
    title="the transformers library's ViT",  # and mindone's
    marks=frozenset({"embeddings.patch_embeddings.projection.weight", "encoder.layer.0.intermediate.dense.weight"}),
    model="pmt",
    rules=(
        *_HUGGING_FACE_VIT,
        Rename(r"encoder\.layer\.(\d+)\.attention\.attention\.qkv\.", r"blocks.\1.attn.qkv."),
        Rename(r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        Rename(r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
        Rename(r"encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    ),
    backbone="ViT",
    resized="pos_embed",
    joined={"qkv": ("query", "key", "value")},
)
HUGGING_FACE_VIT_5 = replace(
    HUGGING_FACE_VIT,
    title="the ViT of transformers 5, as torch.save saves it",  # save_pretrained writes the earlier names
    marks=frozenset({"embeddings.patch_embeddings.projection.weight", "layers.0.mlp.fc1.weight"}),
    rules=(
        *_HUGGING_FACE_VIT,
        Rename(r"layers\.(\d+)\.attention\.qkv\.", r"blocks.\1.attn.qkv."),
        Rename(r"layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
        Rename(r"layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
    ),
    joined={"qkv": ("q_proj", "k_proj", "v_proj")},
)
TORCHVISION_RESNET = CheckpointLayout(
    title="torchvision's ResNet-50",
    marks=frozenset({"conv1.weight", "layer1.0.conv1.weight"}),
    model="agw",
    rules=(Drop(r"(fc|head|classifier)\.", "ImageNet's head"),),
    backbone="ResNet",
)
MINDCV_RESNET = replace(
    TORCHVISION_RESNET,
    title="mindcv's ResNet-50",
    marks=frozenset({"conv1.weight", "layer1.0.down_sample.0.weight"}),
    rules=(*TORCHVISION_RESNET.rules, Rename(r"(layer\d\.\d+)\.down_sample\.", r"\1.downsample.")),
    difference="mindcv pads its max pooling at the end alone, this network on both sides, a shift of one pixel",
)
MODEL_ZOO_RESNET = CheckpointLayout(
    title="the ResNet-50 of MindSpore's model zoo",
    marks=frozenset({"conv1.weight", "layer1.0.down_sample_layer.0.weight"}),
    model="agw",
    backbone="ResNet",
    refusal="its shapes fit, but it pads as 'same' and its BatchNorm's eps is 1e-4, not 1e-5, so here its weights "
    "would compute other features; give torchvision's or mindcv's ResNet-50",
)
_STAGES = [(rf"encoder\.stages\.{n}\.layers\.(\d+)\.", rf"layer{n + 1}.\1.") for n in range(4)]
HUGGING_FACE_RESNET = CheckpointLayout(
    title="the transformers library's ResNet-50",  # and mindone's
    marks=frozenset({"embedder.embedder.convolution.weight"}),
    model="agw",
    rules=(
        Drop(r"classifier\.", "ImageNet's head"),
        Rename(r"embedder\.embedder\.convolution\.", "conv1."),
        Rename(r"embedder\.embedder\.normalization\.", "bn1."),
        *(Rename(rf"{theirs}shortcut\.convolution\.", f"{ours}downsample.0.") for theirs, ours in _STAGES),
        *(Rename(rf"{theirs}shortcut\.normalization\.", f"{ours}downsample.1.") for theirs, ours in _STAGES),
        *(
            Rename(rf"{theirs}layer\.{k}\.{kind}\.", f"{ours}{short}{k + 1}.")
            for theirs, ours in _STAGES
            for k in range(3)
            for kind, short in (("convolution", "conv"), ("normalization", "bn"))
        ),
    ),
    backbone="ResNet",
)
_RESNETS = (MODEL_ZOO_RESNET, MINDCV_RESNET, TORCHVISION_RESNET)  # the last one's marks are in the others as well
_HUGGING_FACE = (HUGGING_FACE_VIT, HUGGING_FACE_VIT_5, HUGGING_FACE_RESNET)
LAYOUTS = (PMT, AGW, AGW_BASELINE, MUN, TIMM_VIT, MINDCV_VIT, *_RESNETS, *_HUGGING_FACE)


def detect(names: Iterable[str]) -> CheckpointLayout | None:
    """Return the layout whose marks are all among `names`."""
    names = set(names)
    return next((layout for layout in LAYOUTS if layout.marks <= names), None)

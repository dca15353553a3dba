"""How the checkpoint files of other projects name our weights: one small table a layout.

The first rule in a table whose pattern matches the beginning of a name applies; a name that matches no rule stays as
it is. Names are PyTorch's, without a `module.` prefix (DataParallel's).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ms_vireid.config import CONFIG_ROOT


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
class Layout:
    """The names of one kind of file.

    title: for messages. marks: names that tell it from the others. models: values of `model.name` that it fits.
    config: the recipe it was trained with, unless another one is given.
    rules: what becomes of each name. sizes: configuration keys that a weight's shape gives: (name, axis).
    parts: the network's parts that hold its weights, by name; () is the whole network, else the file is a backbone
        for `model.pretrained`. resized: its position embedding, of a square grid, is resized to the model's patches.
    """

    title: str
    marks: frozenset[str]
    models: tuple[str, ...]
    config: Path
    rules: tuple[Rename | Drop, ...] = ()
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    resized: str | None = None

    def target(self, name: str) -> tuple[str | None, str]:
        """Return our name of `name`, or None and the reason to leave it out."""
        for rule in self.rules:
            if found := re.match(rule.pattern, name):
                if isinstance(rule, Drop):
                    return None, rule.reason
                return found.expand(rule.replacement) + name[found.end() :], ""
        return name, ""


_CLASSIFIER = {"model.num_classes": ("classifier.weight", 0)}
_HEAD = "the forward pass never uses it"
_NOT_RUN = "of this ResNet only {} are run"
_NON_LOCAL = {"model.non_local_width": ("non_local_3.0.theta.weight", 0)}  # 1 in the first release, C/2 in later ones

PMT = Layout(
    title="PMT, the authors' or this project's",
    marks=frozenset({"base.patch_embed.proj.weight"}),
    models=("pmt",),
    config=CONFIG_ROOT / "pmt/sysu.yaml",
    rules=(Drop(r"base\.(fc|head)\.", _HEAD),),
    sizes=_CLASSIFIER,
)
AGW = Layout(
    title="AGW, this project's",
    marks=frozenset({"visible_stem.conv1.weight"}),
    models=("agw",),
    config=CONFIG_ROOT / "agw/sysu.yaml",
    sizes=_CLASSIFIER | _NON_LOCAL,
)
AGW_BASELINE = Layout(
    title="the AGW baseline",
    marks=frozenset({"base_resnet.base.layer1.0.conv1.weight"}),
    models=("agw",),
    config=CONFIG_ROOT / "agw/sysu.yaml",
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
TIMM_VIT = Layout(
    title="timm's ViT",
    marks=frozenset({"patch_embed.proj.weight"}),
    models=("pmt",),
    config=CONFIG_ROOT / "pmt/sysu.yaml",
    rules=(Drop(r"(head|fc_norm|pre_logits)\.", "ImageNet's head"),),
    parts=("base",),
    resized="pos_embed",
)
TORCHVISION_RESNET = Layout(
    title="torchvision's ResNet-50",
    marks=frozenset({"conv1.weight", "layer1.0.conv1.weight"}),
    models=("agw", "mun"),
    config=CONFIG_ROOT / "agw/sysu.yaml",
    rules=(Drop(r"fc\.", "ImageNet's head"),),
    parts=("visible_stem", "base"),
)
LAYOUTS = (PMT, AGW, AGW_BASELINE, TIMM_VIT, TORCHVISION_RESNET)


def detect(names: Iterable[str]) -> Layout | None:
    """Return the layout whose marks are all among `names`."""
    names = set(names)
    return next((layout for layout in LAYOUTS if layout.marks <= names), None)


def without_prefix(names: Iterable[str]) -> dict[str, str]:
    """Strip the `module.` that DataParallel puts before every name."""
    names = list(names)
    wrapped = bool(names) and all(name.startswith("module.") for name in names)
    return {name: name.removeprefix("module.") if wrapped else name for name in names}

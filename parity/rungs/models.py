"""Rung 4: each model's outputs layer by layer, every parameter's gradient by name, and BatchNorm's statistics."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from mindspore import nn

from ms_vireid.backends.choosing import backend_named
from ms_vireid.data.randomness import step_key
from ms_vireid.models import VisionTransformer
from ms_vireid.models import create_model as mindspore_model
from ms_vireid.models.resnet import ResNet
from ms_vireid.models.vit import resize_position_embedding
from parity.compare import FORWARD, NORMALISED, Comparison, compare
from parity.harness import (
    ALL_BUT_KERNELS,
    Case,
    CompareBackend,
    Pair,
    compare_evaluation,
    compare_half,
    compare_training,
    compare_with_float64,
    evaluated,
    from_saved_buffers,
    same_weights,
    trace,
)
from parity.oracles import timm_vit, torchvision
from parity.states import to_mindspore
from torch_ref.models import create_model as torch_model

CLASSES = 7


@dataclass(frozen=True)
class Model:
    """A model of `create_model` at one size.

    off: settings that switch stochastic layers off. parts: modalities in a batch.
    chaotic: BatchNorm and ReLU are so deep that float32 gradients are compared with float64's.
    """

    name: str
    image_size: tuple[int, int]
    batch: int
    settings: dict[str, Any] = field(default_factory=dict)
    off: dict[str, Any] = field(default_factory=dict)
    small: bool = True
    chaotic: bool = False
    parts: int = 2

    def pair(self, stochastic: bool = False) -> Pair:
        settings = self.settings if stochastic else self.settings | self.off
        arguments = (self.name, CLASSES, self.image_size)
        settings |= {} if self.parts == 2 else {"parts": self.parts}
        pair = mindspore_model(*arguments, **settings), torch_model(*arguments, **settings)
        same_weights(*pair, residual=0.1 if self.chaotic else 1.0)
        return pair

    def images(self) -> np.ndarray:
        """Draw large blotches of colour, different in each picture, with a little noise. On noise alone all pooled
        features would be alike, and BatchNorm would divide their rounding by a variance near 0."""
        rng = np.random.default_rng(1)
        blotches = torch.from_numpy(rng.normal(size=(self.batch, 3, 6, 3)))
        smooth = torch.nn.functional.interpolate(blotches, size=self.image_size, mode="bilinear").numpy()
        return (2.0 * smooth + 0.1 * rng.normal(size=smooth.shape)).astype(np.float32)

    def training_inputs(self) -> tuple[Any, ...]:
        """Return images, no modality, a step's key, and labels of two identities in each part."""
        labels = np.sort(np.resize(np.int32([4, 2]), self.batch // self.parts))[::-1]
        return self.images(), None, step_key(0, 5), np.tile(labels, self.parts)


_NO_DROPOUT = {"dropout": 0.0, "drop_path": 0.0}
_MUN = {"layers": (1, 2, 1, 1), "width": 8, "ratios": (2, 3), "batch": (2, 2)}
MODELS = {
    "PMT small": Model(
        "pmt_vit_tiny",
        (64, 32),
        16,  # with eight pictures BatchNorm takes PyTorch's own gradients 9e-5 from float64's
        {"depth": 3, "embed_dim": 96, "num_heads": 6, "dropout": 0.1, "drop_path": 0.2},
        _NO_DROPOUT,
    ),
    "AGW small": Model("agw_resnet50", (48, 24), 8, {"layers": (1, 2, 3, 1), "width": 8, "non_local_width": None}),
    "MUN small": Model("mun_resnet50", (48, 24), 8, _MUN),
    "MUN small, X": Model("mun_resnet50", (48, 24), 8, _MUN | {"intermediate": "X"}, small=False),
    "MUN small, mixed": Model("mun_resnet50", (48, 24), 8, _MUN | {"intermediate": "mixed"}, small=False),
    "MUN small, syncretic": Model("mun_resnet50", (48, 24), 8, _MUN | {"intermediate": "syncretic"}, small=False),
    "MUN small, B": Model("mun_resnet50", (48, 24), 8, _MUN | {"intermediate": "none"}, small=False),
    "MUN small, open choices": Model(
        "mun_resnet50",
        (96, 48),
        16,
        _MUN
        | {"batch": (2, 4), "classified": "pooled", "batch_norm": "each", "pooling_learned": True, "last_stride": 2},
        small=False,
    ),
    "MUN small, three parts": Model(
        "mun_resnet50",
        (48, 24),
        24,  # with four pictures a part BatchNorm takes rounding up to the limit
        _MUN | {"batch": (2, 4), "tested": "pooled", "batch_norm": "each"},
        small=False,
        parts=3,
    ),
    "AGW small, three parts": Model(
        "agw_resnet50",
        (48, 24),
        12,
        {"layers": (1, 2, 3, 1), "width": 8, "non_local_width": None},
        small=False,
        parts=3,
    ),
    "MUN small, identity memory": Model("mun_resnet50", (48, 24), 8, _MUN | {"memory": "identity"}, small=False),
    "pmt_vit_base": Model("pmt_vit_base", (256, 128), 6, {}, _NO_DROPOUT, small=False),
    "agw_resnet50": Model("agw_resnet50", (288, 144), 4, small=False, chaotic=True),
    "mun_resnet50": Model("mun_resnet50", (288, 144), 4, {"batch": (2, 1)}, small=False, chaotic=True),
}


def forward(model: Model) -> CompareBackend:
    """Compare every layer's output and the features in evaluation, for each modality with its own path. The layers of a
    large graph, which compiles slowly, are compared only if its features are over the limit."""
    pair = model.pair()
    modalities = ("visible", "infrared") if pair[0].BY_MODALITY else ("visible",)
    given = [(model.images(), modality) for modality in modalities]
    parts = [(trace(pair, inputs), compare_evaluation(pair, inputs)) for inputs in given]

    def compare_backend(backend: str) -> list[Comparison]:
        comparisons = []
        for layers, outputs in parts:
            features = outputs(backend)
            quick = model.small or not backend_named(backend).compiled
            explained = quick or not all(comparison.passed for comparison in features)
            comparisons += (layers(backend) if explained else []) + features
        return comparisons

    return compare_backend


def gradients(model: Model, stochastic: bool = False) -> CompareBackend:
    """Compare gradients: by `compare_with_float64` for a chaotic model, else by `compare_training`, where the features
    after BNNeck (output 2) have a tolerance of their own."""
    pair = model.pair(stochastic)
    if model.chaotic:
        return from_saved_buffers(pair[0], compare_with_float64(pair, model.training_inputs()))
    compared = from_saved_buffers(pair[0], compare_training(pair, model.training_inputs()))

    def compare_backend(backend: str) -> list[Comparison]:
        return [replace(one, tolerance=NORMALISED) if one.tensor == "output 2" else one for one in compared(backend)]

    return compare_backend


def half(model: Model) -> CompareBackend:
    """Compare gradients in float16."""
    pair = model.pair()
    return from_saved_buffers(pair[0], compare_half(pair, model.training_inputs()))


def timm(image_size: tuple[int, int], patch: int, stride: int, width: int, depth: int, heads: int) -> CompareBackend:
    """Compare the ViT with timm's, with timm's initial weights; positions are resized if patches overlap."""
    torch.manual_seed(0)
    # A square picture for the weights, as ImageNet's: 14 x 14 positions at 224 pixels.
    source = timm_vit((14 * patch, 14 * patch), patch, patch, width, depth, heads).state_dict()
    cell = VisionTransformer(image_size, patch, stride, width, depth, heads)
    positions = resize_position_embedding(source["pos_embed"].numpy(), cell.patch_embed.grid_size)
    state = source | {"pos_embed": torch.from_numpy(positions)}
    to_mindspore(state, cell)
    oracle = timm_vit(image_size, patch, stride, width, depth, heads).eval()
    oracle.load_state_dict(state)
    images = np.random.default_rng(2).normal(size=(2, 3, *image_size)).astype(np.float32)
    with torch.no_grad():
        expected = oracle(torch.from_numpy(images)).numpy()
    return _output_alone("CLS features", cell, images, expected)


def torchvision_resnet() -> CompareBackend:
    """Compare the ResNet with torchvision's, stride 2 in the last stage, with torchvision's initial weights."""
    torch.manual_seed(0)
    oracle = torchvision.models.resnet50()
    for layer in oracle.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # statistics as after training
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2.0)
    oracle.fc, oracle.avgpool = torch.nn.Identity(), torch.nn.Identity()
    cell = ResNet(last_stride=2)
    to_mindspore(oracle.state_dict(), cell)
    images = np.random.default_rng(3).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        expected = oracle.eval()(torch.from_numpy(images)).reshape(2, 2048, 7, 7).numpy()
    return _output_alone("feature map", cell, images, expected)


def _output_alone(what: str, cell: nn.Cell, images: np.ndarray, expected: np.ndarray) -> CompareBackend:
    def compare_backend(backend: str) -> list[Comparison]:
        return [compare(what, evaluated(cell, (images,), backend)["0"], expected, FORWARD)]

    return compare_backend


def _cases(name: str, model: Model) -> list[Case]:
    cases = [Case(4, name, partial(forward, model), model.small)]
    cases.append(Case(4, f"{name}, gradients", partial(gradients, model), model.small))
    if model.off:
        cases.append(
            Case(4, f"{name}, gradients with dropout", partial(gradients, model, stochastic=True), model.small)
        )
    return cases


CASES = [
    *(case for name, model in MODELS.items() for case in _cases(name, model)),
    # The kernels compute in float32 alone: with train.amp their backend is the operators'.
    *(
        Case(4, f"{name}, float16", partial(half, MODELS[name]), backends=ALL_BUT_KERNELS)
        for name in ("PMT small", "AGW small", "MUN small")
    ),
    Case(4, "torchvision ResNet-50", torchvision_resnet, small=False),
    Case(4, "timm ViT, stride 16", partial(timm, (64, 32), 16, 16, 96, 3, 4)),
    Case(4, "timm ViT, stride 12", partial(timm, (64, 32), 16, 12, 96, 3, 4)),
    Case(4, "timm ViT-B/16, stride 16", partial(timm, (256, 128), 16, 16, 768, 12, 12), small=False),
    Case(4, "timm ViT-B/16, stride 12", partial(timm, (256, 128), 16, 12, 768, 12, 12), small=False),
]

"""Rung 2: each layer's output, the gradient of its inputs and weights, and its buffers; small and at ViT-B's widths."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import mindspore as ms
import numpy as np
import torch
from mindspore import nn

from ms_vireid import models as mindspore_models
from ms_vireid.data.randomness import step_key
from ms_vireid.models import layers as mindspore_layers
from ms_vireid.models import noise as mindspore_noise
from ms_vireid.models import vit as mindspore_vit
from parity.compare import EXACT, FORWARD, Comparison, compare
from parity.harness import (
    ALL_BUT_KERNELS,
    FUNCTION_BACKENDS,
    Case,
    CompareBackend,
    compare_evaluation,
    compare_half,
    compare_training,
    computed_by,
    evaluated,
    from_saved_buffers,
    once,
    same_weights,
)
from torch_ref import models as torch_models
from torch_ref.models import layers as torch_layers
from torch_ref.models import noise as torch_noise
from torch_ref.models import vit as torch_vit

KEY = step_key(0, 3)
RATES = tuple(0.1 * (i // 2) / 11 for i in range(24))  # of drop path in a ViT-B
BATCH, TOKENS = 4, 211  # at the real widths: 21 x 10 patches and CLS
HASHES = {"position_noise": (422, 768), "path_factors": (RATES, 64), "uniforms": (73,)}
SIZES = {"": (3, 10, 48, 4), "ViT-B": (BATCH, TOKENS, 768, 12)}  # images, tokens, width, heads


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def agree(build: Callable[[ModuleType], Any], *inputs: Any, modes: str = "both") -> CompareBackend:
    """Build the layer in both frameworks, by `build(models package)`, and compare all it does."""
    return agree_pair((build(mindspore_models), build(torch_models)), *inputs, modes=modes)


def agree_pair(pair: tuple[nn.Cell, torch.nn.Module], *inputs: Any, modes: str = "both") -> CompareBackend:
    same_weights(*pair)
    compared = {
        "train": (compare_training,),
        "both": (compare_training, compare_evaluation),
        "float16": (compare_half,),
    }
    return from_saved_buffers(pair[0], *(of(pair, inputs) for of in compared[modes]))


def noise(shape: tuple[int, int, int], rates: tuple[float, ...] = (0.0, 0.0)) -> tuple[np.ndarray, ...]:
    """Draw noise. rates: of two layers at least, as MindSpore's RightShift refuses [1, N] on a GPU."""
    return tuple(part.asnumpy() for part in mindspore_noise.draw_noise(ms.Tensor(KEY), shape, rates, 0.0))


def hashes() -> CompareBackend:
    """Compare the integers behind all masks, bit by bit."""
    key = torch.tensor(KEY)
    expected = {name: getattr(torch_noise, name)(key, *arguments).numpy() for name, arguments in HASHES.items()}

    def compare_backend(backend: str) -> list[Comparison]:
        comparisons = []
        for name, arguments in HASHES.items():
            actual = computed_by(backend, getattr(mindspore_noise, name))(ms.Tensor(KEY), *arguments)
            comparisons.append(compare(name, actual.asnumpy(), expected[name], EXACT))
        return comparisons

    return compare_backend


def dropout() -> CompareBackend:
    images, tokens, width, _ = SIZES[""]
    return agree(
        lambda models: models.layers.Dropout(0.3, layer=2, parts=4),
        values(images, tokens, 4 * width) + 2.0,  # away from 0, so that a mask can be told from a value
        noise((images, tokens, width)),
    )


def drop_path() -> CompareBackend:
    return agree(
        lambda models: models.layers.DropPath(0.4, layer=5), values(16, 3, 5) + 2.0, noise((16, 3, 5), (0.4,) * 6)
    )


def position_resize() -> list[Comparison]:
    embedding = values(1, 197, 768)
    return [
        compare(
            f"positions {grid}",
            mindspore_vit.resize_position_embedding(embedding, grid),
            torch_vit.resize_position_embedding(torch.from_numpy(embedding), grid).numpy(),
            FORWARD,
        )
        for grid in ((21, 10), (16, 8), (14, 14), (5, 30))
    ]


def multihead_attention(images: int, tokens: int, width: int, heads: int) -> CompareBackend:
    """Compare with torch.nn.MultiheadAttention, whose packed projection orders query, key and value in the same way."""
    cell = mindspore_vit.Attention(width, heads, dropout=0.0, index=0)
    oracle = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    same_weights(cell, twin := torch_vit.Attention(width, heads, dropout=0.0, index=0))
    state = twin.state_dict()
    oracle.load_state_dict(
        {
            "in_proj_weight": state["qkv.weight"],
            "in_proj_bias": state["qkv.bias"],
            "out_proj.weight": state["proj.weight"],
            "out_proj.bias": state["proj.bias"],
        }
    )
    x = values(images, tokens, width)
    with torch.no_grad():
        expected, _ = oracle.eval()(*[torch.from_numpy(x)] * 3, need_weights=False)

    def compare_backend(backend: str) -> list[Comparison]:
        return [compare("output", evaluated(cell, (x, None), backend)["0"], expected.numpy(), FORWARD)]

    return compare_backend


def _sized(label: str, images: int, tokens: int, width: int, heads: int) -> list[Case]:
    """Make the cases of the transformer's layers at one size; all take tokens [N, T, D]."""
    x = values(images, tokens, width)
    # Tokens whose variances go down to LayerNorm's eps: at 1 alone a wrong eps would hide below the tolerance.
    faint = x * np.geomspace(1e-3, 1, tokens, dtype=np.float32)[:, None]
    small = label == ""

    def case(subject: str, *arguments: Any, modes: str = "train", **keywords: Any) -> Case:
        return Case(2, f"{subject} {label}".rstrip(), lambda: agree(*arguments, modes=modes, **keywords), small)

    return [
        case("LayerNorm", lambda models: models.vit.layer_norm(width), faint),
        Case(2, f"GELU {label}".rstrip(), lambda: gelu(3.0 * x), small),
        case("Linear", lambda models: models.vit.dense(width, 3 * width), x),
        case("Attention", lambda models: models.vit.Attention(width, heads, 0.0, 0), x, None),
        case("Mlp", lambda models: models.vit.Mlp(width, 4, 0.0, 0), x, None),
        case("Block", lambda models: models.vit.Block(width, heads, 4, 0.0, 0.0, 0), x),
        case(
            "Block with dropout and drop path",
            lambda models: models.vit.Block(width, heads, 4, 0.1, 0.2, 0),
            x,
            noise((images, tokens, width), (0.2, 0.2)),
        ),
        case("BNNeck", lambda models: models.layers.bn_neck(width), x[:, 0] + 0.5, modes="both"),
        case("classifier", lambda models: models.layers.identity_classifier(width, 395), x[:, 0]),
        Case(
            2,
            f"Attention {label}".rstrip() + ", torch.nn.MultiheadAttention",
            lambda: multihead_attention(images, tokens, width, heads),
            small,
        ),
    ]


def gelu(x: np.ndarray) -> CompareBackend:
    """Compare with PyTorch's GELU, as in the twin's MLP."""
    return agree_pair((nn.GELU(approximate=False), torch_vit.Mlp(4, 1, 0.0, 0).act), x, modes="train")


def large_scores() -> CompareBackend:
    """Attention with scores up to 100: softmax must subtract the largest, as float32 cannot hold exp(100)."""
    images, tokens, width, heads = SIZES[""]
    x = 40.0 * values(images, tokens, width)
    return agree(lambda models: models.vit.Attention(width, heads, 0.0, 0), x, None, modes="train")


def l2_normalise() -> CompareBackend:
    x = values(5, 12)
    x[2] = 0.0  # no direction: stays 0
    expected = torch_layers.l2_normalise(torch.from_numpy(x)).numpy()

    def compare_backend(backend: str) -> list[Comparison]:
        actual = computed_by(backend, mindspore_layers.l2_normalise)(ms.Tensor(x))
        return [compare("output", actual.asnumpy(), expected, FORWARD)]

    return compare_backend


def patch_embed(size: tuple[int, int], patch: int, stride: int, width: int) -> CompareBackend:
    return agree(lambda models: models.vit.PatchEmbed(size, patch, stride, width), values(2, 3, *size), modes="train")


def feature_map(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 [N, C, H, W], not negative, as after a ReLU."""
    return np.maximum(values(*shape, seed=seed), 0.0)


def convolutional(
    subject: str, build: Callable[[ModuleType], Any], *shape: int, small: bool = True, maps: int = 1
) -> Case:
    """Make the case of a convolutional layer. maps: 2 if it takes visible and infrared ones."""
    return Case(2, subject, lambda: agree(build, *(feature_map(*shape, seed=i) for i in range(maps))), small)


CONVOLUTIONAL = [
    convolutional("BatchNorm", lambda models: models.resnet.batch_norm(8), 4, 8, 7, 5),
    convolutional("ResNet stem", lambda models: models.resnet.ResNet(width=8, stages=()), 4, 3, 48, 24),
    # Odd sizes: the last row and column of Winograd's tiles are cut off.
    convolutional("3x3 convolution, 64 channels", lambda m: m.resnet.convolution(64, 64, 3), 2, 64, 9, 5),
    convolutional("Bottleneck", lambda models: models.resnet.Bottleneck(32, 8, 1), 4, 32, 9, 5),
    convolutional("Bottleneck, projected", lambda models: models.resnet.Bottleneck(16, 8, 2), 4, 16, 9, 6),
    convolutional("GeM", lambda models: models.layers.GeM(3.0, eps=1e-12), 4, 16, 9, 5),
    convolutional("GeM, learned", lambda models: models.layers.GeM(2.5, eps=1e-12, learned=True), 4, 16, 9, 5),
    convolutional("NonLocal, width 1", lambda models: models.agw.NonLocal(24, 1), 3, 24, 6, 4),
    convolutional("NonLocal, width 12", lambda models: models.agw.NonLocal(24, 12), 3, 24, 6, 4),
    convolutional("IntraModalityLearner", lambda m: m.auxiliary_generator.IntraModalityLearner(8), 3, 8, 12, 6),
    convolutional(
        "IntraModalityLearner, 7x7 first",
        lambda models: models.auxiliary_generator.IntraModalityLearner(8, kernel_order=(7, 5)),
        *(3, 8, 12, 6),
    ),
    convolutional(  # of sizes that no kernel has
        "IntraModalityLearner, 9x9 first",
        lambda models: models.auxiliary_generator.IntraModalityLearner(8, kernel_order=(9, 3)),
        *(3, 8, 12, 6),
    ),
    convolutional(
        "CrossModalityLearner", lambda m: m.auxiliary_generator.CrossModalityLearner(8, (2, 3)), 3, 8, 12, 6, maps=2
    ),
    convolutional(
        "AuxiliaryGenerator", lambda m: m.auxiliary_generator.AuxiliaryGenerator(8, ratios=(2, 3)), 3, 8, 12, 6, maps=2
    ),
    convolutional(
        "AuxiliaryGenerator ResNet-50",
        lambda models: models.auxiliary_generator.AuxiliaryGenerator(256),
        *(2, 256, 12, 12),
        small=False,
        maps=2,
    ),
    # Not at 72x36: of millions of activations some are 0 up to rounding, and ReLU's gradient there is arbitrary.
    convolutional("Bottleneck ResNet-50", lambda m: m.resnet.Bottleneck(256, 128, 2), 2, 256, 18, 10, small=False),
    convolutional("NonLocal ResNet-50", lambda models: models.agw.NonLocal(1024, 1), 4, 1024, 18, 9, small=False),
]
_IMAGES, _TOKENS, _WIDTH, _HEADS = SIZES[""]
_SEQUENCE, _MAP = (_IMAGES, _TOKENS, _WIDTH), (4, 32, 9, 5)
# The kernels compute in float32 alone: with train.amp their backend is the operators'.
HALF = [
    Case(
        2,
        f"{subject}, float16",
        lambda build=build, inputs=inputs: agree(build, *inputs, modes="float16"),
        backends=ALL_BUT_KERNELS,
    )
    for subject, build, *inputs in (
        ("Linear", lambda models: models.vit.dense(_WIDTH, 3 * _WIDTH), values(*_SEQUENCE)),
        ("Attention", lambda models: models.vit.Attention(_WIDTH, _HEADS, 0.0, 0), values(*_SEQUENCE), None),
        # CANN's fused attention takes heads of a multiple of 16 channels. Scores of about 1, which their scale changes.
        ("Attention, 3 heads", lambda models: models.vit.Attention(_WIDTH, 3, 0.0, 0), 10 * values(*_SEQUENCE), None),
        ("Block", lambda models: models.vit.Block(_WIDTH, _HEADS, 4, 0.0, 0.0, 0), values(*_SEQUENCE)),
        ("Bottleneck", lambda models: models.resnet.Bottleneck(32, 8, 1), feature_map(*_MAP)),
        ("NonLocal", lambda models: models.agw.NonLocal(32, 1), feature_map(*_MAP)),
        ("IntraModalityLearner", lambda m: m.auxiliary_generator.IntraModalityLearner(32), feature_map(*_MAP)),
    )
]
CASES = [
    Case(2, "hashes of dropout", hashes, backends=FUNCTION_BACKENDS),
    Case(2, "Dropout", dropout),
    Case(2, "DropPath", drop_path),
    Case(2, "L2 normalisation", l2_normalise, backends=FUNCTION_BACKENDS),
    once(2, "position embedding resized", position_resize),
    Case(2, "PatchEmbed", lambda: patch_embed((40, 28), 8, 6, 24)),
    Case(2, "PatchEmbed ViT-B", lambda: patch_embed((256, 128), 16, 12, 768), small=False),
    *(case for label, size in SIZES.items() for case in _sized(label, *size)),
    Case(2, "Attention with large scores", large_scores),
    *CONVOLUTIONAL,
    *HALF,
]

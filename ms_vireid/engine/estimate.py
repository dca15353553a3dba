"""What a configured network needs at least, on paper, before anything is allocated; without a framework."""

import math
from dataclasses import dataclass
from pathlib import Path

from ms_vireid.config import AGWConfig, Config, MUNConfig, PMTConfig, ResNetConfig
from ms_vireid.errors import InputError
from ms_vireid.memory import require_memory

_FLOAT32 = 4  # bytes
_COPIES = {"adamw": 4, "sgd": 3}  # of a weight in training: itself, its gradient, the optimizer's states

_MOST_TIMES = 4  # as many parameters as a file for inference holds, which lacks those of training


@dataclass(frozen=True)
class Cost:
    """parameters: numbers in all. kept: activations of a picture that training keeps. largest: those of the largest
    layer, which evaluation needs."""

    parameters: int
    kept: int
    largest: int


def require_memory_for(config: Config, training: bool) -> None:
    """Raise InputError, with the figure, if the network and one batch need more memory than there is."""
    cost = network_cost(config)
    if training:
        images = 2 * config.train.num_identities * config.train.num_instances
        size = _COPIES[config.optimizer.name] * cost.parameters + images * cost.kept
    else:
        images = config.evaluation.batch_size
        size = cost.parameters + images * cost.largest
    height, width = config.data.image_size
    doing = f"model.name={config.model.name} of {cost.parameters:,} parameters on {images} pictures of {height}x{width}"
    require_memory(_FLOAT32 * size, doing, "make the model, the batch or data.image_size smaller")


def require_fitting(path: Path, config: Config, held: int) -> None:
    """Raise InputError if a file of `held` numbers says that it is of far more parameters: before these are made."""
    wanted = network_cost(config).parameters
    if wanted > _MOST_TIMES * held:
        raise InputError(
            f"{path}: does not fit the model: its configuration is of {wanted:,} parameters, and it holds {held:,}; "
            "use another copy"
        )


def network_cost(config: Config) -> Cost:
    """A lower bound: a few per cent of the parameters may be missing, and about half of what training keeps."""
    model, (height, width), classes = config.model, config.data.image_size, config.num_classes or 0
    if isinstance(model, PMTConfig):
        return _vit(model, height, width, classes, config.train.recompute)
    return _resnet(model, height, width, classes, config.terms)


def _vit(model: PMTConfig, height: int, width: int, classes: int, recompute: bool) -> Cost:
    rows, columns = ((side - model.patch_size) // model.stride + 1 for side in (height, width))
    tokens, dim, ratio = rows * columns + 1, model.embed_dim, model.mlp_ratio
    block = (4 + 2 * ratio) * dim**2 + (9 + ratio) * dim
    outside = 3 * model.patch_size**2 * dim + (tokens + 8 + classes) * dim
    in_block = (8 + 2 * ratio) * tokens * dim + model.num_heads * tokens**2
    kept = model.depth * tokens * dim + in_block if recompute else model.depth * in_block
    return Cost(outside + model.depth * block, kept, (4 + ratio) * tokens * dim + model.num_heads * tokens**2)


def _resnet(model: ResNetConfig, height: int, width: int, classes: int, terms: frozenset[str]) -> Cost:
    side = math.ceil(height / 2) * math.ceil(width / 2)
    stem = 3 * 49 * model.width, 2 * model.width * side
    stages, channels = [], model.width
    for stage, blocks in enumerate(model.layers):
        inner = model.width * 2**stage
        places = side // 4 ** (1 + stage - (stage == 3 and model.last_stride == 1))
        weights = channels * 4 * inner + blocks * 13 * inner**2
        weights += (channels + (blocks - 1) * 4 * inner) * inner
        channels = 4 * inner
        stages.append((weights, blocks * 12 * inner * places))
    parts = [stem, stem, *stages, (classes * channels, 0)]
    if isinstance(model, AGWConfig):
        for stage, count in enumerate(model.non_local):
            wide = 4 * model.width * 2**stage
            parts.append((4 * count * wide * (model.non_local_width or wide // 2), 0))
    if isinstance(model, MUNConfig):
        parts += [stages[0]] if model.specific == "layer1" else []
        parts.append((classes * channels, 0))
        if model.intermediate == "auxiliary":
            parts.append(_generator(model, side // 4))
        if model.memory != "none" and "ma" in terms:
            parts.append((3 * channels**2, 0))
    weights, kept = (sum(part[i] for part in parts) for i in (0, 1))
    return Cost(weights, kept, max(4 * model.width * side // 4, stem[1]))


def _generator(model: MUNConfig, places: int) -> tuple[int, int]:
    """Weights and activations of MUN's learners, on maps of `places`."""
    channels = model.width * (4 if model.specific == "layer1" else 1)
    learner = 2 * model.expansion * channels**2 + channels // 2 * sum(kernel**2 for kernel in model.kernel_order)
    cross = channels**2 * (sum(ratio**2 for ratio in model.ratios) + 2 * len(model.ratios))
    return 2 * learner + cross, (2 * model.expansion + len(model.ratios)) * channels * places

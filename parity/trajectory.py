"""Train both frameworks from the same weights on the same batches with the same random numbers, also handing over to
the other framework half-way."""

import re
import tempfile
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import mindspore as ms
import numpy as np
import torch

from ms_vireid.backends.choosing import backend_named
from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.readers import read_data
from ms_vireid.engine import train_step as mindspore_step
from ms_vireid.engine.plan import Plan
from ms_vireid.models import build_model as mindspore_model
from ms_vireid.models.base import visible_rows
from ms_vireid.optimizers.build import build_optimizer as mindspore_optimizer
from parity.compare import (
    EXACT,
    HALF,
    IN_HALF,
    KINKS,
    REACH,
    TRAJECTORY,
    Comparison,
    compare,
    compare_all,
    compare_names,
)
from parity.fall import CALM, GrayBatches, on_the_edge, remember_calm_steps
from parity.mapping import values
from parity.states import optimizer_to_mindspore, optimizer_to_torch, to_mindspore, to_torch
from torch_ref.engine import train_step as torch_step
from torch_ref.models import build_model as torch_model
from torch_ref.optimizers.build import build_optimizer as torch_optimizer

STEPS = 20
STARTS = 6  # of a training in half precision, at most: see `compare_half_training`
# The whole recipes, all losses, dropout and erasing, on small models and pictures.
_SMALL = [
    "data={name: synthetic, image_size: [64, 32], workers: 0, synthetic: {train_identities: 10, val_identities: 2, "
    "test_identities: 4, images_per_camera: 2, image_size: [64, 32]}}",
    "train.iterations=5",
    "train.num_identities=4",
    "train.num_instances=3",
    "model.num_classes=12",
]


@dataclass(frozen=True)
class Recipe:
    """config: under configs/. overrides: for a small model. of_training: more of them, for trainings only.
    first: the step at which training starts, if none is `done`. steps: that it takes. done: earlier steps, whose
        moments the optimiser has, in a training that falls over (`parity.fall`).

    chaotic: a few activations end up on the other side of ReLU's kink, so weights may differ by `KINKS` (of the reach
        of all steps, if they start at 0); loss terms and features may not.
    """

    config: str
    overrides: tuple[str, ...]
    of_training: tuple[str, ...] = ()
    first: int = 0
    chaotic: bool = False
    steps: int = STEPS
    done: int = 0


_PMT = ("model.depth=3", "model.embed_dim=96", "model.num_heads=6", "stages.0.epochs=4", "stages.1.epochs=4")
# AdamW's first step is the rate times the sign of the gradient, also where that is 0 up to rounding (2e-7 beside 1.4 in
# one weight of the patch embedding): a weight then goes either way. Beside this eps such a gradient is small.
_AS_SMOOTH = ("optimizer.eps=1e-5",)
# A tenth of the rate, and a tenth of that for what ImageNet weights initialise: at the recipe's own, two runs are 1e-3
# apart in their loss after 20 steps, from a few activations at ReLU's kink.
_MUN = (
    "model.layers=[1, 2, 1, 1]",
    "model.width=8",
    "model.ratios=[2, 3]",
    "data.image_size=[48, 24]",
    "stages.0.epochs=8",
    "optimizer.lr=2e-4",
    "optimizer.backbone_factor=0.1",
)
_CHOICES = (  # the other values of what the paper leaves open
    "augmentation.visible_twice=true",
    "model.beta_shape=cosine",
    "model.beta_unit=epoch",
    "model.classified=pooled",
    "model.tested=pooled",
    "model.batch_norm=each",
    "model.pooling_learned=true",
    "stages.0.losses.triplet.normalised=true",
    "stages.0.losses.ia.normalised=true",
)
FALL = "PMT that falls over"
RECIPES = {
    "PMT stage 1": Recipe("pmt/sysu.yaml", _PMT, _AS_SMOOTH),
    # Its trainings draw dropout by another seed: in float16 a triplet is mined otherwise in a step of most others, and
    # the features are then 2e-2 to 4e-2 apart (seeds 1, 3, 4 and 5 of five).
    "PMT stage 2": Recipe("pmt/sysu.yaml", _PMT, (*_AS_SMOOTH, "seed=2"), first=20),
    # A ten-thousandth of the rate: training AGW from scratch is chaotic. At a hundredth of it two runs in PyTorch, from
    # weights 1e-7 apart, differ by 1 in their loss after 20 steps: an activation that is 0 up to rounding passes its
    # gradient in one run and not in the other, and what follows grows with the rate.
    "AGW": Recipe(
        "agw/sysu.yaml",
        ("model.layers=[1, 2, 3, 1]", "model.width=8", "stages.0.epochs=8", "optimizer.lr=1e-5", "seed=8"),
        chaotic=True,
    ),
    "MUN": Recipe("mun/sysu.yaml", _MUN, chaotic=True),
    "MUN choices": Recipe("mun/sysu.yaml", (*_MUN, *_CHOICES), _AS_SMOOTH, chaotic=True),
    # The gradient's norm goes from 5 to 160 in the third step, and the loss from 6 to 20 in the seventh; the limits are
    # those of the other trainings (beside float64, rounding makes 1e-6 of the loss). Not handed over: kernels' second
    # moments, 1.3e-5 smaller (`optimizer_to_torch`), part by 1e-3 right after such a step.
    FALL: Recipe("pmt/sysu.yaml", (*_PMT, "optimizer.lr=3e-3"), first=10 - CALM, steps=7, done=CALM),
}

# Weights whose gradient is exactly 0 by a symmetry of the method: what adds one constant to all features changes
# neither a distance nor BNNeck's output, what adds one to all of a query's scores does not change their softmax, and
# what adds one to a channel before the BatchNorms of AGW's next stage is taken off there.
# Rounding leaves them a gradient of 1e-9, of which AdamW makes full steps, in directions that the loss does not see.
# They, and the running mean that follows one of them, may be as far apart as those steps reach.
FREE = re.compile(
    r"base\.norm\.bias|bottleneck\.running_mean|.*\.attn\.qkv\.bias \(key\)|non_local_(2\.1|3\.2)\.W\.1\.bias"
)


@dataclass
class Trajectory:
    """The result of a training.

    terms: loss terms [steps] by name. weights: parameters and buffers by PyTorch's names.
    features: float32 [N, C] of the first batch in evaluation mode, not compiled, with PyTorch's free weights: what all
        other weights compute together.
    reach: the sum of the largest learning rates, which is as far as AdamW moves a weight.
    """

    terms: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    features: np.ndarray
    reach: float


class Training:
    """Training steps from `first` on. `enter` begins a stage, with the arguments of `StageLoss`."""

    def __init__(self, config: Config, batches: TrainingBatches, first: int):
        self.config = config
        self.batches = batches
        self.first = first
        self.done = 0
        self.rows: list[dict[str, float]] = []
        self.reach = 0.0
        self._stage = None  # of the last step

    def advance(self, steps: int) -> None:
        plan = Plan(self.config, self.groups, self.batches.sampler.iterations)
        for _ in range(steps):
            step = self.first + self.done
            planned = plan(step)
            if planned.stage is not self._stage:
                self._stage = planned.stage
                self.enter(planned.stage.losses, self.config.train.num_instances, self.config.augmentation.parts)
            self.reach += max(planned.rates)
            self.rows.append(self.step(*self.batches[step], planned.key, planned.progress, planned.rates))
            self.done += 1

    def result(self, reference: dict[str, np.ndarray]) -> Trajectory:
        """`reference`: all weights of PyTorch's training."""
        terms = {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}
        weights = self.weights()
        self.set_weights(weights | {name: value for name, value in reference.items() if FREE.fullmatch(name)})
        images, _ = self.batches[0]
        seen = visible_rows(len(images), self.config.augmentation.parts)
        features = self.features(images[:seen], "visible"), self.features(images[seen:], "infrared")
        return Trajectory(terms, weights, np.concatenate(features), self.reach)


class MindSporeTraining(Training):
    def __init__(self, config: Config, batches: TrainingBatches, first: int, backend: str, amp: str | bool = False):
        super().__init__(config, batches, first)
        self.model = mindspore_model(config).set_train()
        self.optimizer = mindspore_optimizer(self.model, config)
        self.groups = self.optimizer.groups
        self.backend = backend_named(backend, amp)
        self.scaler = mindspore_step.loss_scaler(amp)

    def enter(self, *losses) -> None:
        self.loss = mindspore_step.StageLoss(*losses)
        clip_norm = self.config.optimizer.clip_norm
        self.train_step = mindspore_step.build_step(
            self.model, self.loss, self.optimizer, self.backend, clip_norm, self.scaler
        )

    def step(
        self, images: np.ndarray, labels: np.ndarray, key: np.int32, progress: float, rates: list[float]
    ) -> dict[str, float]:
        scalars = self.optimizer.scalars(self.done + 1, rates)
        return self.loss.named(self.train_step(images, labels, key, progress, scalars).asnumpy())

    def weights(self) -> dict[str, np.ndarray]:
        return values(self.model)

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        to_mindspore({name: torch.from_numpy(value) for name, value in weights.items()}, self.model)

    def features(self, images: np.ndarray, modality: str) -> np.ndarray:
        return self.model.set_train(False)(ms.Tensor(images), modality).asnumpy()


class TorchTraining(Training):
    def __init__(self, config: Config, batches: TrainingBatches, first: int, amp: str | bool = False):
        super().__init__(config, batches, first)
        self.model = torch_model(config).train()
        self.optimizer = torch_optimizer(self.model, config)
        self.groups = self.optimizer.groups
        self.amp = amp  # by PyTorch's autocast
        self.scaler = torch_step.loss_scaler(amp, "cpu")

    def enter(self, *losses) -> None:
        self.loss = torch_step.StageLoss(*losses)
        self.train_step = torch_step.build_step(
            self.model, self.loss, self.optimizer, self.amp, self.config.optimizer.clip_norm, self.scaler
        )

    def step(
        self, images: np.ndarray, labels: np.ndarray, key: np.int32, progress: float, rates: list[float]
    ) -> dict[str, float]:
        inputs = torch.from_numpy(images), torch.from_numpy(labels), torch.tensor(key)
        return self.loss.named(self.train_step(*inputs, progress, rates))

    def weights(self) -> dict[str, np.ndarray]:
        return {n: v.numpy().copy() for n, v in self.model.state_dict().items() if not n.endswith(COUNTER)}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        state = {name: torch.from_numpy(value) for name, value in weights.items()}
        counters = {name: value for name, value in self.model.state_dict().items() if name.endswith(COUNTER)}
        self.model.load_state_dict(state | counters)

    @torch.no_grad()
    def features(self, images: np.ndarray, modality: str) -> np.ndarray:
        return self.model.eval()(torch.from_numpy(images), modality).numpy()


@lru_cache(maxsize=1)
def _pictures() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="ms_vireid_parity_")


def configuration(recipe: str, training: bool = False) -> Config:
    root, chosen = Path(_pictures().name) / "synthetic", RECIPES[recipe]
    overrides = *_SMALL, f"data.root={root}", *chosen.overrides, *(chosen.of_training if training else ())
    return load_config(CONFIG_ROOT / chosen.config, overrides)


@cache
def _batches(recipe: str) -> TrainingBatches | GrayBatches:
    config, chosen = configuration(recipe), RECIPES[recipe]
    if chosen.done:
        return GrayBatches(config, chosen.first + chosen.done + 2)
    return TrainingBatches(read_data(config.data).train, config)


@cache
def _initial(recipe: str) -> dict[str, torch.Tensor]:
    """Return MindSpore's initial weights by PyTorch's names; every training starts from them."""
    cell = mindspore_model(configuration(recipe))
    weights = {name: torch.from_numpy(value) for name, value in values(cell).items()}
    return on_the_edge(weights) if RECIPES[recipe].done else weights


def _begin_torch(recipe: str, weights: dict[str, torch.Tensor], amp: str | bool = False) -> TorchTraining:
    chosen = RECIPES[recipe]
    training = TorchTraining(configuration(recipe, training=True), _batches(recipe), chosen.first, amp)
    training.set_weights({name: value.numpy() for name, value in weights.items()})
    training.done = chosen.done
    if chosen.done:
        remember_calm_steps(training.optimizer)
    return training


def _begin_mindspore(
    recipe: str, weights: dict[str, torch.Tensor], backend: str, amp: str | bool = False
) -> MindSporeTraining:
    where = configuration(recipe, training=True), _batches(recipe), RECIPES[recipe].first
    training = MindSporeTraining(*where, backend, amp)
    to_mindspore(weights, training.model)
    training.done = RECIPES[recipe].done
    if training.done:
        optimizer_to_mindspore(_begin_torch(recipe, weights).optimizer, training.optimizer, training.model)
    return training


@cache
def _half_in_torch(recipe: str) -> TorchTraining:
    """Train half of the steps in PyTorch, to hand over."""
    training = _begin_torch(recipe, _initial(recipe))
    training.advance(RECIPES[recipe].steps // 2)
    return training


@cache
def reference(recipe: str) -> Trajectory:
    """Train all steps in PyTorch."""
    training = _begin_torch(recipe, _initial(recipe))
    training.advance(RECIPES[recipe].steps)
    return training.result(training.weights())


@cache
def in_half(recipe: str, amp: str, backend: str, start: int = 0) -> Trajectory:
    """Train all steps by a backend with `train.amp`, from the initial weights or one of the `STARTS` near them."""
    training = _begin_mindspore(recipe, _near(_initial(recipe), start), backend, amp)
    training.advance(STEPS)
    return training.result(reference(recipe).weights)


def _near(weights: dict[str, torch.Tensor], start: int) -> dict[str, torch.Tensor]:
    """Change each weight and buffer by at most float16's rounding; start 0 changes none."""
    rng = np.random.default_rng(start)
    changes = {name: start and HALF * rng.uniform(-1.0, 1.0, tuple(value.shape)) for name, value in weights.items()}
    return {name: (value * (1.0 + changes[name])).to(value.dtype) for name, value in weights.items()}


@cache
def by_autocast(recipe: str, amp: str) -> Trajectory:
    """Train all steps by PyTorch's autocast."""
    training = _begin_torch(recipe, _initial(recipe), amp)
    training.advance(STEPS)
    return training.result(reference(recipe).weights)


def compare_half_training(recipe: str, amp: str, backend: str) -> list[Comparison]:
    """Compare a training in half precision with PyTorch's autocast: the first of `STARTS` within all limits, else the
    one from the initial weights.

    Compared are the loss terms of every step and the features after the last, these in the Euclidean norm: one
    activation on the other side of ReLU's kink changes an entry by more than rounding does. Weights are not compared:
    AdamW follows the sign of a gradient, which is arbitrary where the gradient is as small as rounding. Where two
    distances are equal up to rounding, another triplet may be mined, and features then part by 2e-2 to 4e-2; a start
    that rounding cannot tell from the first decides anew. An error parts all.
    """
    expected = by_autocast(recipe, amp)
    for start in (*range(STARTS), 0):
        actual = in_half(recipe, amp, backend, start)
        comparisons = compare_all("loss term", actual.terms, expected.terms, IN_HALF[amp])
        comparisons.append(
            compare("features after training", actual.features, expected.features, IN_HALF[amp], norm=True)
        )
        if all(comparison.passed for comparison in comparisons):
            break
    return comparisons


@cache
def trajectories(recipe: str, backend: str) -> dict[str, Trajectory]:
    """Train three more from the same weights by a backend: in MindSpore, and in each framework, handing over to the
    other half-way with the optimiser's state."""
    steps = RECIPES[recipe].steps
    half, rest = steps // 2, steps - steps // 2
    weights = reference(recipe).weights
    in_mindspore, half_in_torch = _begin_mindspore(recipe, _initial(recipe), backend), _half_in_torch(recipe)
    in_mindspore.advance(half)

    from_mindspore = _begin_torch(recipe, _initial(recipe))
    to_torch(in_mindspore.model, from_mindspore.model)
    optimizer_to_torch(in_mindspore.optimizer, from_mindspore.optimizer, in_mindspore.model, in_mindspore.done)
    from_mindspore.done, from_mindspore.rows = in_mindspore.done, list(in_mindspore.rows)
    in_mindspore.advance(rest)
    from_mindspore.advance(rest)
    trained = {"MindSpore": in_mindspore.result(weights), "MindSpore, then PyTorch": from_mindspore.result(weights)}
    # The same model, which saves compiling another graph; what is not handed over stays as it ended.
    to_mindspore(half_in_torch.model.state_dict(), in_mindspore.model)
    in_mindspore.model.set_train()
    optimizer_to_mindspore(half_in_torch.optimizer, in_mindspore.optimizer, in_mindspore.model)
    in_mindspore.done, in_mindspore.rows = half_in_torch.done, list(half_in_torch.rows)
    in_mindspore.advance(rest)
    return trained | {"PyTorch, then MindSpore": in_mindspore.result(weights)}


def compare_trajectories(actual: Trajectory, expected: Trajectory, chaotic: bool) -> list[Comparison]:
    """Loss terms of every step, weights and buffers at the end, and the features they give; `chaotic` as `Recipe`."""
    comparisons = compare_all("loss term", actual.terms, expected.terms, TRAJECTORY)
    weights, reference = _with_parts(actual.weights), _with_parts(expected.weights)
    comparisons.append(compare_names("weights: names", weights, reference))
    for name in filter(weights.__contains__, reference):
        free = FREE.fullmatch(name)
        scale, tolerance = (expected.reach, REACH) if free else (None, TRAJECTORY)
        if chaotic and not free:
            scale, tolerance = max(expected.reach, float(np.abs(reference[name]).max())), KINKS
        what = "free weight" if free else "weight"
        comparisons.append(compare(f"{what} {name}", weights[name], reference[name], tolerance, scale))
    comparisons.append(compare("features after training", actual.features, expected.features, TRAJECTORY))
    return comparisons


def _with_parts(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split the biases of query, key and value."""
    parted = {}
    for name, value in weights.items():
        if name.endswith("attn.qkv.bias"):
            parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
            parted |= {f"{name} ({part})": piece for part, piece in parts}
        else:
            parted[name] = value
    return parted


def same_batches(recipe: str) -> list[Comparison]:
    """Compare a batch with itself read again: its pictures do not depend on when they are read."""
    config = configuration(recipe)
    train = read_data(config.data).train
    first, second = TrainingBatches(train, config), TrainingBatches(train, config)
    second[7]
    return [compare("images", first[3][0], second[3][0], EXACT), compare("labels", first[3][1], second[3][1], EXACT)]

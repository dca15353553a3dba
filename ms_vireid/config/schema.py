"""Every key of a configuration: its allowed values, its default, and beside or above it what it means.

`python -m tests.tools.configuration_tables` makes docs/configuration.md from this file, models.py and losses.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.names import MODALITIES
from ms_vireid.config.base import (
    Count,
    Positive,
    Rate,
    Section,
    Share,
    Side,
    Weight,
    between,
    choice,
    expand_user,
    one_of,
)
from ms_vireid.config.layout_templates import AUTO, check_layout
from ms_vireid.config.losses import LossConfig
from ms_vireid.config.models import AnyModelConfig, PMTConfig, Setting

CLIP_FROM_SCRATCH = 5.0  # fewer trainings collapse (docs/training.md)
PUBLISHED_NUM_CLASSES = {"sysu_mm01": 395, "regdb": 206, "llcm": 713}
Above0 = Annotated[float, Field(ge=1e-12, le=1e4)]
Sigma = Annotated[float, Field(ge=1e-3, le=100)]
Pixel = Annotated[float, Field(ge=-100, le=100)]
Factor = Annotated[float, Field(ge=1e-6, le=1)]
Size = tuple[Side, Side]
Kept = Annotated[tuple[Count, ...], Field(max_length=1000)]
Milestones = Annotated[tuple[Positive, ...], Field(max_length=1000)]
WIDEST = 2**53
Value = Annotated[float, Field(ge=-WIDEST, le=WIDEST)]
Range = tuple[Value, Value]
Shown = tuple[float | None, ...]  # of a picture of 16 or 32 bits: what becomes black and white, and what is no value
_FLOAT32 = 3.4028235e38
_PART = re.compile(r"(visible|infrared)(/\d{1,9})?")


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and all(type(one) in (int, float) for one in value)
    return numbers and len(value) == 2 and -WIDEST <= value[0] < value[1] <= WIDEST


def _sixteen_bit(value: Any) -> Any:
    if value in ("full", "measured") or _is_range(value):
        return value
    named = isinstance(value, dict) and all(isinstance(key, str) and _PART.fullmatch(key) for key in value)
    if named and value and all(map(_is_range, value.values())):
        return {key: tuple(ends) for key, ends in value.items()}
    parts = "{infrared: [low, high], visible/2: [low, high]}"
    raise ValueError(f"must be full, measured or [low, high], low first, or by modality and camera {parts}")


@dataclass(frozen=True)
class ValueRanges:
    """Which values of 16 or 32 bits are shown as black and white: one range for all pictures, one by "infrared" or
    "visible/2" (modality, and camera where they differ), or None for the full range. no_values: are black, and count
    for no range."""

    ranges: Range | dict[str, Range] | None = None
    no_values: tuple[float, ...] = ()

    def of(self, infrared: bool, camera: int | None = None) -> Shown | None:
        """Return the range for a picture: its camera's, else its modality's, else None; where there are `no_values`,
        the two ends, None for the full range, and these."""
        ends = self.ranges
        if isinstance(ends, dict):
            modality = MODALITIES[bool(infrared)]
            ends = ends.get(f"{modality}/{camera}", ends.get(modality))
        return (*(ends or (None, None)), *self.no_values) if self.no_values else ends


def _clip_norm(value: Any, checked: ValidatorFunctionWrapHandler) -> Any:
    try:
        return checked(value)
    except ValidationError:  # one for each alternative
        expected = "must be auto, null for no limit, or 0.001 to 10,000"
        raise ValueError(f"{expected}, got {shown(value)}") from None


FULL = ValueRanges()
SixteenBit = Annotated[Literal["full", "measured"] | Range | dict[str, Range], BeforeValidator(_sixteen_bit)]
NoValues = Annotated[
    tuple[Annotated[float, Field(ge=-_FLOAT32, le=_FLOAT32)], ...],
    Field(max_length=10),
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,)),
]
ClipNorm = Annotated[Annotated[float, Field(ge=1e-3, le=1e4)] | Literal["auto"] | None, WrapValidator(_clip_norm)]
Folder = Annotated[Path, BeforeValidator(lambda value: expand_user(value) if isinstance(value, str) else value)]


class SyntheticConfig(Section):
    """The procedural set (`ms_vireid.data.synthetic`)."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # which people and pictures are drawn
    train_identities: between(1, 9999) = 96  # people to train on
    val_identities: between(1, 9999) = 4  # people on the validation list, trained on as well, as in SYSU-MM01
    test_identities: between(1, 9999) = 24  # people to test on
    images_per_camera: between(1, 9999) = 3  # pictures that each of six cameras takes of a person
    image_size: tuple[between(16, 1024), between(16, 1024)] = (128, 64)  # height and width of the stored pictures

    def check(self) -> None:
        identities = self.train_identities + self.val_identities + self.test_identities
        if identities > 9999:
            raise ValueError(f"{identities:,} identities are more than 9,999; ask for fewer")
        if (pictures := 6 * identities * self.images_per_camera) > 250_000:
            raise ValueError(f"{pictures:,} pictures are more than 250,000; ask for fewer identities")


class DataConfig(Section):
    name: Literal["synthetic", "sysu_mm01", "regdb", "llcm", "folder"]  # the data set; folder: your own pictures
    root: Folder | None = None  # the data set's folder; null: synthetic writes its pictures beside the runs
    trial: between(1, 10) = 1  # RegDB's split
    # the share of a folder's people, the last by name, that are tested on
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    image_size: Size = (256, 128)  # height and width of the model's pictures
    # training pictures are resized to this size first and from there to image_size, as PMT does on RegDB; null: at once
    resize_through: Size | None = None
    workers: between(0, 256) = 2  # processes that decode and augment; 0: the main process does it
    # memory: keep decoded and resized training pictures from one epoch to the next; auto: if they take at most a
    # quarter of the free memory
    cache: Literal["auto", "none", "memory"] = "auto"
    # how the paths in a folder say who is in a picture: a template such as {identity}/{modality}/{camera}/*, or a name
    # such as market1501; auto: a documented tree, known by its names
    layout: Annotated[str, AfterValidator(check_layout)] = AUTO
    # which values of pictures of 16 or 32 bits are shown as black and white; measured: taken from the training pictures
    # and stored with the run; full: all values of 16 bits
    sixteen_bit: SixteenBit = "measured"
    # values of pictures of 16 or 32 bits that mean nothing, such as -9999: shown as black, and in no measured range
    no_value: NoValues = ()
    synthetic: SyntheticConfig = SyntheticConfig()

    @property
    def value_ranges(self) -> ValueRanges:
        """The configured or measured ranges of `sixteen_bit`, and `no_value`."""
        return ValueRanges(None if isinstance(self.sixteen_bit, str) else self.sixteen_bit, self.no_value)

    def with_value_ranges(self, measured: dict[str, Range]) -> "DataConfig":
        """Return a copy with the ranges of the training pictures of 16 or 32 bits, if they are to be measured and there
        are any."""
        if self.sixteen_bit != "measured" or not measured:
            return self
        return self.model_copy(update={"sixteen_bit": measured})


class AugmentationConfig(Section):
    """Of training pictures, with PMT's values; each probability is per picture."""

    crop_padding: between(0, 4096) = 0  # black pixels added on every side before a random crop; 0: no crop
    flip: Share = 0.5  # probability of mirroring left to right
    erasing: Share = 0.5  # probability of erasing a random rectangle
    erasing_area: tuple[Share, Share] = (0.02, 0.4)  # the rectangle's smallest and largest share of the picture
    # its smallest height / width; the largest is the inverse
    erasing_aspect: Annotated[float, Field(ge=0.01, le=1)] = 0.3
    erasing_fill: tuple[Pixel, Pixel, Pixel] = (0.485, 0.456, 0.406)  # its colour, written after normalisation
    # half of the infrared pictures change brightness and contrast by factors within 1 ± this, the others are blurred; 0
    # leaves out both
    infrared_jitter: Rate = 0.3
    infrared_blur_sigma: tuple[Sigma, Sigma] = (0.1, 3.0)  # range of the standard deviation of the blur, in pixels
    visible_channel_exchange: Share = 0.0  # probability that one random channel of a visible picture replaces all three
    # add each visible picture a second time, augmented independently and with exchanged channels, as CAJ's release does
    visible_twice: bool = False
    # show infrared pictures as a random channel, as their luma, or as they are, as CAJ's release does
    infrared_adaptive_gray: bool = False

    def check(self) -> None:
        for name in ("erasing_area", "infrared_blur_sigma"):
            if (limits := getattr(self, name))[0] > limits[1]:
                raise ValueError(f"{name} {list(limits)}: minimum exceeds maximum")

    @property
    def parts(self) -> int:
        """How many parts of PK pictures a batch has."""
        return 3 if self.visible_twice else 2


class StageConfig(Section):
    epochs: between(1, 10_000)  # length of the stage
    visible: Literal["rgb", "gray"] = "rgb"  # whether visible pictures keep their colours
    losses: LossConfig


class AdamWConfig(Section):
    """AdamW, with PMT's values."""

    name: Literal["adamw"] = "adamw"
    lr: Above0 = 3e-4  # learning rate once the warm-up is over
    weight_decay: Weight = 1e-4  # share of each weight that an update takes off, times the rate
    backbone_factor: Above0 = 0.5  # the backbone's share of the rate
    betas: tuple[Rate, Rate] = (0.9, 0.999)  # decay of the first and second moments
    eps: Above0 = 1e-8  # added to the root of the second moment, by which the first is divided
    # largest norm of all gradients together, which are scaled down to it; null: no limit; auto: 5 if model.pretrained
    # is none, else no limit, as in both papers
    clip_norm: ClipNorm = "auto"


class SGDConfig(Section):
    """SGD, with AGW's values."""

    name: Literal["sgd"] = "sgd"
    lr: Above0 = 0.1  # learning rate once the warm-up is over
    weight_decay: Weight = 5e-4  # share of each weight that is added to its gradient
    backbone_factor: Above0 = 0.1  # the backbone's share of the rate
    momentum: Rate = 0.9  # share of the last update that each update keeps
    nesterov: bool = True  # Nesterov's momentum
    clip_norm: ClipNorm = None  # largest norm of all gradients together, which are scaled down to it; null: no limit

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


OptimizerConfig = one_of(AdamWConfig, SGDConfig)


class WarmupCosineConfig(Section):
    """PMT's, by epochs: a linear warm-up, then a cosine over the whole run."""

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_epochs: Count = 3  # length of the warm-up
    start_lr: Weight = 3e-6  # where the warm-up starts
    floor_lr: Weight = 3e-6  # where the cosine ends


class WarmupStepsConfig(Section):
    """AGW's, by epochs: a linear warm-up, then the rate falls after each milestone."""

    name: Literal["warmup_steps"] = "warmup_steps"
    warmup_epochs: Count = 10  # length of the warm-up
    milestones: Milestones = (20, 50)  # epochs after which the rate falls
    factor: Factor = 0.1  # by which the rate is multiplied then


class IterationStepsConfig(Section):
    """MUN's: a linear warm-up by iterations, then the rate falls after each milestone."""

    name: Literal["iteration_steps"] = "iteration_steps"
    warmup_epochs: Count = 15  # length of the warm-up
    start_lr: Weight = 1e-8  # where the warm-up starts
    milestones: Milestones = (30, 60)  # epochs after which the rate falls
    factor: Factor = 0.1  # by which the rate is multiplied then


ScheduleConfig = one_of(WarmupCosineConfig, WarmupStepsConfig, IterationStepsConfig)


class TrainConfig(Section):
    num_identities: between(1, 1000) = 8  # P: people in a batch, of each device
    num_instances: between(2, 100) = 4  # K: pictures of each person in each modality
    replacement: bool = False  # draw a person's K pictures with replacement, as AGW's release does
    iterations: between(1, 100_000) | None = None  # updates in an epoch; null: one pass over the visible pictures
    # what computes a step (docs/devices.md); auto: numba on a CPU, or eager with amp; cuda on a GPU, or graph where its
    # kernels cannot be compiled; graph on an Ascend
    backend: Literal["auto", "numba", "eager", "graph", "cuda"] = "auto"
    recompute: bool = False  # save memory: keep fewer activations, and compute the others again in the backward pass
    # half precision up to pooling, for speed and memory on a GPU or an Ascend; float16 scales the loss, bfloat16 needs
    # an Ascend
    amp: Literal[False, "float16", "bfloat16"] = False
    # let matrix products round their float32 inputs to ten bits, as convolutions do by default: TF32 on a GPU, HF32 on
    # an Ascend; a CPU has neither
    tf32: bool = False
    sync_batch_norm: bool = False  # on several devices, normalise by the statistics of all their batches
    select: Literal["last", "best"] = "last"  # which epoch's model is kept; best: by mAP on the test set
    evaluate_every: Count = 0  # epochs between evaluations; 0: only after the last
    checkpoint_steps: Count = 0  # steps between checkpoints; 0: only at the end of each epoch
    keep_epochs: Kept = ()  # epochs whose weights are kept as epoch-N.safetensors; 0: before the first
    log_steps: Positive = 10  # steps between lines of metrics.jsonl
    tensorboard: bool = False  # also write the metrics for TensorBoard

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_runs(cls, keys: Any) -> Any:
        """Until 2026-11 `backend` was called `program`."""
        if isinstance(keys, dict) and "program" in keys and "backend" not in keys:
            return {"backend" if key == "program" else key: value for key, value in keys.items()}
        return keys

    def check(self) -> None:
        if self.select == "best" and not self.evaluate_every:
            raise ValueError("select=best chooses among evaluations during training: set evaluate_every as well")


class EvaluationConfig(Section):
    mode: Literal["all", "indoor"] = "all"  # SYSU-MM01's search mode
    shots: choice(1, 10) = 1  # SYSU-MM01's gallery pictures of each person by each camera
    # which modality is searched with
    direction: Literal["infrared-to-visible", "visible-to-infrared"] = "infrared-to-visible"
    trials: between(1, 1000) = 10  # how many galleries SYSU-MM01 and LLCM draw
    batch_size: between(1, 10_000) = 64  # pictures at a time
    flip: bool = False  # add the features of the mirrored picture, as LLCM's authors do
    renormalise: bool = False  # scale that sum to unit length again, as CAJ's release does
    rerank: bool = False  # re-rank by k-reciprocal encoding, which the papers' tables do not
    frost: Folder | None = None  # folder of photographs of frost, for corrupted pictures; null: frost is drawn
    compare_untrained: bool = False  # also evaluate the model before training, and chance

    def check(self) -> None:
        if self.renormalise and not self.flip:
            raise ValueError("renormalise concerns the features that flip adds: set flip as well")


# Prefixes of the keys that may change when a run is resumed: no weight depends on them.
FREE_KEYS = (
    "data.root",
    "data.workers",
    "data.cache",
    "train.evaluate_every",
    "train.checkpoint_steps",
    "train.keep_epochs",
    "train.log_steps",
    "train.tensorboard",
    "evaluation.",
)


class Config(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # seed of all random numbers in a training
    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    model: AnyModelConfig = PMTConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=100)]
    optimizer: Annotated[OptimizerConfig, Field(validate_default=True)] = AdamWConfig()
    schedule: ScheduleConfig = WarmupCosineConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("optimizer")
    @classmethod
    def _choose_clip_norm(cls, optimizer: OptimizerConfig, fields: ValidationInfo) -> OptimizerConfig:
        """Replace `clip_norm` auto by `CLIP_FROM_SCRATCH` or, with ImageNet weights, by no limit, as in both papers."""
        if optimizer.clip_norm != "auto":
            return optimizer
        from_scratch = "model" in fields.data and fields.data["model"].pretrained == "none"
        return optimizer.model_copy(update={"clip_norm": CLIP_FROM_SCRATCH if from_scratch else None})

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> StageConfig:
        """Return the stage of a 1-based epoch; raises ValueError outside 1..epochs."""
        stages = [stage for stage in self.stages for _ in range(stage.epochs)]
        if not 1 <= epoch <= len(stages):
            raise ValueError(f"epoch must be in 1..{len(stages)}, got {epoch}")
        return stages[epoch - 1]

    @property
    def terms(self) -> frozenset[str]:
        """Names of all stages' loss terms."""
        return frozenset(name for stage in self.stages for name in stage.losses.terms())

    @property
    def num_classes(self) -> int | None:
        """The classifier's number of identities: as configured, else as published for the data set."""
        if self.model.num_classes is not None:
            return self.model.num_classes
        if self.data.name == "synthetic":
            return self.data.synthetic.train_identities + self.data.synthetic.val_identities
        return PUBLISHED_NUM_CLASSES.get(self.data.name)

    def setting(self, inference: bool = False) -> Setting:
        """Return what a network depends on besides its own section."""
        return Setting(
            image_size=self.data.image_size,
            batch=(self.train.num_identities, self.train.num_instances),
            parts=self.augmentation.parts,
            terms=self.terms,
            recompute=self.train.recompute and not inference,
            inference=inference,
        )

    def with_num_classes(self, identities: int) -> "Config":
        """Return a copy with the classifier's size; raises InputError if another size is configured."""
        configured = self.model.num_classes
        if configured not in (None, identities):
            problem = f"model.num_classes={configured}, the training set has {identities} identities"
            raise InputError(f"{problem}; leave it out")
        return self.model_copy(update={"model": self.model.model_copy(update={"num_classes": identities})})

    def with_value_ranges(self, measured: dict[str, Range]) -> "Config":
        """Return a copy with the data's, as `DataConfig.with_value_ranges`."""
        return self.model_copy(update={"data": self.data.with_value_ranges(measured)})

    def with_fitting_batch(self, identities: int, devices: int = 1) -> "Config":
        """Return a copy with a smaller P if a folder of the user's own has too few identities for a step of all
        devices. Raises InputError if a device would get fewer than two."""
        fitting = identities // devices
        if self.data.name != "folder" or self.train.num_identities <= fitting:
            return self
        if fitting < 2:
            problem = f"{identities} identities to train on, each device needs at least 2"
            raise InputError(f"{self.data.root}: {problem}; add people, or lower data.test_fraction")
        return self.model_copy(update={"train": self.train.model_copy(update={"num_identities": fitting})})

    def check(self) -> None:
        self.model.check_image(self.data.image_size)
        terms = {name: term for stage in self.stages for name, term in stage.losses.terms().items()}
        needing = [name for name, term in terms.items() if term.auxiliary]
        if needing and not self.model.has_auxiliary:
            problem = f"the loss terms {', '.join(needing)} compare an auxiliary modality"
            raise ValueError(f"{problem}: they need model.name=mun with a model.intermediate other than none")
        if self.augmentation.visible_twice:
            if not self.model.takes_versions:
                raise ValueError(f"augmentation.visible_twice is for AGW and MUN, not {self.model.name}; leave it out")
            if halved := [name for name, term in terms.items() if term.halved]:
                problem = f"the loss terms {', '.join(halved)} take as many visible as infrared pictures"
                raise ValueError(f"{problem}, which augmentation.visible_twice does not give; leave one of them out")
        if beyond := [epoch for epoch in self.train.keep_epochs if epoch > self.epochs]:
            raise ValueError(f"train.keep_epochs {beyond} are beyond the last of the stages' {self.epochs} epochs")
        if self.train.select == "best" and self.train.evaluate_every > self.epochs:
            problem = f"train.evaluate_every {self.train.evaluate_every} is beyond the stages' {self.epochs} epochs"
            raise ValueError(f"{problem}: train.select=best has nothing to choose from; set it lower")

"""Inference graphs in files, with the metadata they carry and the proof that they compute what the checkpoint does."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import project_version
from ms_vireid.config import dump_config
from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise
from ms_vireid.files.writing import atomic_write
from ms_vireid.inference.trained_model import TrainedModel

BOTH = "both"  # the modality of a graph that takes either
INPUT, OUTPUT = "images", "features"
TOLERANCE = 1e-5  # of the largest entry: float32 in another order of operations makes 1e-6
MARGIN = 4.0  # times the effect of rounding alone, if that is more (see `reference`)
DISTINCT = 100.0  # times the limit, the least distance of different pictures: less could hide a graph that ignores them
HALF_ULP = 2.0**-24  # of float32, relative
PICTURES = 3
CAMERAS = {"visible": 1, "infrared": 3}  # of the procedural pictures

Compute = Callable[[np.ndarray], np.ndarray]  # images float32 [N, 3, H, W] -> features float32 [N, C]


@dataclass(frozen=True)
class Request:
    """A graph to write."""

    trained: TrainedModel
    modality: str  # "visible", "infrared" or `BOTH`
    batch_size: int | None = None  # None: any

    @property
    def modalities(self) -> tuple[str, ...]:
        return MODALITIES if self.modality == BOTH else (self.modality,)

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        return (self.batch_size, 3, *self.trained.image_size)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes to try the graph with."""
        return (1, PICTURES) if self.batch_size is None else (self.batch_size,)

    @property
    def info(self) -> dict[str, str]:
        """Metadata for users of the graph, as texts; values of other types are JSON.

        To prepare a picture, decode it as `decoding` says, resize it to `image_size` (H, W) with the filter `resize`,
        and take (pixel / 255 - mean) / std in the order `layout` and `channel_order`.
        """
        trained = self.trained
        values = {
            "producer": f"ms_vireid {project_version()}",
            "model": trained.config.model.name,
            "modality": self.modality,
            "decoding": dict.fromkeys(self.modalities, "RGB"),
            "image_size": trained.image_size,
            "resize": "Lanczos with antialiasing, as Pillow's Image.Resampling.LANCZOS",
            "channel_order": "RGB",
            "layout": "NCHW",
            "mean": [round(float(value), 6) for value in IMAGENET_MEAN],
            "std": [round(float(value), 6) for value in IMAGENET_STD],
            "feature_width": trained.model.bottleneck.num_features,
            "similarity": "inner product of the features, whose length is 1",
            "checkpoint": trained.source(),
            "config": dump_config(trained.config),
        }
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class InferenceGraph(nn.Cell):
    """Maps pictures of one modality, float32 [N, 3, H, W], to L2-normalised features [N, C]."""

    def __init__(self, model: nn.Cell, modality: str):
        super().__init__(auto_prefix=False)  # parameters keep the checkpoint's names
        self.model = model
        self.modality = modality

    def construct(self, images: Tensor) -> Tensor:
        return self.model(images, self.modality)


def modalities_of(trained: TrainedModel, modality: str | None) -> tuple[str, ...]:
    """List the graphs to export: one a modality if the model's first layers differ, as AGW's and MUN's do, else one for
    both. Raises InputError if a `modality` is chosen for a model with one graph."""
    if trained.model.BY_MODALITY:
        return (modality,) if modality else MODALITIES
    if modality:
        network = type(trained.model).__name__
        raise InputError(f"--modality {modality}: a {network} has one graph for both modalities; leave the option out")
    return (BOTH,)


def probe_images(image_size: tuple[int, int], modalities: Sequence[str]) -> np.ndarray:
    """Draw and preprocess pictures of different people, the modalities in turn: float32 [PICTURES, 3, H, W]."""
    images = []
    for number in range(PICTURES):
        camera = Camera(0, CAMERAS[modalities[number % len(modalities)]], image_size)
        picture = render(draw_identity(0, 1 + number), camera, np.random.default_rng(number))
        images.append(normalise(np.asarray(picture.convert("RGB"))))  # infrared: three equal channels
    return np.stack(images)


class Reference(NamedTuple):
    """The expected result: images float32 [N, 3, H, W], their features [N, C], and the limit of the relative error."""

    images: np.ndarray
    features: np.ndarray
    limit: float


def reference(request: Request) -> Reference:
    """Compute the checkpoint's features of the probe images. Raises InputError if those of different pictures are
    nearly the same, which would verify nothing.

    The limit is `TOLERANCE` or, if larger, `MARGIN` times the change that rounding the images differently makes: a
    BNNeck that subtracts a large common mean amplifies rounding, in a small PMT a hundredfold.
    """
    trained = request.trained
    images = probe_images(trained.image_size, request.modalities)
    signs = np.random.default_rng(0).choice([-HALF_ULP, HALF_ULP], images.shape)
    rounded = (images * (1.0 + signs)).astype(np.float32)
    features, others = (trained.model(Tensor(x, ms.float32), request.modality).asnumpy() for x in (images, rounded))
    scale = float(np.abs(features).max()) or 1.0
    limit = max(TOLERANCE, MARGIN * float(np.abs(others - features).max() / scale))
    nearest = min(np.abs(features[i] - features[j]).max() for j in range(PICTURES) for i in range(j)) / scale
    if not nearest > DISTINCT * limit:  # also if it is NaN
        raise InputError(
            f"{trained.path}: features of different pictures are only {nearest:.1e} apart, with rounding errors up to "
            f"{limit:.0e}; it is not trained, or broken, and no export of it could be verified"
        )
    return Reference(images, features, limit)


def largest_error(compute: Compute, expected: Reference, batch_sizes: Sequence[int]) -> float:
    """Measure a graph's largest error, relative to the largest entry of the checkpoint's features, in batches of each
    size; pictures repeat to fill the last batch.

    Raises ValueError for features of a wrong shape, not finite, the same for each picture, or off by more than the
    limit.
    """
    worst = 0.0
    width = expected.features.shape[1]
    for size in batch_sizes:
        index = np.arange(-(-PICTURES // size) * size) % PICTURES
        batches = [expected.images[index[start : start + size]] for start in range(0, len(index), size)]
        features = np.concatenate([compute(batch) for batch in batches])
        where = f"in batches of {size}"
        if features.shape != (len(index), width):
            raise ValueError(f"its features are {list(features.shape)} {where}, not {[len(index), width]}")
        if not np.isfinite(features).all():
            raise ValueError(f"its features are not finite {where}")
        if len(np.unique(features, axis=0)) == 1:
            raise ValueError(f"it returns the same vector for each picture {where}")
        difference = np.abs(features - expected.features[index])
        error = float(difference.max() / np.abs(expected.features).max())
        if error > expected.limit:
            raise ValueError(f"its features are {error:.1e} off {where}, and the limit is {expected.limit:.1e}")
        worst = max(worst, error)
    return worst


def export_verified(requests: dict[Path, Request], format: ModuleType) -> dict[Path, tuple[float, float]]:
    """Write a graph for each path, all or none: each gets its name once all are verified.

    format: `mindir` or `onnx_graph`, whose `write(request, path)` exports a graph with its `info`, and whose
    `load(path)` returns a function that runs it.

    Returns each graph's largest error and limit. Raises InputError if a file cannot be written, or a graph does not
    compute what the checkpoint does.
    """
    errors = {}
    with ExitStack() as stack:
        for target, request in requests.items():
            temporary = stack.enter_context(atomic_write(target))
            format.write(request, temporary)
            expected = reference(request)
            try:
                error = largest_error(format.load(temporary), expected, request.batch_sizes)
            except ValueError as error:
                raise InputError(
                    f"{target}: not written, as the graph does not compute what {request.trained.path} does: {error}"
                ) from None
            errors[target] = error, expected.limit
    return errors

"""Inference graphs in files, with the metadata they carry and the proof that they compute what the checkpoint does."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import project_version
from ms_vireid.config import dump_config
from ms_vireid.data.records import image_set
from ms_vireid.data.transforms import normalise
from ms_vireid.exports.description import describe
from ms_vireid.exports.prepare import prepare
from ms_vireid.exports.samples import draw, write_samples
from ms_vireid.files.checks import file_checksum
from ms_vireid.files.writing import atomic_write
from ms_vireid.search.trained_model import TrainedModel

BOTH = "both"  # the modality of a graph that takes either
INPUT, OUTPUT = "images", "features"
TOLERANCE = 1e-5  # of the largest entry: float32 in another order of operations makes 1e-6
MARGIN = 4.0  # times the effect of rounding alone, if that is more (see `reference`)
DISTINCT = 100.0  # times the limit, the least distance of different pictures: less could hide a graph that ignores them
HALF_ULP = 2.0**-24  # of float32, relative
PICTURES = 3

Compute = Callable[[np.ndarray], np.ndarray]  # images float32 [N, 3, H, W] -> features float32 [N, C]


@dataclass(frozen=True)
class ExportRequest:
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

        `preparation` says in full how to prepare a picture. The keys from `decoding` to `std` are enough for 8 bits;
        a modality that was trained on ranges of more bits has no mode there.
        """
        trained, preparation = self.trained, describe(self.trained.config, self.modalities)
        ranged = {key.split("/")[0] for key, ends in preparation["steps"][1]["ranges"].items() if ends}
        values = {
            "producer": f"ms_vireid {project_version()}",
            "model": trained.config.model.name,
            "modality": self.modality,
            "decoding": {name: "see preparation" if name in ranged else "RGB" for name in self.modalities},
            "image_size": trained.image_size,
            "resize": "Lanczos with antialiasing, as Pillow's Image.Resampling.LANCZOS",
            "channel_order": "RGB",
            "layout": "NCHW",
            "mean": preparation["steps"][-1]["mean"],
            "std": preparation["steps"][-1]["std"],
            "preparation": preparation,
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
        picture = draw(number, modalities[number % len(modalities)], image_size)
        images.append(normalise(np.asarray(picture.convert("RGB"))))  # infrared: three equal channels
    return np.stack(images)


class Reference(NamedTuple):
    """The expected result: images float32 [N, 3, H, W], their features [N, C], the limit of the relative error, and
    each image's file, if it has one."""

    images: np.ndarray
    features: np.ndarray
    limit: float
    files: tuple[str, ...] = ()


def reference(request: ExportRequest) -> Reference:
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

    Raises ValueError for features of a wrong shape, or off by more than the limit: those of a graph that ignores its
    pictures are, as the checkpoint's differ by more.
    """
    worst, (count, width) = 0.0, expected.features.shape
    for size in batch_sizes:
        index = np.arange(-(-count // size) * size) % count
        batches = [expected.images[index[start : start + size]] for start in range(0, len(index), size)]
        features = np.concatenate([compute(batch) for batch in batches])
        where = f"in batches of {size}"
        if features.shape != (len(index), width):
            raise ValueError(f"its features are {list(features.shape)} {where}, not {[len(index), width]}")
        difference = np.abs(features - expected.features[index]).max(1)
        error = float(difference.max() / np.abs(expected.features).max())
        if not error <= expected.limit:  # also if it is NaN
            file = f" of '{expected.files[index[difference.argmax()]]}'" if expected.files else ""
            raise ValueError(f"its features{file} are {error:.1e} off {where}, and the limit is {expected.limit:.1e}")
        worst = max(worst, error)
    return worst


def prepared_reference(trained: TrainedModel, preparation: dict, limit: float) -> Reference:
    """As `reference`, of files that `preparation` alone prepares, and extract.py's features of them."""
    with TemporaryDirectory() as folder:
        samples = list(write_samples(Path(folder), preparation))
        images = np.stack([prepare(path, preparation, modality, camera) for path, modality, camera in samples])
        rows = image_set([(path, 0, camera, modality == "infrared") for path, modality, camera in samples])
        features = replace(trained.extractor, workers=0).extract(rows)
    return Reference(images, features, limit, tuple(path.name for path, *_ in samples))


def any_batch(compute: Compute, images: np.ndarray) -> str:
    """Say whether a batch may be empty: MindIR refuses it, as may ONNX layers of the user's own."""
    try:
        is_empty = len(compute(images[:0])) == 0
    except ValueError:
        is_empty = False
    return "any batch" if is_empty else "any batch of at least one picture"


def verify(request: ExportRequest, compute: Compute, preparation: dict) -> tuple[str, str]:
    """Compare a graph with the checkpoint; return which batches it takes, and what was compared. Raises ValueError for
    an error beyond the limit, and InputError as `reference` does."""
    expected = reference(request)
    error = largest_error(compute, expected, request.batch_sizes)
    prepared = prepared_reference(request.trained, preparation, expected.limit)
    files = f"{largest_error(compute, prepared, request.batch_sizes[-1:]):.1e} of {len(prepared.files)} files"
    tried = " and ".join(map(str, request.batch_sizes))
    batch = f"batches of {request.batch_size}" if request.batch_size else any_batch(compute, expected.images)
    return batch, f"largest error {error:.1e} of {expected.limit:.1e} in batches of {tried}; {files}"


def export_verified(requests: dict[Path, ExportRequest], format: ModuleType) -> dict[Path, tuple[str, str]]:
    """Write a graph for each path, and beside it how to prepare pictures, all or none: each gets its name once all are
    verified.

    format: `mindir` or `onnx_graph`, whose `write(request, path)` exports a graph with its `info`, and whose
    `load(path)` returns a function that runs it.

    Returns what `verify` does. Raises InputError if a file cannot be written, or a graph does not compute what the
    checkpoint does.
    """
    verified = {}
    with ExitStack() as stack:
        for target, request in requests.items():
            beside = stack.enter_context(atomic_write(f"{target}.json"))  # gets its name after the graph
            temporary = stack.enter_context(atomic_write(target))
            format.write(request, temporary)
            preparation = describe(request.trained.config, request.modalities)
            preparation["graph"] = {"file": target.name, "sha256": file_checksum(temporary)}
            beside.write_text(json.dumps(preparation, indent=2) + "\n", encoding="utf-8")
            try:
                verified[target] = verify(request, format.load(temporary), json.loads(beside.read_bytes()))
            except ValueError as error:
                raise InputError(
                    f"{target}: not written, as the graph does not compute what {request.trained.path} does: {error}"
                ) from None
        for target in requests:
            Path(f"{target}.json").unlink(missing_ok=True)  # an earlier one never stands beside a new graph
    return verified

"""MindIR, MindSpore's own format for inference, which MindSpore and MindSpore Lite load."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from types import MethodType

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.backends import proven
from ms_vireid.backends.reading import code_of_method
from ms_vireid.backends.replacing import as_written
from ms_vireid.exports.verification import Compute, ExportRequest, InferenceGraph
from ms_vireid.models import ResNet
from ms_vireid.models.layers import GEM_MIN, GeM, LayerNorm


class PaddedMaxPool(nn.Cell):
    """3x3 windows with stride 2 and padding 1. Zeros pad as well as -inf, since no value is negative after ReLU."""

    def __init__(self):
        super().__init__()
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> [N, C, H / 2, W / 2]."""
        return self.pool(ops.pad(x, [1, 1, 1, 1]))


def pooled(self: GeM, x: Tensor) -> Tensor:
    """By powers in float32."""
    power = self.trained_power() if self.learned else self.power
    x = x.clamp(min=GEM_MIN) if self.learned else x
    return (x.pow(power).mean((2, 3)) + self.eps).pow(1.0 / power)


# What a graph for inference has fewer operators for: bits need not be the same at each call, and no gradient is taken.
FEWER_OPERATORS = {GeM.construct: pooled, LayerNorm.construct: nn.LayerNorm.construct}


@contextmanager
def fewer_operators(model: nn.Cell) -> Iterator[None]:
    """Let cells that are as this project has them compute by fewer operators within the block."""
    rows, changed = proven.record()["cuda"]["GPU"], []
    for _, cell in model.cells_and_names():
        key = type(cell).construct
        if key in FEWER_OPERATORS and proven.difference(rows, key, code_of_method(cell, "construct")) is None:
            cell.construct = MethodType(FEWER_OPERATORS[key], cell)
            changed.append(cell)
    try:
        yield
    finally:
        for cell in changed:
            del vars(cell)["construct"]


@contextmanager
def any_batch(model: nn.Cell) -> Iterator[None]:
    """Let the model take batches of any size within the block. The operators of a stem's `nn.MaxPool2d`
    (MaxPool3DWithArgmax and Squeeze) lose the number of dimensions, so `PaddedMaxPool` replaces it."""
    stems = [cell for _, cell in model.cells_and_names() if isinstance(cell, ResNet) and cell.has_stem]
    pools = [stem.maxpool for stem in stems]
    try:
        for stem in stems:
            stem.maxpool = PaddedMaxPool()
        yield
    finally:
        for stem, pool in zip(stems, pools, strict=True):
            stem.maxpool = pool


def write(request: ExportRequest, path: Path) -> None:
    """Write the graph with its weights; `info` becomes the file's user_info."""
    graph = InferenceGraph(request.trained.model, request.modality)
    graph.set_train(False)
    images = Tensor(shape=request.input_shape, dtype=ms.float32)

    def add_info(proto) -> None:
        proto.user_info.update(request.info)

    logging.disable(logging.CRITICAL)  # MindSpore also logs the errors that it raises
    try:
        model = request.trained.model
        # Elsewhere first: MindSpore fails on a file system that sets no permissions.
        with TemporaryDirectory() as folder, as_written(model), fewer_operators(model), any_batch(model):
            ms.export(graph, images, file_name=f"{folder}/a.mindir", file_format="MINDIR", custom_func=add_info)
            copyfile(f"{folder}/a.mindir", path)
    finally:
        logging.disable(logging.NOTSET)


def load(path: Path) -> Compute:
    """Load the graph in MindSpore."""
    graph = nn.GraphCell(ms.load(str(path)))

    def compute(images: np.ndarray) -> np.ndarray:
        if not len(images):
            raise ValueError("MindSpore's operators refuse an empty batch")
        return graph(Tensor(images, ms.float32)).asnumpy()

    return compute

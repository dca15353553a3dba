"""MindSpore's own format for inference: MindIR, which MindSpore and MindSpore Lite load."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_vireid.exports.verified import Compute, InferenceGraph, Request
from ms_vireid.models import ResNet
from ms_vireid.programs.replacing import as_written


class PaddedMaxPool(nn.Cell):
    """3x3 windows with stride 2 and padding 1 over values that are not negative, so that zeros pad as well as -inf."""

    def __init__(self):
        super().__init__()
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> [N, C, H / 2, W / 2]."""
        return self.pool(ops.pad(x, [1, 1, 1, 1]))


@contextmanager
def any_batch(model: nn.Cell) -> Iterator[None]:
    """Within this block the model takes batches of any size: a ResNet's stem pools by another operator than that of
    `nn.MaxPool2d` (MaxPool3DWithArgmax and Squeeze), which loses the number of dimensions."""
    stems = [cell for _, cell in model.cells_and_names() if isinstance(cell, ResNet) and cell.has_stem]
    pools = [stem.maxpool for stem in stems]
    try:
        for stem in stems:
            stem.maxpool = PaddedMaxPool()
        yield
    finally:
        for stem, pool in zip(stems, pools, strict=True):
            stem.maxpool = pool


def write(request: Request, path: Path) -> None:
    """The graph with its weights; `info` is the file's user_info."""
    graph = InferenceGraph(request.trained.model, request.modality)
    graph.set_train(False)
    images = Tensor(shape=request.input_shape, dtype=ms.float32)

    def add_info(proto) -> None:
        proto.user_info.update(request.info)

    logging.disable(logging.CRITICAL)  # MindSpore logs several lines besides raising: one of ours is enough
    try:
        with as_written(request.trained.model), any_batch(request.trained.model):
            ms.export(graph, images, file_name=str(path), file_format="MINDIR", custom_func=add_info)
    finally:
        logging.disable(logging.NOTSET)


def load(path: Path) -> Compute:
    graph = nn.GraphCell(ms.load(str(path)))
    return lambda images: graph(Tensor(images, ms.float32)).asnumpy()

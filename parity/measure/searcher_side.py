"""A `Searcher` of random weights for the benchmark of serving. Import it after `runtime.set_up`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ms_vireid import Searcher
from ms_vireid.config import dump_config
from ms_vireid.engine.checkpoint import save_checkpoint
from ms_vireid.exports import onnx_graph
from ms_vireid.exports.verification import ExportRequest, modalities_of
from ms_vireid.models import build_model
from ms_vireid.search.start import load_trained
from parity.measure.work import Work


def begin(work: Work, graph: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Write a graph, and its checkpoint beside it. Returns a function from a picture, uint8 [H, W, 3], to its
    feature, float32 [1, C]."""
    config, checkpoint = work.load(), graph.with_name("model.safetensors")
    save_checkpoint(checkpoint, build_model(config).get_parameters(), {"config": dump_config(config), "epoch": 1})
    (trained,) = load_trained([checkpoint])
    onnx_graph.write(ExportRequest(trained, modalities_of(trained, None)[0]), graph)
    searcher = Searcher(checkpoint, device=work.device, backend=config.train.backend)
    return lambda picture: searcher.features(picture, "visible").features

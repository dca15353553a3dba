"""ONNX files: what is stored with the graph, and running it in ONNX Runtime. Needs `pip install -e '.[export]'`."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from ms_vireid.exports.verified import INPUT, OUTPUT, Request, Run


def save_onnx(model: onnx.ModelProto, request: Request, path: Path) -> None:
    """Check the graph and write it with its `info` as metadata_props."""
    onnx.helper.set_model_props(model, request.info)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def load_onnx(path: Path) -> Run:
    """The graph in ONNX Runtime, on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: images})[0]

    return run


def read_info(path: Path) -> dict[str, str]:
    """What was stored with the graph (`ms_vireid.exports.verified.describe`)."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map

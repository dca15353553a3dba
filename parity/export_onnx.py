"""A checkpoint's inference graph as ONNX by way of PyTorch: the twin model gets the checkpoint's weights in memory and
is exported by torch.onnx. Files, metadata and verification are those of ms_vireid/export.py --format onnx, which writes
the graph itself. This command is for layers that export.py does not know; tests compare both.
"""

import warnings
from pathlib import Path

import onnx
import torch

from ms_vireid.command import Parser, run
from ms_vireid.export import add_options, export
from ms_vireid.exports.onnx_file import load_onnx, save_onnx
from ms_vireid.exports.verified import INPUT, OUTPUT, PICTURES, Format, Request
from parity.convert import to_torch
from torch_ref.models import build_model

OPSET = 18  # the lowest that torch.onnx writes by itself


class InferenceGraph(torch.nn.Module):
    """Pictures of one modality to features: images float32 [N, 3, H, W] -> [N, C], L2-normalised."""

    def __init__(self, model: torch.nn.Module, modality: str):
        super().__init__()
        self.model = model
        self.modality = modality

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images, self.modality)


def write_onnx(request: Request, path: Path) -> None:
    trained = request.trained
    module = build_model(trained.config, inference=True)
    to_torch(trained.model, module)
    graph = InferenceGraph(module, request.modality).eval()
    images = torch.zeros((request.batch_size or PICTURES, *request.input_shape[1:]))
    dynamic = None if request.batch_size else {INPUT: {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that torch.onnx would use for other models
        torch.onnx.export(
            graph,
            (images,),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            optimize=False,  # which takes GeM's eps for a zero and drops it (8e-5 off); a runtime optimises anyway
            verbose=False,
        )
    save_onnx(onnx.load(path), request, path)


TWIN = Format(".onnx", write_onnx, load_onnx)


def main() -> None:
    parser = Parser(__doc__)
    add_options(parser)
    export(parser.parse_args(), ".onnx", lambda: TWIN)


if __name__ == "__main__":
    run(main)

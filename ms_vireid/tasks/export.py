"""The export of a checkpoint's inference graph: what is refused before the device is set up. `exports/` makes it."""

import argparse
from importlib import import_module
from pathlib import Path

from ms_vireid.command.printing import say
from ms_vireid.devices import runtime
from ms_vireid.files.checks import require_file
from ms_vireid.files.writing import check_derived, check_output
from ms_vireid.search.start import checkpoint_file, files_read, load_trained

MODULES = {"mindir": "mindir", "onnx": "onnx_graph"}  # of ms_vireid.exports


def main(arguments: argparse.Namespace) -> None:
    checkpoint = checkpoint_file(arguments.checkpoint)
    require_file(checkpoint, "checkpoint file")
    suffix = f".{arguments.format}"
    output = arguments.output or checkpoint.with_suffix(suffix)
    check_output(output, suffixes=(suffix,), reads=files_read(checkpoint))

    runtime.set_up("CPU")
    (trained,) = load_trained([checkpoint])
    # Imports mindspore: after the device is set up.
    from ms_vireid.exports.description import MARK
    from ms_vireid.exports.verification import ExportRequest, export_verified, modalities_of

    modalities = modalities_of(trained, arguments.modality)
    requests = {}
    for modality in modalities:
        target = output.with_stem(f"{output.stem}-{modality}") if len(modalities) > 1 else output
        check_output(target, suffixes=(suffix,), reads=files_read(checkpoint), beside=".json")
        check_derived(Path(f"{target}.json"), MARK, "remove it, or choose another --output")
        if target != arguments.output:
            check_derived(target, b"ms_vireid", "remove it, or choose another --output")
        requests[target] = ExportRequest(trained, modality, arguments.batch_size)
    height, width = trained.image_size
    features = trained.model.bottleneck.num_features
    verified = export_verified(requests, import_module(f"ms_vireid.exports.{MODULES[arguments.format]}"))
    for target, (batch, compared) in verified.items():
        kind = " and ".join(requests[target].modalities)
        say(
            f"{target}: {kind} pictures {height}x{width} to {features} features, {batch}, "
            f"{target.stat().st_size / 2**20:.1f} MiB; {compared}, prepared as {target.name}.json says"
        )

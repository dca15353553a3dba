"""Export the inference graph of a checkpoint, from pictures to L2-normalised features, to a file for other programs.

PMT gives one file; AGW and MUN, whose first layers differ by modality, give one for visible and one for infrared
pictures. F.json beside each says how to prepare pictures. Before a file gets its final name, it is loaded again and
compared with the checkpoint on different pictures, and on files prepared by F.json. All of this runs on the CPU.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from argparse import Namespace
from importlib import import_module
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, require_extra, run

MODULES = {"mindir": "mindir", "onnx": "onnx_graph"}  # of ms_vireid.exports


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--format", choices=MODULES, required=True, help="onnx needs pip install -e '.[export]', mindir nothing more"
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="file to write; if there are two, -visible and -infrared are put into its name (default: beside the "
        "checkpoint, under its name with the format's suffix)",
    )
    parser.add_argument("--modality", choices=MODALITIES, help="write only this one of AGW's and MUN's two files, as F")
    parser.add_number(
        "--batch-size",
        Bounds(1, 256, "the file is tried on a batch of that size, in memory"),
        help="fixed number of pictures for each call, which some devices need (default: any)",
    )
    arguments = parser.parse_args()
    if arguments.format == "onnx":
        require_extra("ms_vireid/export.py --format onnx", "export", "onnx", "onnxruntime")
    _export(arguments)


def _export(arguments: Namespace) -> None:
    """Refuse what can be refused before the device is set up, then let `exports/` write and try the files."""
    with at_once():
        from ms_vireid.checkpoints.containers import weight_file
        from ms_vireid.devices import runtime
        from ms_vireid.files.checks import require_file
        from ms_vireid.files.writing import check_derived, check_output
        from ms_vireid.search.start import files_read, load_trained

    checkpoint = weight_file(arguments.checkpoint)
    require_file(checkpoint, "checkpoint file")
    suffix = f".{arguments.format}"
    output = arguments.output or checkpoint.with_suffix(suffix)
    check_output(output, suffixes=(suffix,), reads=files_read(checkpoint))

    runtime.set_up("CPU")
    (trained,) = load_trained([checkpoint])
    # These import mindspore: after the device is set up.
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


if __name__ == "__main__":
    run(main)

"""The inference graph of a checkpoint, pictures to L2-normalised features, in a file that other programs run.

PMT gives one file; AGW and MUN, whose first layers differ by modality, one for visible and one for infrared pictures.
The file also says how to prepare a picture (size, filter, mean ...). Before a file gets its name, it is loaded again
and compared with the checkpoint on different pictures. All of this runs on the CPU.
"""

from importlib import import_module
from pathlib import Path

from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, require_extra, run
from ms_vireid.devices import runtime
from ms_vireid.files.checks import require_file
from ms_vireid.files.writing import check_derived, check_output

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
        help="file to write, with -visible and -infrared put into its name if there are two; without it, the "
        "checkpoint's name with the format's suffix, beside it",
    )
    parser.add_argument(
        "--modality", choices=MODALITIES, help="of AGW's and MUN's two files write only this one, named F"
    )
    parser.add_number(
        "export --batch-size", help="fixed number of pictures a call, which some devices need (default: any)"
    )
    arguments = parser.parse_args()
    if arguments.format == "onnx":
        require_extra("ms_vireid/export.py --format onnx", "export", "onnx", "onnxruntime")
    from ms_vireid.inference import checkpoint_file, files_read

    checkpoint = checkpoint_file(arguments.checkpoint)
    require_file(checkpoint, "checkpoint file")
    suffix = f".{arguments.format}"
    output = arguments.output or checkpoint.with_suffix(suffix)
    check_output(output, suffixes=(suffix,), reads=files_read(checkpoint))

    runtime.set_up("CPU")
    from ms_vireid.exports.verified import Request, export_verified, modalities_of
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([checkpoint])
    modalities = modalities_of(trained, arguments.modality)
    requests = {}
    for modality in modalities:
        target = output.with_stem(f"{output.stem}-{modality}") if len(modalities) > 1 else output
        check_output(target, suffixes=(suffix,), reads=files_read(checkpoint))
        if target != arguments.output:
            check_derived(target, b"ms_vireid", "remove it, or choose another --output")
        requests[target] = Request(trained, modality, arguments.batch_size)
    height, width = trained.image_size
    features = trained.model.bottleneck.num_features
    written = export_verified(requests, import_module(f"ms_vireid.exports.{MODULES[arguments.format]}"))
    for target, (error, limit) in written.items():
        request = requests[target]
        kind = " and ".join(request.modalities)
        batch = f"batches of {request.batch_size}" if request.batch_size else "any batch"
        tried = " and ".join(map(str, request.batch_sizes))
        say(
            f"{target}: {kind} pictures {height}x{width} to {features} features, {batch}, "
            f"{target.stat().st_size / 2**20:.1f} MiB; largest error {error:.1e} of {limit:.1e} in batches of {tried}"
        )


if __name__ == "__main__":
    run(main)

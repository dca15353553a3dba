"""Convert checkpoints between PyTorch and MindSpore, either way: weights, and the state of training.

A run's .safetensors, from ms_vireid/train.py or torch_ref/train.py, says whose names it has, and is converted to the
other framework's. MindSpore's .ckpt has MindSpore's names; PyTorch's .pth (.pt) has PyTorch's, and holds only weights.
Checkpoints of the authors' PMT, of the AGW baseline, and of ViT-B/16 and ResNet-50 in timm, torchvision, mindcv, the
transformers library and mindone are recognised by the names of their weights; the last become files for
model.pretrained. The format of SRC is recognised by its content, not its suffix.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import FRAMEWORKS, WRITTEN
from ms_vireid.command.running import Parser, require_extra, run
from ms_vireid.devices import runtime
from ms_vireid.files.checks import require_file
from ms_vireid.files.writing import check_output


def _check_target(target: Path, source: Path, config: Path | None, framework: str | None, overwrite: bool) -> None:
    """Raise InputError unless `target` is of a format that may have the framework's names, and can be written."""
    if target.suffix not in WRITTEN:
        raise InputError(f"{target}: its suffix is none of {', '.join(WRITTEN)}")
    if framework and WRITTEN[target.suffix] not in (framework, None):
        names = FRAMEWORKS[WRITTEN[target.suffix]]
        raise InputError(
            f"--to {framework}: a {target.suffix} has {names}'s names; write a .safetensors, or leave --to out"
        )
    check_output(target, "DST", reads=[config])
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: is the file to convert; choose another name")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: already exists; choose another name, or give --overwrite")


def main() -> None:
    parser = Parser(__doc__)
    source = "weights to read: a file or a run folder; the content says which format it is"
    parser.add_argument("source", type=Path, metavar="SRC", help=source)
    parser.add_argument("target", type=Path, metavar="DST", help=f"file to write: {', '.join(WRITTEN)}")
    parser.add_argument(
        "--to",
        choices=FRAMEWORKS,
        help="whose names a .safetensors gets, MindSpore's or PyTorch's (default: those that SRC does not have)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="C",
        help="recipe for a file that carries none (default: the recipe of its layout)",
    )
    parser.add_argument(
        "--weights", metavar="NAME", help="which of several sets of weights in SRC, for example state_dict_ema"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would become of every key, and write nothing"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it is there")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, for example model.depth=6"
    )
    arguments = parser.parse_intermixed_args()

    require_extra("convert.py", "convert", "torch")
    arguments.source = weight_file(arguments.source)
    require_file(arguments.source, "checkpoint file")
    _check_target(arguments.target, arguments.source, arguments.config, arguments.to, arguments.overwrite)
    runtime.set_up("CPU")
    with at_once():
        from parity import conversion

    conversion.main(arguments)


if __name__ == "__main__":
    run(main)

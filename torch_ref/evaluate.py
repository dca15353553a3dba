"""Evaluate a checkpoint with PyTorch's names under its data set's protocol, as ms_vireid.evaluate does."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import dataclasses
import shlex
import sys
from argparse import Namespace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, require_extra, run
from ms_vireid.files.writing import check_output, write_json, write_text

if TYPE_CHECKING:
    import torch

    from ms_vireid.config import Config
    from ms_vireid.evaluation.protocol import ProtocolResult


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="F", help="file of torch_ref/train.py or convert.py"
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to compute; auto takes cuda, else cpu"
    )
    parser.add_argument("--tf32", action="store_true", help="let matrix products round to TF32 on a GPU")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar=("NAME", "data.key=value"),
        help="test on another set, as ms_vireid does",
    )
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    parser.add_argument("--report", type=Path, metavar="F.md", help="also write a dated table of one row to F.md")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="evaluation.key=value",
        help="values of the protocol, for example evaluation.mode=indoor",
    )
    arguments = parser.parse_intermixed_args()
    arguments.overrides += [word for word in arguments.data[1:] if word.startswith("evaluation.")]
    arguments.data = [word for word in arguments.data if word not in arguments.overrides]
    require_extra("torch_ref/evaluate.py", "parity", "torch")
    check_output(arguments.json, "--json")
    check_output(arguments.report, "--report")
    if foreign := next((word for word in arguments.overrides if not word.startswith("evaluation.")), None):
        raise InputError(
            f"{foreign}: a trained model's protocol alone can be chosen, evaluation.KEY=VALUE; leave it out"
        )
    _evaluate(arguments)


def _evaluate(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.config import apply_override, check_config, dump_config
        from ms_vireid.engine.checkpoint_config import checkpoint_config
        from ms_vireid.engine.run_folder import RunFolder, check_outside_data
        from ms_vireid.engine.test_set import read_test_set
        from ms_vireid.evaluation.evaluating import evaluate_model
        from ms_vireid.evaluation.metrics_table import format_table
        from ms_vireid.evaluation.protocol import evaluated, require_choices
        from torch_ref.engine.checkpoint import load_checkpoint, load_model
        from torch_ref.engine.device import choose, in_words, round_products
        from torch_ref.evaluation.evaluating import FeatureExtractor
        from torch_ref.models import build_model

    checkpoint = load_checkpoint(arguments.checkpoint)
    trained = checkpoint_config(checkpoint)
    device = choose(arguments.device)
    round_products(arguments.tf32)
    config, data, _ = read_test_set(trained, checkpoint.path, checkpoint.meta, arguments.data_root, arguments.data)
    tree = dump_config(config)
    for override in arguments.overrides:
        apply_override(tree, override)
    config = check_config(tree, "options")
    require_choices(arguments.overrides, data)
    run_folder = RunFolder(checkpoint.path.parent)
    reads = [checkpoint.path, *run_folder.files]
    for option, output in (("--json", arguments.json), ("--report", arguments.report)):
        check_output(output, option, reads=reads)
        check_outside_data(output, option, data, run_folder)
        reads.append(output)
    model = build_model(trained).to(device).eval()
    load_model(model, checkpoint)
    say(f"device: {in_words(device)}")
    extractor = FeatureExtractor(model, device, config.data, config.evaluation.batch_size)
    result = evaluate_model(extractor, data, config.evaluation)
    sets = evaluated(config, data.protocol, trained_on=trained.data.name)
    result = dataclasses.replace(result, evaluated=sets)
    say(f"evaluated: {_words(result.evaluated)}")
    say(f"{result.num_queries:,} queries among {result.num_gallery:,} pictures; checksum {result.checksum}")
    name = arguments.checkpoint.stem
    table = format_table({name: result.mean}, {name: result.std} if len(result.trials) > 1 else {})
    say(*table.split("\n"))
    if arguments.json:
        write_json(arguments.json, result.as_dict())
    if arguments.report:
        write_text(arguments.report, report(result, config, device))


def report(result: "ProtocolResult", config: "Config", device: "torch.device") -> str:
    """Make a Markdown table of one row for a README: date, device, result, and below it the command."""
    import torch

    from torch_ref.engine.device import in_words

    numbers = {"rank-1": "rank1", "mAP": "map", "mINP": "minp"}
    several = len(result.trials) > 1
    cells = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "device": in_words(device),
        "PyTorch": torch.__version__,
        "method": config.model.name,
        "evaluated": _words(result.evaluated),
    }
    for name, key in numbers.items():
        cells[name] = f"{100 * result.mean[key]:.2f}" + (f" ± {100 * result.std[key]:.2f}" if several else "")
    command = shlex.join(["python", "torch_ref/evaluate.py", *sys.argv[1:]])
    lines = [cells, ["---"] * len(cells), cells.values()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n`{command}`\n"


def _words(evaluated: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in evaluated.items())


if __name__ == "__main__":
    run(main)

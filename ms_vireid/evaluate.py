"""Evaluate a checkpoint under its data set's protocol: every metric as mean and deviation over the trials."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import DIRECTIONS
from ms_vireid.command.running import Parser, add_inference, run
from ms_vireid.files.writing import check_output, whole, write_json

if TYPE_CHECKING:
    from ms_vireid.config import Config
    from ms_vireid.data.records import ReIDData


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="P", help="model.safetensors or last.safetensors of a run"
    )
    add_inference(parser)
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")
    parser.add_argument("--mode", choices=("all", "indoor"), help="SYSU-MM01's search mode (default: the run's)")
    parser.add_argument("--shots", type=int, choices=(1, 10), help="SYSU-MM01's gallery images per identity and camera")
    parser.add_argument("--direction", choices=DIRECTIONS, help="which modality queries (default: the run's)")
    parser.add_argument("--trials", type=int, metavar="N", help="SYSU-MM01's and LLCM's galleries (default: the run's)")
    parser.add_argument(
        "--corrupted", action="store_true", help="corrupt the visible pictures (SYSU-MM01-C, RegDB-C): ten evaluations"
    )
    parser.add_argument("--frost", metavar="D", help="photographs of frost for corrupted pictures (default: drawn)")
    parser.add_argument("--flip", action="store_true", help="add the features of each picture's mirror image")
    parser.add_argument(
        "--corruption-sheet", type=Path, metavar="F", help="also draw a visible test picture in every corruption to F"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    arguments = parser.parse_args()
    check_output(arguments.json, "--json")
    check_output(arguments.corruption_sheet, "--corruption-sheet")

    if arguments.frost and not (arguments.corrupted or arguments.corruption_sheet):
        raise InputError("--frost: only with --corrupted or --corruption-sheet")
    from ms_vireid.evaluation.protocol import evaluated
    from ms_vireid.evaluation.table import format_table
    from ms_vireid.inference import start_inference

    program = start_inference(arguments, arguments.checkpoint)
    from ms_vireid.inference.evaluating import evaluate_corrupted, evaluate_model, frost_photographs
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([arguments.checkpoint], program)
    config = _with_options(trained.config, arguments)
    data = trained.read_data(arguments.data_root)
    _refuse_idle(arguments, data)
    if arguments.corruption_sheet:
        from ms_vireid.data.corruptions import corruption_sheet
        from ms_vireid.data.randomness import counter_generator
        from ms_vireid.data.transforms import load_image

        shown = load_image(data.test.paths[data.test.infrared.argmin()], config.data.image_size)
        photographs = frost_photographs(config.evaluation)
        sheet = corruption_sheet(shown, counter_generator("corruption", 0), photographs)
        with whole(arguments.corruption_sheet) as temporary:
            sheet.save(temporary, "PNG")
    if trained.left_out:
        parts = ", ".join(sorted({name.partition(".")[0] for name in trained.left_out}))
        print(f"note: {len(trained.left_out)} parameters that only training needs are left out ({parts})")
    try:
        evaluate = evaluate_corrupted if arguments.corrupted else evaluate_model
        result = evaluate(trained.extractor, data, config.evaluation)
    except KeyboardInterrupt:
        print("stopped; nothing was evaluated", file=sys.stderr)
        raise
    done, name = evaluated(config, data.protocol, arguments.corrupted), arguments.checkpoint.stem
    sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
    print(f"evaluated: {', '.join(f'{key} {_word(value)}' for key, value in done.items())}")
    trials = f"{len(result.trials)} trial{'s' if len(result.trials) > 1 else ''}"
    print(f"{sizes} in {trials}; checksum of what was drawn {result.checksum}")
    print(format_table({name: result.mean}, {name: result.std} if len(result.trials) > 1 else {}))
    if arguments.json:
        write_json(arguments.json, result.as_dict() | {"evaluated": done})


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _refuse_idle(arguments, data: "ReIDData") -> None:
    """Raise InputError for an option that the data set's protocol leaves nothing to choose for."""
    from ms_vireid.evaluation.protocol import CHOICES

    if arguments.corrupted and arguments.trials is not None:
        raise InputError("--trials: corrupted pictures are searched in the protocol's first trial alone; leave it out")
    for name in ("mode", "shots", "trials"):
        if getattr(arguments, name) is not None and name not in CHOICES[data.protocol]:
            raise InputError(f"--{name}: {data.name} is evaluated without it; leave it out")


def _with_options(config: "Config", arguments) -> "Config":
    """The run's configuration with what the command line says otherwise."""
    from ms_vireid.config import check_config, dump_config

    tree = dump_config(config)
    chosen = {name: getattr(arguments, name) for name in ("mode", "shots", "direction", "trials", "frost")}
    tree["evaluation"] |= {name: value for name, value in chosen.items() if value is not None}
    if arguments.flip:
        tree["evaluation"]["flip"] = True
    return check_config(tree, "command line")


if __name__ == "__main__":
    run(main)

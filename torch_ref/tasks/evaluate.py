"""The evaluation of a checkpoint in PyTorch."""

import argparse
import dataclasses
import shlex
import sys
from datetime import datetime, timezone

import numpy as np
import torch
from torch import nn

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.progress import progress
from ms_vireid.config import Config, apply_override, check_config, dump_config
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.engine.checkpoint_config import checkpoint_config
from ms_vireid.engine.run_folder import RunFolder, check_outside_data
from ms_vireid.engine.test_set import read_test_set
from ms_vireid.evaluation.metrics_table import format_table
from ms_vireid.evaluation.protocol import ProtocolResult, evaluate_trials, evaluated, protocol_trials, require_choices
from ms_vireid.evaluation.ranking import first_fault
from ms_vireid.files.writing import check_output, write_json, write_text
from torch_ref.engine.batches import iterate
from torch_ref.engine.checkpoint import load_checkpoint, load_model
from torch_ref.engine.device import choose, in_words, round_products
from torch_ref.models import build_model


def main(arguments: argparse.Namespace) -> None:
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
    result = evaluate(model, data, config, device)
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


def evaluate(model: nn.Module, data: ReIDData, config: Config, device: torch.device) -> ProtocolResult:
    """Evaluate a model, which is in evaluation mode, under the protocol.

    Raises InputError as `protocol_trials` does, for a picture that cannot be decoded, and for a feature that is not
    finite or could not be normalised.
    """
    trials = protocol_trials(data, config.evaluation)
    used = np.unique(np.concatenate([part for trial in trials for part in (trial.query, trial.gallery)]))
    rows = extract(model, data.test.subset(used), config, device)
    features = np.zeros((len(data.test), rows.shape[1]), np.float32)
    features[used] = rows
    return evaluate_trials(features, data.test, trials, data.protocol, config.evaluation.rerank)


def extract(model: nn.Module, images: ImageSet, config: Config, device: torch.device) -> np.ndarray:
    """Extract the features of all pictures, float32 [N, C], as `ms_vireid.search.features` does."""
    size, value_ranges = config.data.image_size, config.data.value_ranges
    batches = EvaluationBatches(images, size, config.evaluation.batch_size, value_ranges=value_ranges)
    features = None
    items = iterate(batches, config.data.workers, 0, len(batches))
    with torch.inference_mode():
        for pixels, index in progress(items, len(batches), "features", " batches"):
            modality = "infrared" if images.infrared[index[0]] else "visible"
            pixels = torch.from_numpy(pixels).to(device)
            versions = (pixels, pixels.flip(3)) if config.evaluation.flip else (pixels,)
            outputs = [model(version, modality).cpu().numpy() for version in versions]
            for row, problem in filter(None, map(first_fault, outputs)):
                raise InputError(f"{images.paths[index[row]]}: its feature {problem}; check the checkpoint")
            rows = sum(outputs) / len(outputs)
            if features is None:
                features = np.zeros((len(images), rows.shape[1]), np.float32)
            features[index] = rows
    if config.evaluation.renormalise:
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return features


def report(result: ProtocolResult, config: Config, device: torch.device) -> str:
    """Make a Markdown table of one row for a README: date, device, result, and below it the command."""
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

"""The evaluation of a model under its data set's protocol."""

import numpy as np
import torch
from torch import nn

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import progress
from ms_vireid.config import Config
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.protocol import ProtocolResult, evaluate_trials, protocol_trials
from ms_vireid.evaluation.ranking import first_fault
from torch_ref.engine.batches import iterate


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

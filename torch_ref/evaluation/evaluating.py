"""A model's forward passes, for the evaluation that both frameworks share (`ms_vireid.evaluation.evaluating`)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import progress
from ms_vireid.config import DataConfig
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.records import ImageSet
from ms_vireid.evaluation.ranking import first_fault
from torch_ref.engine.batches import iterate


@dataclass(eq=False)
class FeatureExtractor:
    """A model in evaluation mode, and how its pictures are read, `batch_size` at a time."""

    model: nn.Module
    device: torch.device
    data: DataConfig
    batch_size: int

    def extract(
        self, images: ImageSet, version: CorruptedVersion | None = None, flip: bool = False, renormalise: bool = False
    ) -> np.ndarray:
        """Extract the features of all pictures, float32 [N, C], as `ms_vireid.search.features` does. Raises InputError
        for a picture that cannot be decoded, and for a feature that is not finite or could not be normalised."""
        size, value_ranges = self.data.image_size, self.data.value_ranges
        batches = EvaluationBatches(images, size, self.batch_size, version, value_ranges=value_ranges)
        features = None
        items = iterate(batches, self.data.workers, 0, len(batches))
        with torch.inference_mode():
            for pixels, index in progress(items, len(batches), "features", " batches"):
                modality = "infrared" if images.infrared[index[0]] else "visible"
                pixels = torch.from_numpy(pixels).to(self.device)
                versions = (pixels, pixels.flip(3)) if flip else (pixels,)
                outputs = [self.model(version, modality).cpu().numpy() for version in versions]
                for row, problem in filter(None, map(first_fault, outputs)):
                    raise InputError(f"{images.paths[index[row]]}: its feature {problem}; check the checkpoint")
                rows = sum(outputs) / len(outputs)
                if features is None:
                    features = np.zeros((len(images), rows.shape[1]), np.float32)
                features[index] = rows
        if renormalise:
            features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features

"""Features of pictures that are searched, or searched for, without a feature file."""

from pathlib import Path

from ms_vireid.inference.feature_files import Features, file_checksum
from ms_vireid.inference.features import extract_features
from ms_vireid.inference.trained import load_trained
from ms_vireid.search.sources import Pictures


class Embedder:
    """A checkpoint's model, run by a program of `engine.programs`, and the description that its features carry.

    Raises:
        InputError: a file that is missing or no checkpoint of this project; a picture that cannot be decoded.
    """

    def __init__(self, checkpoint: Path, program: str):
        (self.trained,) = load_trained([checkpoint], program)
        self.info = {"checkpoint": {"file": checkpoint.name, "sha256": file_checksum(checkpoint)}}

    def __call__(self, pictures: Pictures) -> Features:
        config = self.trained.config.evaluation
        size = self.trained.image_size
        features = extract_features(self.trained.model, pictures.images, size, config.batch_size, workers=0)
        return pictures.with_features(features, self.info)

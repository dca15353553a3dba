"""Features of many pictures, kept beside the output batch by batch, so that an interrupted run can go on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import stop_requests
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import load_image, normalise
from ms_vireid.files.checks import DAMAGED
from ms_vireid.files.writing import append_line, write_text
from ms_vireid.inference.features import features_by_batch
from ms_vireid.models.base import ReIDModel

LINES = 10  # of progress in a log


class PictureBatches(EvaluationBatches):
    """As EvaluationBatches, each with what could not be decoded: images [n, 3, H, W], indices [n], {index: why}.

    Without `skip_broken` such a batch is the error itself.
    """

    def __init__(self, images: ImageSet, image_size: tuple[int, int], batch_size: int, skip_broken: bool):
        super().__init__(images, image_size, batch_size)
        self.skip_broken = skip_broken

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, dict[int, str]] | InputError:
        pixels, kept, broken = [], [], {}
        for i in map(int, self.batches[number]):
            held = self._load(i)
            if not isinstance(held, InputError):
                pixels.append(held)
                kept.append(i)
            elif self.skip_broken:
                broken[i] = str(held)
            else:
                return held
        stacked = np.stack(pixels) if pixels else np.zeros((0, 3, *self.image_size), np.float32)
        return stacked, np.array(kept, np.int64), broken

    def _load(self, i: int) -> np.ndarray | InputError:
        try:
            return normalise(load_image(self.images.paths[i], self.image_size))
        except InputError as error:
            return error


class PartialResult:
    """A folder with the features found so far.

    plan.json: the checkpoint and pictures that they belong to. features.npy: float32 [N, C], filled batch by batch.
    journal.jsonl: a line for each batch that is whole in features.npy, with its broken pictures.
    """

    def __init__(self, output: Path):
        self.path = output.with_name(f"{output.name}.partial")
        self.plan = self.path / "plan.json"
        self.features = self.path / "features.npy"
        self.journal = self.path / "journal.jsonl"
        self.broken: dict[int, str] = {}

    def begin(self, plan: dict) -> int:
        """The number of batches that are there already: 0, with the folder made anew, unless it has the same plan.

        Raises:
            InputError: the folder cannot be written.
        """
        self.broken.clear()
        text = json.dumps(plan, indent=2) + "\n"
        try:
            if self.plan.is_file() and self.plan.read_bytes() == text.encode():
                with suppress(*DAMAGED):
                    return self._read_journal()
            if self.path.exists():
                if any(self.path.iterdir()) and not self.plan.is_file():
                    raise InputError(f"{self.path}: exists but is not a partial result; choose another --output")
                print(f"note: {self.path} belongs to other pictures, another checkpoint or batch size; starting anew")
                shutil.rmtree(self.path)
            self.path.mkdir()
            write_text(self.plan, text)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error}); choose another --output") from None
        return 0

    def _read_journal(self) -> int:
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []
        whole = [line for line in lines if line.endswith("}}")]  # not one that a killed process cut off
        for line in whole:
            self.broken |= {int(i): why for i, why in json.loads(line)["broken"].items()}
        if whole:
            self.rows()
        write_text(self.journal, "".join(f"{line}\n" for line in whole))
        return len(whole)

    def make_rows(self, count: int, width: int) -> np.ndarray:
        return open_memmap(self.features, mode="w+", dtype=np.float32, shape=(count, width))

    def rows(self) -> np.ndarray | None:
        """features.npy, not read into memory; None before the first batch."""
        return open_memmap(self.features, mode="r+") if self.features.exists() else None

    def done(self, batch: int, broken: dict[int, str]) -> None:
        self.broken |= broken
        append_line(self.journal, json.dumps({"batch": batch, "broken": broken}))

    def remove(self) -> None:
        shutil.rmtree(self.path)


def extract_resumably(
    model: ReIDModel,
    images: ImageSet,
    image_size: tuple[int, int],
    batch_size: int,
    workers: int,
    partial: PartialResult,
    plan: dict,
    skip_broken: bool = False,
) -> tuple[np.ndarray, dict[int, str]]:
    """What `extract_features` returns, from `partial` as far as it goes, and the broken pictures by index.

    Leave out the rows of broken pictures. The array lies in `partial`, on disk.

    Raises:
        InputError: a picture cannot be decoded and is not skipped, none can be, or a feature is not finite.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the batch in hand.
    """
    batches = PictureBatches(images, image_size, batch_size, skip_broken)
    start = partial.begin(plan | {"pictures": _checksum(images), "image_size": list(image_size), "batch": batch_size})
    if start:
        print(f"going on from {partial.path}: {start} of {len(batches)} batches are there")
    features = partial.rows() if start else None
    with stop_requests() as stop, closing(features_by_batch(model, batches, batch_size, workers, start)) as items:
        for number, (index, rows, broken) in enumerate(_with_lines(items, start, len(batches)), start):
            if len(index):
                if features is None:
                    features = partial.make_rows(len(images), rows.shape[1])
                features[index] = rows
                features.flush()
            partial.done(number, broken)
            if stop:
                raise KeyboardInterrupt
    if len(partial.broken) == len(images):
        raise InputError(f"none of the {len(images)} pictures can be decoded, first: {partial.broken[0]}")
    return features, partial.broken


def _with_lines(items: Iterator, start: int, total: int) -> Iterator:
    """The items, with a few lines of progress if there is no bar."""
    every = max(1, -(-total // LINES))
    for number, item in enumerate(items, start + 1):
        yield item
        if number % every == 0 and number < total:
            tqdm.write(f"{number} of {total} batches")


def _checksum(images: ImageSet) -> str:
    """A checksum of what the features depend on: paths, sizes, times of change and modalities."""
    digest = hashlib.sha256()
    for path, infrared in zip(images.paths, images.infrared, strict=True):
        status = path.stat()
        digest.update(os.fsencode(f"{path}\t{status.st_size}\t{status.st_mtime_ns}\t{bool(infrared)}\n"))
    return digest.hexdigest()

"""Feature extraction that resumes: each batch is stored beside the output as soon as it is computed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field

from ms_vireid.command.errors import InputError
from ms_vireid.command.memory import require_memory
from ms_vireid.command.printing import say
from ms_vireid.command.stopping import stop_requests
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.contents import digests
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import normalise
from ms_vireid.files.checks import read_json
from ms_vireid.files.writing import TEMPORARY, lock, make_folder, obstacle, reserve, write_json, write_rows

if TYPE_CHECKING:
    from ms_vireid.search.features import FeatureExtractor

PARTIAL = ".partial"  # ends the name of a partial result
STATE, FEATURES = "state.json", "features.bin"  # of a partial result: a `_State`, and float32 [N, width]
LOCK = "lock"  # keeps other processes out
_REMOVE = "remove the folder to start over, or choose another --output"


class _State(BaseModel):
    plan: dict  # the checkpoint and pictures
    batches: int = Field(0, ge=0)  # complete in features.bin
    checksum: str = ""  # of these batches' features
    contents: str = ""  # checksum of their pictures' files
    width: int = Field(0, ge=0, lt=2**31)  # of a feature; 0 before the first
    broken: dict[int, str] = {}  # pictures of these batches that cannot be decoded, and why


class _Batches(EvaluationBatches):
    """EvaluationBatches that leave out pictures that cannot be decoded: images, indices, {index: why} of those, and
    the digests of all files."""

    def read(self, number: int, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str], bytes]:
        index = list(map(int, self.batches[number]))
        images = np.ndarray((len(index), 3, *self.image_size), np.float32, memory)
        decoded, broken = [], {}
        for i in index:
            try:
                pixels = self.load(i)
                normalise(pixels, out=images[len(decoded)])
                decoded.append(i)
            except InputError as error:
                broken[i] = str(error)
        return images[: len(decoded)], np.array(decoded, np.int64), broken, self.contents(number)

    def contents(self, number: int) -> bytes:
        """Digests of a batch's files, which were read just now."""
        return digests([self.images.paths[i] for i in self.batches[number]]).tobytes()


@contextmanager
def partial_result(output: Path) -> Iterator[Path]:
    """Make and lock the folder beside the output that stores the partial result. It is removed after the block, or
    stays if the block fails. Raises InputError if another process has it, it holds something else, or it cannot be
    written."""
    partial = output.with_name(f"{output.name}{PARTIAL}")
    if os.path.lexists(partial) and not _is_partial(partial):
        raise InputError(f"{partial}: already exists but is not a partial result; choose another --output")
    make_folder(partial)
    folder_lock = lock(partial / LOCK)
    try:
        yield partial
        for name in (FEATURES, STATE, LOCK):
            (partial / name).unlink(missing_ok=True)
        with suppress(OSError):  # another process has started there
            partial.rmdir()
    finally:
        folder_lock.release()


def extract_resumably(
    extractor: "FeatureExtractor", images: ImageSet, partial: Path, plan: dict, skip_broken: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Extract as `FeatureExtractor.extract` does; also return the pictures that cannot be decoded, whose rows mean
    nothing.

    partial: a `partial_result`, which holds the array. plan: what the features depend on besides the pictures and their
    size. Raises as `FeatureExtractor.by_batch` does, and InputError if no picture can be decoded, or, without
    `skip_broken`, one of them, or `partial` is damaged or cannot be written.
    """
    batches = _Batches(images, extractor.image_size, extractor.batch_size, value_ranges=extractor.value_ranges)
    shape = {"image_size": list(extractor.image_size), "batch": extractor.batch_size}
    state = _begin(partial, plan | {"pictures": _names_checksum(images)} | shape, batches)
    if state.batches:
        say(f"continuing from {partial}: {state.batches} of {len(batches)} batches are done")
    every = -(-len(batches) // 10)  # ten lines of progress
    with stop_requests() as stop, closing(extractor.by_batch(batches, state.batches)) as items:
        for index, rows, broken, contents in items:
            if broken and not skip_broken:
                raise InputError(f"{next(iter(broken.values()))}, or leave it out with --skip-broken")
            if len(index):
                if not state.width:
                    state.width = rows.shape[1]
                    reserve(partial / FEATURES, 4 * len(images) * state.width)
                write_rows(partial / FEATURES, index, np.ascontiguousarray(rows, np.float32))
                state.checksum = _chained(state.checksum, np.ascontiguousarray(rows, np.float32).tobytes())
            state.contents = _chained(state.contents, contents)
            state.batches += 1
            state.broken |= broken
            write_json(partial / STATE, state.model_dump())
            if state.batches % every == 0 and state.batches < len(batches):
                say(f"{state.batches} of {len(batches)} batches")
            if stop:
                raise KeyboardInterrupt
    if len(state.broken) == len(images):
        raise InputError(f"none of the {len(images)} pictures can be decoded; the first: {state.broken[0]}")
    return _rows(partial, len(images), state.width), state.broken


def _is_partial(partial: Path) -> bool:
    """Whether this is the folder of a partial result, of plain files alone."""
    if partial.is_symlink() or not partial.is_dir():
        return False
    files = [path for path in partial.iterdir() if not TEMPORARY.fullmatch(path.name)]
    names = {path.name for path in files}
    return (names <= {LOCK} or STATE in names <= {STATE, FEATURES, LOCK}) and not any(map(obstacle, files))


def _begin(partial: Path, plan: dict, batches: EvaluationBatches) -> _State:
    """Read the state of a partial result with this plan, or start anew. Raises InputError for a damaged one."""
    if (partial / STATE).exists():
        state = read_json(partial / STATE, _State, "extract.py", _REMOVE)
        if state.plan == plan and not _fits(partial, state, batches):
            raise InputError(f"{partial}: its features are damaged; {_REMOVE}")
        done = map(batches.contents, range(state.batches if state.plan == plan else 0))
        if state.plan == plan and state.contents == reduce(_chained, done, ""):
            return state
        say(f"note: {partial} was made from other pictures, another checkpoint or batch size; starting over")
        (partial / FEATURES).unlink(missing_ok=True)
    state = _State(plan=plan)
    write_json(partial / STATE, state.model_dump())
    return state


def _fits(partial: Path, state: _State, batches: EvaluationBatches) -> bool:
    """Whether the state and the features on disk fit each other and the batches."""
    done = {index for batch in batches.batches[: state.batches] for index in batch.tolist()}
    has_features = state.broken.keys() < done
    if state.batches > len(batches) or not state.broken.keys() <= done or (state.width > 0) != has_features:
        return False
    count, checksum, file = len(batches.images), "", partial / FEATURES
    if has_features:
        if not file.is_file() or file.stat().st_size != 4 * count * state.width:
            return False
        features = _rows(partial, count, state.width)
        for batch in batches.batches[: state.batches]:
            if len(index := [i for i in batch.tolist() if i not in state.broken]):
                checksum = _chained(checksum, features[index].tobytes())
    return state.checksum == checksum


def _chained(checksum: str, content: bytes) -> str:
    """Continue the checksum of all earlier batches with the next one's content."""
    return hashlib.sha256(checksum.encode() + content).hexdigest()


def _rows(partial: Path, count: int, width: int) -> np.ndarray:
    """Map the features into memory, or read them where the file system maps no files."""
    path = partial / FEATURES
    with suppress(OSError):
        return np.memmap(path, np.float32, "c", shape=(count, width))
    require_memory(4 * count * width, f"{path}: reading it", "choose an --output on a disk of this machine")
    rows = np.empty((count, width), np.float32)
    try:
        with path.open("rb") as file:
            file.readinto(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); choose another --output") from None
    return rows


def _names_checksum(images: ImageSet) -> str:
    """Compute a checksum of the pictures' paths and modalities."""
    lines = (f"{path}\t{infrared}\n" for path, infrared in zip(images.paths, images.infrared, strict=True))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()

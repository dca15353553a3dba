"""Procedural people in SYSU-MM01's layout on disk, for demonstrations and tests without a licensed data set.

A figure is drawn once, as a map of *inks*: the material at each pixel. A visible picture shows an ink's colour, an
infrared one its reflectance, and the two are drawn independently of each other. So an identity can be recognised across
modalities by body shape, garments, patterns and carried things, but not by brightness.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import SyntheticConfig
from ms_vireid.data.processes import in_processes
from ms_vireid.data.published_sets import SYSU_CAMERAS
from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity
from ms_vireid.files.checks import file_checksum, read_bytes
from ms_vireid.files.writing import staged_folder

PICTURE = 3  # the random stream of a seed
VERSION = 4  # raise it whenever the same parameters no longer give the same files
MARKER = "synthetic.json"
JPEG_QUALITY = 92
_MAX_BYTES = 100_000  # of the marker
_CHUNK = 8  # people that a process draws at a time


def generate_sysu_mm01(root: Path, config: SyntheticConfig) -> None:
    """Write a synthetic set in SYSU-MM01's layout at `root`, atomically, unless it is already there.

    Identities are numbered from 1: training, then validation, then test. A picture depends only on (seed, identity,
    camera, number, image_size). Raises InputError if `root` contains anything else or cannot be written.
    """
    parameters = {"version": VERSION} | config.model_dump(mode="json")
    if _exists(root, parameters):
        return
    try:
        with staged_folder(root) as folder:
            _write_tree(folder, parameters)
    except InputError:
        if not _exists(root, parameters):  # another process may have generated the same set first
            raise


def _exists(root: Path, parameters: dict) -> bool:
    """Return whether `root` contains this set; False if it is empty. Raises InputError if it contains anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        marker = json.loads(read_bytes(root / MARKER, "file", _MAX_BYTES))
        content = marker.pop("content")
    except (InputError, OSError, LookupError, ValueError, RecursionError, TypeError, AttributeError):
        raise InputError(f"{root} is not a synthetic set (no readable {MARKER}): give another folder") from None
    if marker != parameters:
        raise InputError(f"{root} holds {marker}, not {parameters}: remove it or give another folder")
    if content != content_checksum(root):
        raise InputError(f"{root}: its pictures are damaged or changed; remove the folder to draw it again")
    return True


def content_checksum(root: Path) -> str:
    """Compute a checksum of all pictures and lists."""
    digest = hashlib.sha256()
    paths = (path for kind in ("cam*/*/[!.]*.jpg", "exp/[!.]*.txt") for path in root.glob(kind))
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + bytes.fromhex(file_checksum(path)))
    return digest.hexdigest()


def _write_tree(tree: Path, parameters: dict) -> None:
    seed, number = parameters["seed"], 0
    (tree / "exp").mkdir(parents=True)
    for split in ("train", "val", "test"):
        first, number = number + 1, number + parameters[f"{split}_identities"]
        (tree / "exp" / f"{split}_id.txt").write_text(",".join(map(str, range(first, number + 1))) + "\n")
    cameras = [Camera(seed, camera, parameters["image_size"]) for camera in SYSU_CAMERAS]
    draw = partial(_write_person, tree, seed, cameras, parameters["images_per_camera"])
    for _ in in_processes(draw, range(1, number + 1), _CHUNK, tree.name):
        pass
    (tree / MARKER).write_text(json.dumps(parameters | {"content": content_checksum(tree)}, indent=2) + "\n")


def _write_person(tree: Path, seed: int, cameras: Sequence[Camera], count: int, person: int) -> None:
    """Write all pictures of a person, `count` by each camera."""
    identity = draw_identity(seed, person)
    for camera in cameras:
        folder = tree / f"cam{camera.number}" / f"{person:04d}"
        folder.mkdir(parents=True)
        for n in range(1, count + 1):
            rng = np.random.default_rng((seed, PICTURE, person, camera.number, n))
            render(identity, camera, rng).save(folder / f"{n:04d}.jpg", quality=JPEG_QUALITY)

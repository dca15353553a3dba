"""Small data trees on disk in the real layouts, for tests of readers, loader and commands."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ms_vireid.data.synthetic import MARKER, content_checksum

SIZE = (24, 16)  # height, width in pixels
INFRARED_CAMERAS = (3, 6)

# SYSU-MM01 as it is met: the cameras that have seen each identity, with their numbers of pictures.
SYSU_TRAIN = {1: {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2}, 5: {1: 3, 3: 3}}
SYSU_VAL = {4: {2: 1, 6: 1}}  # fewer than two pictures of a modality
SYSU_TEST = {6: {1: 2, 2: 2, 3: 1, 5: 1, 6: 1}, 333: {1: 1, 4: 2, 6: 2}}
SYSU_NAMES = ("0001.jpg", "0002.JPG", "a b (copy).jpeg", "ünïcode.png", "x.BMP")

REGDB_IDENTITIES = {"train": (0, 1, 2), "test": (0, 1)}  # the published lists number each split from 0
REGDB_PICTURES = 2  # of each identity and modality

# LLCM: the pictures that each camera has taken of an identity, visible and infrared; camera 3 takes visible ones only.
LLCM_TRAIN = {0: {"vis": {1: 2, 6: 1}, "nir": {1: 1, 9: 2}}, 1: {"vis": {3: 2}, "nir": {2: 2}}}
LLCM_TEST = {
    3: {"vis": {1: 2, 2: 1, 3: 2}, "nir": {1: 3, 4: 1}},
    351: {"vis": {1: 1, 9: 2}, "nir": {1: 2, 2: 2, 9: 1}},
    1064: {"vis": {5: 1}, "nir": {5: 2}},
}


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, gray: bool = False) -> Path:
    """A picture of random blocks, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    image = Image.fromarray(blocks).resize((size[1], size[0]), Image.Resampling.NEAREST)
    image.convert("L" if gray else "RGB").save(path)
    return path


def write_sysu_mm01(root: Path) -> Path:
    """Odd file names, upper-case suffixes, cameras that have not seen an identity, identities with one picture of a
    modality, and a Thumbs.db."""
    for name, split in (("train", SYSU_TRAIN), ("val", SYSU_VAL), ("test", SYSU_TEST)):
        (root / "exp").mkdir(parents=True, exist_ok=True)
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, split)) + "\n")
        for identity, cameras in split.items():
            for camera, count in cameras.items():
                for i in range(count):
                    picture = SYSU_NAMES[(identity + camera + i) % len(SYSU_NAMES)]
                    path = root / f"cam{camera}" / f"{identity:04d}" / picture
                    write_picture(path, seed=100 * identity + 10 * camera + i, gray=camera in INFRARED_CAMERAS)
    (root / "cam1" / "0001" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return root


def write_regdb(root: Path, trial: int = 1) -> Path:
    """`Visible/` and `Thermal/` with bitmaps, and the four lists of one split in `idx/`."""
    (root / "idx").mkdir(parents=True, exist_ok=True)
    for split, labels in REGDB_IDENTITIES.items():
        for modality, folder in (("visible", "Visible"), ("thermal", "Thermal")):
            lines = []
            for label in labels:
                for i in range(REGDB_PICTURES):
                    name = f"{folder}/{split}{label}/{modality}_{i}.bmp"
                    seed = 10 * label + i + (1000 if split == "test" else 0)
                    write_picture(root / name, seed, gray=folder == "Thermal")
                    lines.append(f"{name} {label}\n")
            (root / "idx" / f"{split}_{modality}_{trial}.txt").write_text("".join(lines))
    return root


def llcm_name(identity: int, camera: int, number: int, modality: str) -> str:
    return f"{identity:04d}_c{camera:02d}_s{100 * identity + camera}_f{number}_{modality}.jpg"


def write_llcm(root: Path) -> Path:
    """Training pictures in `vis` and `nir` with their lists, test pictures by camera with the list of identities."""
    (root / "idx").mkdir(parents=True, exist_ok=True)
    (root / "idx" / "test_id.txt").write_text(",".join(map(str, LLCM_TEST)) + "\n")
    for modality in ("vis", "nir"):
        lines = []
        for label, seen in LLCM_TRAIN.items():
            for camera, count in seen[modality].items():
                for i in range(count):
                    name = f"{modality}/{label + 1:04d}/{llcm_name(label + 1, camera, i, modality)}"
                    write_picture(root / name, seed=100 * label + 10 * camera + i, gray=modality == "nir")
                    lines.append(f"{name} {label}\n")
        (root / "idx" / f"train_{modality}.txt").write_text("".join(lines))
        for identity, seen in LLCM_TEST.items():
            for camera, count in seen[modality].items():
                folder = root / f"test_{modality}" / f"cam{camera}" / f"{identity:04d}"
                for i in range(count):
                    path = folder / llcm_name(identity, camera, i, modality)
                    write_picture(path, seed=identity + 10 * camera + i, gray=modality == "nir")
    return root


def write_folder(root: Path, identities: tuple[str, ...] = ("anna", "ben", "cleo", "dora"), pictures: int = 2) -> Path:
    """`visible/ID/*.jpg` and `infrared/ID/*.jpg`."""
    for number, identity in enumerate(identities):
        for modality in ("visible", "infrared"):
            for i in range(pictures):
                path = root / modality / identity / f"{i}.jpg"
                write_picture(path, seed=100 * number + i, gray=modality == "infrared")
    return root


def truncate(path: Path, keep: float = 0.5) -> Path:
    """Keep only this share of a file, from its beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def accept_changes(root: Path) -> None:
    """Store the checksum of a synthetic set's changed pictures."""
    marker = root / MARKER
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"content": content_checksum(root)}))

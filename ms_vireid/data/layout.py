"""Pictures in any folder or list, and what the names of their folders say: modality, identity, camera."""

import os
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.data.folders import camera_of, identity_of, modality_of
from ms_vireid.data.pictures import SUFFIXES, is_picture, note_skipped
from ms_vireid.data.read import CAMERA_IN_NAME
from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.data.validation import read_lines, refuse_names, require_directory

UNKNOWN = -1


def find_pictures(root: Path, listing: Path | None = None, also_gone: bool = False) -> list[Path]:
    """Paths relative to `root`: every picture below it, sorted, or the lines of `listing`, in its order.

    also_gone: lines may name pictures that are not there. Raises InputError without any picture, and for a list that
    cannot be read or names no file.
    """
    require_directory(root, "give the folder of the pictures with --images")
    if listing is None:
        found = _walk(root)
    else:
        remedy = "give one path a line, relative to --images"
        lines = [line.strip() for line in read_lines(listing, remedy)]
        absent = (f"line {n} '{line}'" for n, line in enumerate(lines, 1) if line and not (root / line).is_file())
        refuse(() if also_gone else absent, f"{listing}: lines that name no file under {root}", remedy)
        found = [Path(line) for line in lines if line]
    refuse_names(map(str, found), root)
    if not found:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def _walk(root: Path) -> list[Path]:
    """Follows links to folders, but enters no folder twice and takes no picture twice."""
    found, folders, skipped = {}, {os.path.realpath(root)}, []
    for folder, below, names in os.walk(root, followlinks=True):
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(below)}
        below[:] = [name for name, path in real.items() if path not in folders and not folders.add(path)]
        for name in sorted(names):
            if is_picture(name, skipped, Path(folder)):
                path = Path(folder, name)
                found.setdefault(os.path.realpath(path), path.relative_to(root))
    note_skipped(skipped, root)
    return sorted(found.values())


def read_layout(root: Path, pictures: list[Path], modality: str = "auto") -> tuple[ImageSet, np.ndarray]:
    """`pictures`, relative to `root`, with what their folders say, and the names of the people on them, str [N]. An
    unknown camera is -1, as all identities' numbers are; an unknown person "".

    modality: "visible" or "infrared" for all, or "auto" to read it from the folders: the nearest to the picture that
    names one, else SYSU-MM01's `cam1` ... `cam6`. A person is a folder directly below one of these. A camera is `camN`,
    or part of the picture's name as in LLCM (`_c06_`). The last two parts of `root` count. Raises InputError if "auto"
    finds no modality.
    """
    rows = []
    for picture in pictures:
        folders = [*root.absolute().parts[-2:], *picture.parent.parts]
        said = modality_of(folders) if modality == "auto" else modality
        rows.append((picture, said, _camera(folders, picture.name), identity_of(folders) or ""))
    silent = [str(path) for path, said, *_ in rows if said is None]
    refuse(silent, f"{root}: pictures whose folders say no modality", "give --modality visible or infrared")
    images = image_set([(root / path, UNKNOWN, camera, said == "infrared") for path, said, camera, _ in rows])
    return images, np.array([name for *_, name in rows], str)


def _camera(folders: list[str], name: str) -> int:
    in_name = CAMERA_IN_NAME.search(name)
    in_folders = [number for number in map(camera_of, reversed(folders)) if number is not None]
    return [*in_folders, int(in_name[1]) if in_name else UNKNOWN][0]

"""Pictures in any folder or list, with the modality, identity and camera that their folders tell."""

import os
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.data.folders import camera_of, identity_of, modality_of
from ms_vireid.data.pictures import SUFFIXES, is_hidden, is_picture, note_skipped
from ms_vireid.data.read import CAMERA_IN_NAME
from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.data.validation import listed_files, read_lines, refuse_names, require_directory

UNKNOWN = -1


def find_pictures(root: Path, listing: Path | None = None, also_gone: bool = False) -> list[Path]:
    """Return paths relative to `root`: every picture below it, sorted, or the lines of `listing`, in its order.

    also_gone: lines may name missing pictures. Raises InputError if there is no picture, or if the list cannot be read
    or names missing files.
    """
    require_directory(root, "give the folder of the pictures with --images")
    if listing is None:
        pictures = _walk(root)
        refuse_names(map(str, pictures), root)
    else:
        remedy = "give one path a line, relative to --images"
        lines = enumerate(map(str.strip, read_lines(listing, remedy)), 1)
        pictures = listed_files(listing, root, [(n, line) for n, line in lines if line], remedy, also_gone)
    if not pictures:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return pictures


def _walk(root: Path) -> list[Path]:
    """List the pictures below `root`. Links to folders are followed, but no folder or picture is taken twice."""
    pictures, folders, skipped = {}, {os.path.realpath(root)}, []
    for folder, below, names in os.walk(root, followlinks=True):
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(below) if not is_hidden(name)}
        below[:] = [name for name, path in real.items() if path not in folders and not folders.add(path)]
        for name in sorted(names):
            if is_picture(name, skipped, Path(folder)):
                path = Path(folder, name)
                pictures.setdefault(os.path.realpath(path), path.relative_to(root))
    note_skipped(skipped, root)
    return sorted(pictures.values())


def read_layout(root: Path, pictures: list[Path], modality: str = "auto") -> tuple[ImageSet, np.ndarray]:
    """Return `pictures`, relative to `root`, with what their folders tell, and the names of the people, str [N].

    modality: "visible" or "infrared" for all pictures, or "auto" to read it from the folders: the innermost that names
    one, else SYSU-MM01's `cam1` ... `cam6`. A person is a folder directly below one of these, unknown "". A camera is
    `camN` or part of the picture's name as in LLCM (`_c06_`), unknown -1. All identities are -1. The last two parts of
    `root` count as folders. Raises InputError if "auto" finds no modality.
    """
    rows = []
    for picture in pictures:
        folders = [*root.absolute().parts[-2:], *picture.parent.parts]
        chosen = modality_of(folders) if modality == "auto" else modality
        rows.append((picture, chosen, _camera(folders, picture.name), identity_of(folders) or ""))
    unknown = [str(path) for path, chosen, *_ in rows if chosen is None]
    refuse(unknown, f"{root}: pictures whose folders say no modality", "give --modality visible or infrared")
    images = image_set([(root / path, UNKNOWN, camera, chosen == "infrared") for path, chosen, camera, _ in rows])
    return images, np.array([name for *_, name in rows], str)


def _camera(folders: list[str], name: str) -> int:
    in_name = CAMERA_IN_NAME.search(name)
    in_folders = [number for number in map(camera_of, reversed(folders)) if number is not None]
    return [*in_folders, int(in_name[1]) if in_name else UNKNOWN][0]

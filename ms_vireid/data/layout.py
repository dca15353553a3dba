"""Pictures in any folder or list, and what the names of their folders say: modality, identity, camera."""

import os
import re
from pathlib import Path

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.data.pictures import SUFFIXES
from ms_vireid.data.read import CAMERA_IN_NAME
from ms_vireid.data.records import SYSU_CAMERAS, SYSU_INFRARED_CAMERAS, ImageSet, image_set
from ms_vireid.data.validation import read_lines, refuse_names, require_directory

UNKNOWN = -1
_FOLDER_NAMES = {  # in any case; RegDB's and LLCM's too
    **dict.fromkeys(("visible", "vis", "rgb", "test_vis"), "visible"),
    **dict.fromkeys(("infrared", "ir", "nir", "thermal", "test_nir"), "infrared"),
}


def find_pictures(root: Path, listing: Path | None = None) -> list[Path]:
    """Paths relative to `root`: every picture below it, sorted, or the lines of `listing`, in its order.

    Raises InputError without any picture, and for a list that cannot be read or names no file.
    """
    require_directory(root, "give the folder of the pictures with --images")
    if listing is None:
        found = _walk(root)
    else:
        remedy = "give one path a line, relative to --images"
        lines = [line.strip() for line in read_lines(listing, remedy)]
        absent = (f"line {n} '{line}'" for n, line in enumerate(lines, 1) if line and not (root / line).is_file())
        refuse(absent, f"{listing}: lines that name no file under {root}", remedy)
        found = [Path(line) for line in lines if line]
    refuse_names(map(str, found), root)
    if not found:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def _walk(root: Path) -> list[Path]:
    """Follows links to folders, but enters no folder twice and takes no picture twice."""
    found, folders = {}, {os.path.realpath(root)}
    for folder, below, names in os.walk(root, followlinks=True):
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(below)}
        below[:] = [name for name, path in real.items() if path not in folders and not folders.add(path)]
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                path = Path(folder, name)
                found.setdefault(os.path.realpath(path), path.relative_to(root))
    return sorted(found.values())


def read_layout(root: Path, pictures: list[Path], modality: str = "auto") -> ImageSet:
    """`pictures`, relative to `root`, with what their folders say; an unknown identity or camera is -1.

    modality: "visible" or "infrared" for all, or "auto" to read it from the folders: the nearest of `_FOLDER_NAMES`
    to the picture, else SYSU-MM01's `cam1` ... `cam6`. An identity is a folder whose name is a number, below one of
    these. A camera is `camN`, or part of the picture's name as in LLCM (`_c06_`). The last two parts of `root` count.
    Raises InputError if "auto" finds no modality.
    """
    rows = []
    for picture in pictures:
        folders = [*root.absolute().parts[-2:], *picture.parent.parts]
        said = modality_of(folders) if modality == "auto" else modality
        rows.append((picture, said, _identity(folders), _camera(folders, picture.name)))
    silent = [str(path) for path, said, _, _ in rows if said is None]
    refuse(silent, f"{root}: pictures whose folders say no modality", "give --modality visible or infrared")
    return image_set([(root / path, identity, camera, said == "infrared") for path, said, identity, camera in rows])


def modality_of(folders: list[str]) -> str | None:
    """ "visible", "infrared", or None if the names of the folders, outermost first, say neither."""
    said = [_FOLDER_NAMES.get(folder.lower()) for folder in reversed(folders)]
    cameras = [camera for camera in map(_camera_number, reversed(folders)) if camera in SYSU_CAMERAS]
    said += ["infrared" if camera in SYSU_INFRARED_CAMERAS else "visible" for camera in cameras]
    return next(filter(None, said), None)


def _camera_number(folder: str) -> int | None:
    number = re.fullmatch(r"cam(\d{1,3})", folder, re.IGNORECASE)
    return int(number[1]) if number else None


def _camera(folders: list[str], name: str) -> int:
    in_name = CAMERA_IN_NAME.search(name)
    in_folders = [number for number in map(_camera_number, reversed(folders)) if number is not None]
    return [*in_folders, int(in_name[1]) if in_name else UNKNOWN][0]


def _identity(folders: list[str]) -> int:
    for above, folder in zip(reversed(folders[:-1]), reversed(folders), strict=False):
        known = _camera_number(above) is not None or modality_of([above]) is not None
        if known and folder.isdecimal() and len(folder) < 10:  # as int32
            return int(folder)
    return UNKNOWN

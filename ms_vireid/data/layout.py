"""Pictures in any folder or list, and what the names of their folders say: modality, identity, camera."""

import os
from pathlib import Path

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.data.llcm import CAMERA_IN_NAME
from ms_vireid.data.pictures import SUFFIXES
from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.data.sysu_mm01 import CAMERAS, INFRARED_CAMERAS
from ms_vireid.data.validation import read_lines, refuse_names, require_directory

UNKNOWN = -1
MODALITIES = ("visible", "infrared")
FOLDER_NAMES = {  # in any case; also those of RegDB (Visible, Thermal) and LLCM (vis, nir, test_vis, test_nir)
    "visible": {"visible", "vis", "rgb", "test_vis"},
    "infrared": {"infrared", "ir", "nir", "thermal", "test_nir"},
}


def find_pictures(root: Path, listing: Path | None = None) -> list[Path]:
    """Paths relative to `root`: of every picture below it, sorted, or of a list's lines, in its order.

    Raises:
        InputError: no such folder, no picture in it, a list that cannot be read, or lines that name no file.
    """
    require_directory(root, "give the folder of the pictures with --images")
    found = _walk(root) if listing is None else _read_list(root, listing)
    if not found:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def _walk(root: Path) -> list[Path]:
    """Links to folders are followed, but no folder is entered twice, nor a picture taken twice through links."""
    found, folders = {}, {os.path.realpath(root)}
    for folder, below, names in os.walk(root, followlinks=True):
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(below)}
        below[:] = [name for name, path in real.items() if path not in folders and not folders.add(path)]
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                path = Path(folder, name)
                found.setdefault(os.path.realpath(path), path.relative_to(root))
    refuse_names(map(str, found.values()), root)
    return sorted(found.values())


def _read_list(root: Path, listing: Path) -> list[Path]:
    lines = read_lines(listing, "give one path a line, relative to --images")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    absent = (f"line {number} '{line}'" for number, line in numbered if not (root / line).is_file())
    refuse(absent, f"{listing}: lines that name no file under {root}", "give one path a line, relative to --images")
    refuse_names((line for _, line in numbered), root)
    return [Path(line) for _, line in numbered]


def read_layout(root: Path, pictures: list[Path], modality: str = "auto") -> ImageSet:
    """`pictures`, relative to `root`, with what their folders say; identity and camera are -1 where they say nothing.

    modality: "visible" or "infrared" of all, or "auto" to read it from the folders: one of `FOLDER_NAMES`, the nearest
    to the picture, else SYSU-MM01's `cam1` ... `cam6`. An identity is a folder whose name is a number, below one of
    these. A camera is `camN`, or in the picture's name as LLCM has it (`_c06_`). The two last parts of `root` count.

    Raises:
        InputError: "auto" where folders do not say it.
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
    """ "visible", "infrared", or None where the names of the folders, outermost first, say neither."""
    for folder in reversed(folders):
        for modality, names in FOLDER_NAMES.items():
            if folder.lower() in names:
                return modality
    camera = next((number for folder in reversed(folders) if (number := _camera_number(folder)) in CAMERAS), None)
    if camera is None:
        return None
    return "infrared" if camera in INFRARED_CAMERAS else "visible"


def _camera_number(folder: str) -> int | None:
    digits = folder.lower().removeprefix("cam")
    return int(digits) if digits != folder.lower() and digits.isdecimal() and len(digits) < 4 else None


def _camera(folders: list[str], name: str) -> int:
    for folder in reversed(folders):
        if (number := _camera_number(folder)) is not None:
            return number
    in_name = CAMERA_IN_NAME.search(name)
    return int(in_name[1]) if in_name else UNKNOWN


def _identity(folders: list[str]) -> int:
    for above, folder in zip(reversed(folders[:-1]), reversed(folders), strict=False):
        known = _camera_number(above) is not None or modality_of([above]) is not None
        if known and folder.isdecimal() and len(folder) < 10:  # as int32
            return int(folder)
    return UNKNOWN

"""What the names of a picture's folders tell: its modality, its camera and the person."""

import re
from collections.abc import Sequence

SYSU_CAMERAS = (1, 2, 3, 4, 5, 6)
SYSU_INFRARED_CAMERAS = (3, 6)
_MODALITIES = {  # by lower-case name; RegDB's and LLCM's too
    **dict.fromkeys(("visible", "vis", "rgb", "test_vis"), "visible"),
    **dict.fromkeys(("infrared", "ir", "nir", "thermal", "test_nir"), "infrared"),
}


def modality_of(folders: Sequence[str]) -> str | None:
    """Return "visible", "infrared", or None if no folder tells. folders: names, outermost first."""
    modalities = [_MODALITIES.get(folder.lower()) for folder in reversed(folders)]
    cameras = [camera for camera in map(camera_of, reversed(folders)) if camera in SYSU_CAMERAS]
    modalities += ["infrared" if camera in SYSU_INFRARED_CAMERAS else "visible" for camera in cameras]
    return next(filter(None, modalities), None)


def camera_of(folder: str) -> int | None:
    """Return N of a folder `camN`, in any case."""
    number = re.fullmatch(r"cam(\d{1,3})", folder, re.IGNORECASE)
    return int(number[1]) if number else None


def identity_of(folders: Sequence[str]) -> str | None:
    """Return a person's name: the innermost folder directly below one that names a modality or a camera."""
    is_place = [folder.lower() in _MODALITIES or camera_of(folder) is not None for folder in folders]
    people = [folders[i] for i in range(1, len(folders)) if is_place[i - 1] and not is_place[i]]
    return people[-1] if people else None

"""What the names of a picture's folders say: its modality, its camera, and who is on it."""

import re
from collections.abc import Sequence

SYSU_CAMERAS = (1, 2, 3, 4, 5, 6)
SYSU_INFRARED_CAMERAS = (3, 6)
_NAMES = {  # in any case; RegDB's and LLCM's too
    **dict.fromkeys(("visible", "vis", "rgb", "test_vis"), "visible"),
    **dict.fromkeys(("infrared", "ir", "nir", "thermal", "test_nir"), "infrared"),
}


def modality_of(folders: Sequence[str]) -> str | None:
    """ "visible", "infrared", or None if the names of the folders, outermost first, say neither."""
    said = [_NAMES.get(folder.lower()) for folder in reversed(folders)]
    cameras = [camera for camera in map(camera_of, reversed(folders)) if camera in SYSU_CAMERAS]
    said += ["infrared" if camera in SYSU_INFRARED_CAMERAS else "visible" for camera in cameras]
    return next(filter(None, said), None)


def camera_of(folder: str) -> int | None:
    """Of `camN`, in any case."""
    number = re.fullmatch(r"cam(\d{1,3})", folder, re.IGNORECASE)
    return int(number[1]) if number else None


def identity_of(folders: Sequence[str]) -> str | None:
    """The name of a person: the nearest folder directly below one of a modality or a camera."""
    says = [folder.lower() in _NAMES or camera_of(folder) is not None for folder in folders]
    below = [name for name, says_more, above in zip(folders[1:], says[1:], says[:-1], strict=True) if above > says_more]
    return below[-1] if below else None

"""What the name of a folder can mean: a modality, a split, a camera, a place, or a person."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from ms_vireid.config.layout import NEUTRAL, TESTING, TRAINING, VALIDATION, WORDS

SYSU_CAMERAS = (1, 2, 3, 4, 5, 6)
SYSU_INFRARED_CAMERAS = (3, 6)
MODALITY, PART, CAMERA, PASSAGE, SITE, NAME = "modality", "part", "camera", "passage", "site", "name"
_BETWEEN = r"[ _.-]?"
_CAMERA = re.compile(rf"(?:cam|camera|c|d|dev|device|view|kinect|sensor){_BETWEEN}\d{{1,3}}", re.IGNORECASE)
_PASSAGE = re.compile(  # one of several times at which a person was seen
    rf"(?:seq|sequence|session|track|tracklet|clip|video|day|night|walk|run|take|pass){_BETWEEN}\d{{1,5}}"
    r"|(?:19|20)\d\d[_.-]?[01]\d[_.-]?[0-3]\d|(?:mon|tues|wednes|thurs|fri|satur|sun)day",
    re.IGNORECASE,
)
_SITE = re.compile(
    r"(?:site|place|location|room|hall|lab|campus|building|floor|city|scene|area|zone|store|shop|station|street|gate"
    rf"|entrance|lobby|office|school|hospital)(?:{_BETWEEN}(?:\d{{1,4}}|[a-z]))?",
    re.IGNORECASE,
)


def same_name(name: str) -> str:
    """Return what all spellings of a name in Unicode share: macOS writes an accent apart from its letter (NFD)."""
    return unicodedata.normalize("NFC", name)


def words_of(folder: str) -> list[str]:
    return re.split(r"[ _.-]+", folder.lower())


@cache
def modality_of(folder: str) -> str | None:
    """Return "visible" or "infrared" for a folder such as `RGB`, `test_vis` or `Thermal`, else None."""
    modalities = {WORDS.get(word) for word in words_of(folder) if word not in NEUTRAL}
    return modalities.pop() if len(modalities) == 1 else None


def part_of(folder: str) -> str | None:
    """Return "train", "val" or "test" for a folder that names a part of a set, as `bounding_box_train` or `query`."""
    words = words_of(folder)
    parts = (("train", TRAINING), ("val", VALIDATION), ("test", TESTING))
    return next((part for part, names in parts if set(words) & set(names)), None)


def kind_of(folder: str) -> str:
    """Return what a folder's name means by itself."""
    if modality_of(folder):
        return MODALITY
    if all(word in NEUTRAL for word in words_of(folder)):
        return PART
    patterns = ((CAMERA, _CAMERA), (PASSAGE, _PASSAGE), (SITE, _SITE))
    return next((kind for kind, pattern in patterns if pattern.fullmatch(folder)), NAME)


def camera_of(folder: str) -> int | None:
    """Return N of a folder `camN`, in any case."""
    number = re.fullmatch(r"cam(\d{1,3})", folder, re.IGNORECASE)
    return int(number[1]) if number else None


def published_identity(folders: Sequence[str]) -> str | None:
    """Return a person's name in the trees of SYSU-MM01, RegDB and LLCM: the innermost folder directly below that of a
    modality or a camera."""
    is_place = [modality_of(folder) is not None or camera_of(folder) is not None for folder in folders]
    people = [folders[i] for i in range(1, len(folders)) if is_place[i - 1] and not is_place[i]]
    return people[-1] if people else None

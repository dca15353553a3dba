"""How the paths of pictures say who is on them: by a documented tree's names, or by the user's template."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ms_vireid.command.errors import InputError, refuse, shown
from ms_vireid.command.names import MODALITIES
from ms_vireid.config.layout_templates import (
    AUTO,
    DIFFERENT,
    FILE_NAMES,
    MODALITY_WORDS,
    SYSU,
    canonical,
    check_layout,
    patterns,
)
from ms_vireid.data.pictures import is_systems
from ms_vireid.data.published_sets import SYSU_INFRARED_CAMERAS, published_set
from ms_vireid.files.checks import note

UNKNOWN = -1
_PEOPLE, _PEOPLE_BY_CAMERA = "{modality}/{identity}/*", "{modality}/cam{camera}/{identity}/*"
_CAMERA = re.compile(r"cam\d{1,9}", re.IGNORECASE)
_TEST = "test|testing|query|queries|probe|gallery"
_OF_TEST = re.compile(rf"(?:.*[^a-z])?(?:{_TEST})(?:[^a-z].*)?", re.IGNORECASE)
_NO_PERSON = re.compile(  # names of parts of a set, of what it holds, of modalities, cameras, times and places
    rf"((bounding_box|bbox|mask|image|multi)[_-])?(train|training|trainval|val|valid|validation|{_TEST})(_all|_v\d+)?"
    r"|(multi|single)[_-]?shot|all|data|dataset|images?|imgs?|pictures?|photos?|frames?"
    rf"|{'|'.join(MODALITY_WORDS)}"
    r"|(c|cam|camera|d|device|kinect|sensor|view|day|night|seq|session|track|tracklet|video|floor|room|site)"
    r"[ _.-]?\d+",
    re.IGNORECASE,
)
_NOBODY = {"market1501": ("-1", "0000"), "mars": ("00-1", "0000")}  # their junk and distractors
_LEVELS, _NAMES = 4, 3  # of folders that an error shows, and names of each


class PathLabels(NamedTuple):
    """What a picture's path says. modality: None if nothing does. identity: "" if unknown. camera: -1 if unknown. word:
    that says the modality, in lower case."""

    modality: str | None = None
    identity: str = ""
    camera: int = UNKNOWN
    word: str = ""


@dataclass(frozen=True)
class FolderLayout:
    """Reads paths of pictures from `top` on. text: as `config.layout` takes it; "" if nothing is known."""

    top: Path
    text: str

    @cached_property
    def _start(self) -> str:
        return os.path.join(self.top, "")

    @property
    def file_names(self) -> str:
        """The published set whose file names it reads; "" for another layout."""
        name = self.text.partition(":")[0]
        return name if name in FILE_NAMES else ""

    def tell_apart(self, option: str) -> str:
        """Return how the option says whether people of one number in different folders are one person."""
        name = self.file_names
        return f"give {option}={name}:different if these are different people, {name}:same if not"

    @cached_property
    def _patterns(self) -> list[re.Pattern]:
        return patterns(self.text) if self.text else []

    def as_json(self) -> dict[str, str]:
        return {"top": str(self.top), "layout": self.text}

    def labels(self, path: Path | str) -> PathLabels | None:
        """Return what the path of a picture says; None if no template takes it."""
        below = self.below(path)
        match = next(filter(None, (pattern.fullmatch(below) for pattern in self._patterns)), None)
        if not match:
            return None
        fields = match.groupdict()
        camera = int(re.search(r"\d+", fields["camera"])[0]) if "camera" in fields else UNKNOWN
        word = fields.get("modality", "").lower()
        modality = MODALITY_WORDS.get(word)
        if self.text == SYSU:
            modality = "infrared" if camera in SYSU_INFRARED_CAMERAS else "visible"
        identity = fields.get("identity", "")
        if not identity or identity in _NOBODY.get(self.file_names, ()):
            return PathLabels(modality, "", camera, word)
        site = fields.get("site")
        if self.text.endswith(DIFFERENT) and not (site := part_of_set(below.split("/")[:-1], identity)):
            return None
        return PathLabels(modality, "/".join(filter(None, (site, identity))), camera, word)

    def below(self, path: Path | str) -> str:
        """Return the path from `top` on; "" if it does not lie there."""
        whole = os.path.abspath(path)
        return whole[len(self._start) :] if whole.startswith(self._start) else ""

    def taken(self, paths: Sequence[str]) -> int:
        return sum(self.labels(path) is not None for path in paths)


def note_merged(root: Path, labels: Sequence[PathLabels]) -> None:
    """Note folders of different names whose pictures get one modality, such as near and far infrared."""
    for modality in MODALITIES:
        words = Counter(one.word for one in labels if one.modality == modality and one.word)
        if len(words) > 1:
            named = " and ".join(f"{word} ({count} pictures)" for word, count in sorted(words.items()))
            remedy = "move the others away to use one alone"
            note(root, f"{named} are all read as {modality}, as one camera's unless the layout names cameras; {remedy}")


def documented_layout(root: Path, pictures: Sequence[Path]) -> FolderLayout | None:
    """Return the layout of the documented tree that some of the pictures lie in, which begins at the root or one to
    three folders above it; None if there is none."""
    return _documented_layout(*_absolute(root, pictures))


def find_layout(
    root: Path, pictures: Sequence[Path], stated: str = AUTO, option: str = "--layout", modality: str = AUTO
) -> FolderLayout:
    """Return the layout of `pictures`, relative to `root`: the `stated` one, which begins at the root or one to three
    folders above it, where it takes the most pictures, or that of a documented tree.

    option: what states a layout, for remedies. modality: of all pictures; if it is given, a tree may be unknown, and
    its people are too. Raises InputError for what is no layout, a layout that takes no picture, and unknown trees.
    """
    root, paths = _absolute(root, pictures)
    if stated != AUTO:
        try:
            check_layout(stated)
        except ValueError as error:
            raise InputError(f"{option} {shown(stated)}: {error}") from None
        if layout := _best([FolderLayout(top, canonical(stated)) for top in (root, *root.parents[:3])], paths):
            _refuse_equal_numbers(layout, paths, option)
            return layout
        raise InputError(f"{root}: {option} {shown(stated)} fits no picture; {_levels(root, paths)}")
    if layout := _documented_layout(root, paths):
        return layout
    unknown = f"{root}: fits no tree in docs/data.md; {_levels(root, paths)}"
    remedy = f"say what its names are with {option}, of {{modality}}, {{identity}}, {{camera}} and * (docs/data.md)"
    if modality == AUTO:
        instead = ", or --modality alone: people unknown" if option == "--layout" else ""
        raise InputError(f"{unknown}; {remedy}{instead}")
    if any(os.path.dirname(path) != str(root) for path in paths):
        note("all people are unknown", f"{unknown}; {remedy}")
    return FolderLayout(root, "")


def part_of_set(folders: Iterable[str], identity: str = "") -> str:
    """Name the part of a set by those of its folders that name no modality, camera or person. Queries and galleries are
    parts of the test set."""
    named = (one for one in map(str.lower, folders) if one != identity.lower() and one not in MODALITY_WORDS)
    return "/".join("test" if _OF_TEST.fullmatch(one) else one for one in named if not _CAMERA.fullmatch(one))


def _refuse_equal_numbers(layout: FolderLayout, paths: Sequence[str], option: str) -> None:
    """Raise InputError for file names that number people in two parts of a set alike, unless the layout says whether
    these are one person: MSMT17 counts from 0 in each part."""
    parts: dict[str, set[str]] = {}
    for path in paths if layout.text in FILE_NAMES else ():
        if (labels := layout.labels(path)) and (person := labels.identity):
            part = part_of_set(layout.below(path).split("/")[:-1], person)
            parts.setdefault(person, set()).add(part or layout.top.name)
    equal = [f"{person} in {' and '.join(sorted(named))}" for person, named in sorted(parts.items()) if len(named) > 1]
    refuse(equal, f"{layout.top}: people with the same number in different folders", layout.tell_apart(option))


def _documented_layout(root: Path, paths: Sequence[str]) -> FolderLayout | None:
    tops = ((top, _documented(top)) for top in (root, *root.parents[:3]))
    return _best([FolderLayout(top, text) for top, text in tops if text], paths)


def _best(layouts: Sequence[FolderLayout], paths: Sequence[str]) -> FolderLayout | None:
    """Return the layout that takes the most paths, the first of equal ones; None if none takes any."""
    taken = [layout.taken(paths) for layout in layouts]
    return layouts[taken.index(max(taken))] if any(taken) else None


def _absolute(root: Path, pictures: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return absolute paths, and the root of them all: a list may name pictures outside `root`."""
    root = Path(os.path.abspath(root))
    paths = [os.path.abspath(root / path) for path in pictures]
    if not all(path.startswith(os.path.join(root, "")) for path in paths):
        root = Path(os.path.commonpath([root, *map(os.path.dirname, paths)]))
    return root, paths


def _documented(top: Path) -> str | None:
    """Return the layout of the documented tree that begins at `top`, by the names of its folders: all are modalities,
    or some are of both, and below them are people, or cameras alone."""
    folders = _folders(top)
    if name := published_set(folders):
        return name
    modalities = {MODALITY_WORDS.get(name.lower()) for name in folders}
    if modalities <= {None} or (None in modalities and len(modalities) < 3) or top.name.lower() in MODALITY_WORDS:
        return None
    below = {top / name for name in folders if name.lower() in MODALITY_WORDS}
    names = {name for folder in below for name in _folders(folder)}
    text = _PEOPLE
    if names and all(map(_CAMERA.fullmatch, names)):
        text = _PEOPLE_BY_CAMERA
        names = {name for folder in below for camera in _folders(folder) for name in _folders(folder / camera)}
    return None if any(map(_NO_PERSON.fullmatch, names)) else text


def _folders(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not is_systems(entry.name) and entry.is_dir()}
    except OSError:
        return set()


def _levels(root: Path, paths: Sequence[str]) -> str:
    """Describe the first levels of a tree: "its folders are ir, rgb, below them cam1, cam2"."""
    below = [os.path.relpath(path, root).split("/") for path in paths]
    levels = [sorted({parts[level] for parts in below if len(parts) > level + 1}) for level in range(_LEVELS)]
    named = [f"{', '.join(names[:_NAMES])}{' ...' * (len(names) > _NAMES)}" for names in levels if names]
    return (
        f"its folders are {', below them '.join(named)}" if named else f"it has no folder; a picture is {min(below)[0]}"
    )

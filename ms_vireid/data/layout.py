"""Pictures in any folder or list, with the modality, identity and camera that their paths give."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError, one_line, refuse, shown, summary
from ms_vireid.config.layout import AUTO, SYSU, canonical, check_layout, patterns
from ms_vireid.data.folders import SYSU_INFRARED_CAMERAS, modality_of, same_name
from ms_vireid.data.pictures import SUFFIXES
from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.data.shape import SILENT, find_shape
from ms_vireid.data.validation import listed_files, read_lines, refuse_names, require_directory, walk

_log = logging.getLogger(__name__)
UNKNOWN = -1
_NOBODY = {"market1501": ("-1", "0000"), "mars": ("00-1", "0000")}  # their junk and distractors


class UnclearError(InputError):
    """It is not clear who is on the pictures; says what to write."""


class Row(NamedTuple):
    """What a picture's path says. modality: None if nothing does. identity: "" if unknown. camera: -1 if unknown."""

    modality: str | None = None
    identity: str = ""
    camera: int = UNKNOWN


@dataclass(frozen=True)
class Layout:
    """How the paths of pictures are read: by a layout of `config.layout` ("": nothing is known), from `top` on.

    problem: why nobody is known, with what to write. remark: what was found out, if a user might not expect it.
    """

    top: Path
    text: str
    problem: str = ""
    remark: str = ""

    @cached_property
    def _start(self) -> str:
        return os.path.join(self.top, "")

    @cached_property
    def _patterns(self) -> list[re.Pattern]:
        return patterns(self.text) if self.text else []

    def as_json(self) -> dict[str, str]:
        return {"top": str(self.top), "layout": self.text}

    def row(self, path: Path) -> Row:
        """Read the path of a picture below `top`."""
        whole = os.path.abspath(path)
        if not whole.startswith(self._start):
            return Row()
        below = whole[len(self._start) :]
        match = next(filter(None, (pattern.fullmatch(below) for pattern in self._patterns)), None)
        return self._row(match.groupdict()) if match else Row()

    def people(self, root: Path, paths: Sequence[Path], within: str = "") -> list[tuple[Path, Row]]:
        """Read paths relative to `root`; returns those of people and modalities. within: a picture's name, to read
        folders as if they held it."""
        rows = ((path, self.row(root / path / within)) for path in paths)
        return [(path, row) for path, row in rows if row.identity and row.modality]

    def _row(self, said: dict[str, str]) -> Row:
        numbers = re.findall(r"\d+", said.get("camera", ""))
        camera = int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 10 else UNKNOWN
        modality = modality_of(said["modality"]) if "modality" in said else None
        if self.text == SYSU:
            modality = "infrared" if camera in SYSU_INFRARED_CAMERAS else "visible"
        identity = said.get("identity", "")
        if not identity or identity in _NOBODY.get(self.text, ()):
            return Row(modality, "", camera)
        return Row(modality, "/".join(filter(None, (said.get("site"), identity))), camera)


def find_layout(root: Path, pictures: Sequence[Path], stated: str = AUTO, option: str = "--layout") -> Layout:
    """Work out how to read the paths of `pictures`, relative to `root`, or take what is `stated`.

    A stated layout begins at the root, or one to three folders above it, where it fits the most pictures. option: what
    states a layout, for remedies. Raises InputError for what is no layout.
    """
    root = Path(os.path.abspath(root))
    paths = [os.path.abspath(root / path) for path in pictures]
    if not all(path.startswith(os.path.join(root, "")) for path in paths):  # of a list
        root = Path(os.path.commonpath([root, *map(os.path.dirname, paths)]))
    if stated != AUTO:
        try:
            check_layout(stated)
            layouts = [Layout(top, canonical(stated)) for top in (root, *root.parents[:3])]
            fitting = [sum(layout.row(Path(path)) != Row() for path in paths) for layout in layouts]
        except ValueError as error:
            raise InputError(f"{option} {shown(stated)}: {error}") from None
        return layouts[int(np.argmax(fitting))]
    shape = find_shape(root, [path[len(os.path.join(root, "")) :] for path in paths])
    remedy = f"; say it with {option}, such as {' or '.join(map(repr, shape.remedies))}"
    layout = Layout(shape.top, shape.layout, f"{shape.problem}{remedy}" if shape.problem else "")
    if shape.layout in SILENT or shape.problem or not shape.layout:
        return layout
    example, row = max(((path, layout.row(Path(path))) for path in paths), key=lambda one: bool(one[1].identity))
    if not row.identity:
        return layout
    camera = None if row.camera == UNKNOWN else f"camera {row.camera}"
    about = ", ".join(filter(None, (f"person {row.identity}", row.modality, camera)))
    where = os.path.relpath(example, shape.top)
    return replace(layout, remark=f"read as {shape.layout}, as in {where} ({about}); {option} states another")


def read_layout(
    root: Path, pictures: Sequence[Path], modality: str = "auto", layout: Layout | None = None, quiet: bool = False
) -> tuple[ImageSet, np.ndarray]:
    """Return `pictures`, relative to `root`, with what their paths say, and the names of the people, str [N].

    modality: "visible" or "infrared" for all pictures, or "auto" to read it as the layout says. layout: of
    `find_layout` (default: found out). Unknown people are "", unknown cameras -1. All spellings of a name in Unicode
    are one, shown as first read. All identities are -1. What may surprise is said in a note, unless `quiet`. Raises
    InputError if "auto" finds no modality.
    """
    layout = layout or find_layout(root, pictures)
    rows = [layout.row(root / path) for path in pictures]
    if modality == "auto" and not any(row.modality for row in rows):  # a stated layout may leave it out
        by_folders = find_layout(root, pictures)
        rows = [
            row._replace(modality=by_folders.row(root / path).modality)
            for row, path in zip(rows, pictures, strict=True)
        ]
    elif modality != "auto":
        rows = [row._replace(modality=modality) for row in rows]
    unknown = [str(path) for path, row in zip(pictures, rows, strict=True) if row.modality is None]
    remedy = "give --modality visible or infrared, or a --layout that says it"
    refuse(unknown, f"{root}: pictures whose folders say no modality", remedy)
    images = image_set(
        [
            (root / path, UNKNOWN, row.camera, row.modality == "infrared")
            for path, row in zip(pictures, rows, strict=True)
        ]
    )
    if not quiet:
        _remark(root, layout, [path for path, row in zip(pictures, rows, strict=True) if not row.identity], len(rows))
    first: dict[str, str] = {}
    return images, np.array([first.setdefault(same_name(row.identity), row.identity) for row in rows], str)


def _remark(root: Path, layout: Layout, nobody: Sequence[Path], count: int) -> None:
    """Log a note on what the paths say, and one on pictures that show nobody known beside others that do."""
    if said := layout.problem or layout.remark:
        _log.warning("%s", one_line(f"note: {root}: {said}"))
    if 0 < len(nobody) < count:
        _log.warning("%s", one_line(f"note: {root}: pictures of nobody by name: {summary(list(map(str, nobody)))}"))


def find_pictures(root: Path, listing: Path | None = None, also_gone: bool = False) -> list[Path]:
    """Return paths relative to `root`: every picture below it, sorted, or the lines of `listing`, in its order.

    also_gone: lines may name missing pictures. Raises InputError if there is no picture, or if the list cannot be read
    or names missing files.
    """
    require_directory(root, "give the folder of the pictures with --images")
    if listing is None:
        pictures = walk(root).pictures
        refuse_names(map(str, pictures), root)
    else:
        remedy = "give one path a line, relative to --images"
        lines = enumerate(map(str.strip, read_lines(listing, remedy)), 1)
        pictures = listed_files(listing, root, [(n, line) for n, line in lines if line], remedy, also_gone)
    if not pictures:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return pictures

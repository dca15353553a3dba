"""Pictures in any folder or list, with the modality, identity and camera that their paths give."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.data.folder_layout import UNKNOWN, FolderLayout, PathLabels, note_merged
from ms_vireid.data.pictures import SUFFIXES, is_systems
from ms_vireid.data.records import ImageSet, image_set, same_name
from ms_vireid.data.validation import listed_files, note_doubles, read_lines, refuse_names, require_directory, walk
from ms_vireid.files.checks import note


def read_layout(
    root: Path, pictures: Sequence[Path], layout: FolderLayout, modality: str = "auto"
) -> tuple[ImageSet, np.ndarray]:
    """Return `pictures`, relative to `root`, with what their paths say, and the names of the people, str [N].

    modality: "visible" or "infrared" for all pictures, or "auto" to read it as the layout says. Unknown people are "",
    unknown cameras -1. All spellings of a name in Unicode are one, shown as first read. All identities are -1. Raises
    InputError for pictures that the layout does not take, and if "auto" finds no modality.
    """
    labels = [layout.labels(root / path) if layout.text else PathLabels() for path in pictures]
    left = [str(path) for path, one in zip(pictures, labels, strict=True) if one is None]
    remedy = "move them away, or give a --layout that fits them too: | separates templates"
    refuse(left, f"{root}: pictures that layout {layout.text} does not fit", remedy)
    if modality == "auto":
        note_merged(root, labels)
    else:
        labels = [one._replace(modality=modality) for one in labels]
    unknown = [str(path) for path, one in zip(pictures, labels, strict=True) if one.modality is None]
    remedy = "give --modality visible or infrared, or a --layout with {modality}"
    refuse(unknown, f"{root}: pictures of unknown modality", remedy)
    images = image_set(
        [
            (root / path, UNKNOWN, one.camera, one.modality == "infrared")
            for path, one in zip(pictures, labels, strict=True)
        ]
    )
    nobody = [str(path) for path, one in zip(pictures, labels, strict=True) if not one.identity]
    if 0 < len(nobody) < len(labels):
        note(root, f"pictures of unknown people: {summary(nobody)}")
    first: dict[str, str] = {}
    people = [first.setdefault(same_name(one.identity), one.identity) for one in labels]
    note_doubles(root, images.paths, list(zip(people, images.infrared, strict=True)))
    return images, np.array(people, str)


def find_pictures(root: Path, listing: Path | None = None, also_gone: bool = False) -> list[Path]:
    """Return paths relative to `root`: every picture below it, sorted, or the lines of `listing`, in its order.

    also_gone: lines may name missing pictures. Raises InputError if there is no picture, or if the list cannot be read
    or names missing files.
    """
    require_directory(root, "give the folder of the pictures with --images")
    if listing is None:
        pictures = walk(root)
        refuse_names(map(str, pictures), root)
    else:
        remedy = "give one path a line, relative to --images"
        lines = enumerate(map(str.strip, read_lines(listing, remedy)), 1)
        pictures = listed_files(listing, root, [(n, line) for n, line in lines if line], remedy, also_gone)
        if names := [str(path) for path in pictures if any(map(is_systems, path.parts))]:
            note(listing, f"taken, as they are listed, though systems make files of such names: {summary(names)}")
    if not pictures:
        raise InputError(f"{listing or root}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return pictures

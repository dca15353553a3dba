"""Sources of queries and galleries: feature files, folders of pictures, or single pictures."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config.layout_templates import AUTO
from ms_vireid.data.folder_layout import FolderLayout, find_layout
from ms_vireid.data.picture_paths import find_pictures, read_layout
from ms_vireid.data.pictures import SUFFIXES
from ms_vireid.data.records import ImageSet
from ms_vireid.search.feature_files import Features, Pictures, load_features


def read_source(
    paths: Sequence[Path], modality: str, option: str, layout: str = AUTO, gallery: FolderLayout | None = None
) -> Features | Pictures:
    """Read one feature file, one folder, or one or more pictures. Raises InputError for a path that is none of these,
    or pictures whose folders do not tell the modality.

    modality: "visible", "infrared" or "auto", of pictures. option: names the paths in errors. layout: of pictures, as
    `find_layout` takes it. gallery: how the gallery's pictures are read, and queries that lie in its tree.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return load_features(paths[0])
    if len(paths) == 1 and paths[0].is_dir():
        root = paths[0].absolute()
        names = find_pictures(root)
        read_as = _layout(root, names, layout, gallery, modality)
        images, people = read_layout(root, names, read_as, modality)
        return Pictures(root, tuple(names), images, people, read_as)
    for path in paths:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            state = "is not a picture" if path.exists() else "no such file"
            raise InputError(f"{option} {path}: {state}; give pictures, one folder, or one .npz of extract.py")
    files = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([file.parent for file in files]))
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(Path(file.name))
    layouts = {folder: _layout(folder, names, layout, gallery, modality) for folder, names in folders.items()}
    read = [read_layout(file.parent, [Path(file.name)], layouts[file.parent], modality) for file in files]
    sets, people = zip(*read, strict=True)
    columns = [np.concatenate([getattr(one, name) for one in sets]) for name in ("identities", "cameras", "infrared")]
    names = tuple(file.relative_to(root) for file in files)
    one_layout = layouts[files[0].parent] if len(layouts) == 1 else None
    return Pictures(root, names, ImageSet(tuple(files), *columns), np.concatenate(people), one_layout)


def _layout(
    root: Path, names: Sequence[Path], stated: str, gallery: FolderLayout | None, modality: str
) -> FolderLayout:
    """Return the gallery's layout if it takes all these pictures, else their own."""
    if gallery and all(gallery.labels(root / name) for name in names):
        return gallery
    return find_layout(root, names, stated, modality=modality)

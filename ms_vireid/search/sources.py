"""Sources of queries and galleries: feature files, folders of pictures, or single pictures."""

import os
from collections.abc import Sequence
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.config.layout_templates import AUTO, canonical
from ms_vireid.data.folder_layout import FolderLayout, find_layout
from ms_vireid.data.picture_paths import find_pictures, read_layout
from ms_vireid.data.pictures import SUFFIXES
from ms_vireid.search.feature_files import Features, Pictures, load_features


def read_source(
    paths: Sequence[Path], modality: str, option: str, layout: str = AUTO, gallery: FolderLayout | None = None
) -> Features | Pictures:
    """Read one feature file, one folder, or one or more pictures of one tree. Raises InputError for a path that is none
    of these, or pictures whose folders do not tell the modality.

    modality: "visible", "infrared" or "auto", of pictures. option: names the paths in errors. layout: of pictures, as
    `find_layout` takes it. gallery: how the gallery's pictures are read, and queries that lie in its tree.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return load_features(paths[0])
    if len(paths) == 1 and paths[0].is_dir():
        root = paths[0].absolute()
        names = find_pictures(root)
    else:
        for path in paths:
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                state = "is not a picture" if path.exists() else "no such file"
                raise InputError(f"{option} {path}: {state}; give pictures, one folder, or one .npz of extract.py")
        files = [path.absolute() for path in paths]
        root = Path(os.path.commonpath([file.parent for file in files]))
        names = [file.relative_to(root) for file in files]
    as_gallery = gallery and (layout == AUTO or canonical(layout) == gallery.text)
    if as_gallery and all(gallery.labels(root / name) for name in names):
        read_as = gallery
    else:
        read_as = find_layout(root, names, layout, modality=modality)
    images, people = read_layout(root, names, read_as, modality)
    return Pictures(root, tuple(names), images, people, read_as)

"""Readers of the data sets' layouts on disk. All problems with a data set are InputErrors."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.command.names import MODALITIES
from ms_vireid.config import DataConfig
from ms_vireid.config.layout_templates import AUTO, patterns
from ms_vireid.data.folder_layout import FolderLayout, PathLabels, find_layout, note_merged
from ms_vireid.data.pictures import note_skipped
from ms_vireid.data.published_sets import (
    FOLDERS,
    LISTS,
    LLCM_INFRARED_CAMERAS,
    LLCM_VISIBLE_CAMERAS,
    SYSU_CAMERAS,
    SYSU_INFRARED_CAMERAS,
    published_set,
)
from ms_vireid.data.records import ImageSet, ReIDData, image_set, same_name
from ms_vireid.data.synthetic import VERSION, generate_sysu_mm01
from ms_vireid.data.validation import (
    list_pictures,
    listed_files,
    note_doubles,
    read_lines,
    refuse_names,
    require_directory,
    walk,
)

FOLDER_REMEDY = "data.root must hold visible/ID/*.jpg and infrared/ID/*.jpg"
_LIST_REMEDY = "take it from the data set as it is distributed"
_LISTS_REMEDY = "take them from the data set as it is distributed"
_MAX_DIGITS = 9  # of an identity, to fit int32
_OBTAIN = "get {} from its authors after signing their agreement (docs/data.md)"
OBTAIN = {"sysu_mm01": _OBTAIN.format("SYSU-MM01"), "regdb": _OBTAIN.format("RegDB"), "llcm": _OBTAIN.format("LLCM")}
OBTAIN["folder"] = "it must hold visible/ID/*.jpg and infrared/ID/*.jpg"


def read_data(config: DataConfig) -> ReIDData:
    """Read the configured data set; the synthetic one is generated first unless it exists.

    Raises InputError if no root is configured, or if the reader finds a problem.
    """
    if config.name == "synthetic":
        digest = hashlib.sha256(repr((VERSION, config.synthetic.model_dump())).encode()).hexdigest()[:8]
        root = config.root or Path(f"runs/data/synthetic-{digest}")
        generate_sysu_mm01(root, config.synthetic)
        return read_sysu_mm01(root)
    if config.name != "folder" and config.layout != AUTO:
        raise InputError(f"data.layout={config.layout}: is only for data.name=folder; leave it out")
    if config.root is None:
        raise InputError(f"data.root is not set: give --data-root FOLDER; {OBTAIN[config.name]}")
    if config.name == "regdb":
        return read_regdb(config.root, config.trial)
    if config.name == "folder":
        return read_folder(config.root, config.test_fraction, config.layout)
    return read_llcm(config.root) if config.name == "llcm" else read_sysu_mm01(config.root)


def read_sysu_mm01(root: Path | str) -> ReIDData:
    """Read SYSU-MM01 (Wu et al. 2017): `cam{1..6}/{id:04d}/*.jpg` and `exp/{train,val,test}_id.txt`. The identities of
    train and val are trained on."""
    root = Path(root)
    _require_folders(root, "sysu_mm01")
    train, val, test = (_read_identities(root / "exp" / f"{split}_id.txt") for split in ("train", "val", "test"))
    train = train | val
    shared = map(str, sorted(train & test))
    refuse(shared, f"{root}/exp: identities listed both for training and for testing", "list each once")
    cameras = [(root / f"cam{camera}", camera, camera in SYSU_INFRARED_CAMERAS) for camera in SYSU_CAMERAS]
    train, test = (_read_identity_folders(root, cameras, identities) for identities in (train, test))
    return _published_data("sysu_mm01", root, train, test)


def read_regdb(root: Path | str, trial: int) -> ReIDData:
    """Read RegDB (Nguyen et al. 2017), split `trial` of 10: `Visible/`, `Thermal/` and
    `idx/{train,test}_{visible,thermal}_{1..10}.txt`, lines `path label`. Visible is camera 1, thermal camera 2."""
    root = Path(root)
    _require_folders(root, "regdb")
    train, test = (
        _read_lists(
            root,
            [
                (root / "idx" / f"{split}_visible_{trial}.txt", "Visible/{identity}/*"),
                (root / "idx" / f"{split}_thermal_{trial}.txt", "Thermal/{identity}/*"),
            ],
        )
        for split in ("train", "test")
    )
    data = _published_data("regdb", root, train, test)
    shared = sorted({*data.train.people.values()} & {*data.test.people.values()})
    refuse(shared, f"{root}/idx/*_{trial}.txt: people listed both for training and for testing", _LISTS_REMEDY)
    return data


def read_llcm(root: Path | str) -> ReIDData:
    """Read LLCM, the low-light cross-modality set (Zhang and Wang, CVPR 2023), which numbers training and test
    identities independently.

    Training: `idx/train_{vis,nir}.txt`, lines `path label`, of pictures such as
    `vis/0351/0351_c06_s200656_f4830_vis.jpg`, whose names contain the camera (`c06`). Test: the identities of
    `idx/test_id.txt` (one line, commas) in `test_{vis,nir}/cam{1..9}/{id:04d}/*.jpg`. Nine cameras take visible
    pictures, all but camera 3 infrared ones too.
    """
    root = Path(root)
    _require_folders(root, "llcm")
    cameras = [(root / "test_vis" / f"cam{camera}", camera, False) for camera in LLCM_VISIBLE_CAMERAS]
    cameras += [(root / "test_nir" / f"cam{camera}", camera, True) for camera in LLCM_INFRARED_CAMERAS]
    test = _read_identity_folders(root, cameras, _read_identities(root / "idx" / "test_id.txt"))
    names = "{identity}/*_c{camera}_*"
    train = _read_lists(
        root, [(root / "idx/train_vis.txt", f"vis/{names}"), (root / "idx/train_nir.txt", f"nir/{names}")]
    )
    return _published_data("llcm", root, train, test)


def read_folder(root: Path | str, test_fraction: float, layout: str = AUTO) -> ReIDData:
    """Read the user's own pictures: `visible/ID/*.jpg` and `infrared/ID/*.jpg`, or as `layout` says. Identities are the
    people's names, sorted; the last `test_fraction` of them are tested on; below 1, at least one is left to train on.
    Pictures of nobody are left out."""
    root = Path(root)
    require_directory(root, FOLDER_REMEDY)
    here = {entry.name for entry in root.iterdir() if entry.is_dir()}
    if layout == AUTO and (name := published_set(here)):
        raise InputError(f"{root / 'visible'}: no such folder; {FOLDER_REMEDY}, and for this tree data.name={name}")
    lying = walk(root)
    refuse_names(map(str, lying), root)
    if not lying:
        raise InputError(f"{root}: holds no picture; {FOLDER_REMEDY}")
    read_as = find_layout(root, lying, layout, "data.layout")
    read = ((path, read_as.labels(root / path)) for path in lying)
    pictures = [(path, row) for path, row in read if row and row.identity and row.modality]
    if not pictures:
        raise InputError(f"{root}: the layout {read_as.text} finds no picture of a person and a modality")
    names = _names_of_both(root, [row for _, row in pictures])
    numbers = {same_name(name): number for number, name in enumerate(names)}
    rows = [(numbers[same_name(row.identity)], row.modality == "infrared", path) for path, row in pictures]
    note_merged(root, [row for _, row in pictures])
    rows = [(root / path, number, 1 + infrared, infrared) for number, infrared, path in sorted(rows)]
    images = replace(image_set(rows), people=dict(enumerate(names)))
    note_doubles(root, images.paths, list(zip(images.identities, images.cameras, strict=True)))
    share = math.ceil(round(len(names) * test_fraction, 9))  # 25 x 0.28 is 7, not a little more
    held_out = min(max(share, 1), len(names) - (test_fraction < 1))
    testing = images.identities >= len(names) - held_out
    return ReIDData("folder", root, "regdb", images.subset(~testing), images.subset(testing), read_as, ("",))


def _names_of_both(root: Path, rows: Sequence[PathLabels]) -> list[str]:
    """Return the names of the people, sorted, each in one spelling. Raises InputError unless there are two, and all are
    in both modalities."""
    spelled = {same_name(row.identity): row.identity for row in reversed(rows)}
    people = [{same_name(row.identity) for row in rows if row.modality == modality} for modality in MODALITIES]
    for modality, names in zip(MODALITIES, people, strict=True):
        if not names:
            raise InputError(f"{root}: holds no {modality} pictures of people; {FOLDER_REMEDY}")
    one_sided = [spelled[name] for name in sorted(people[0] ^ people[1])]
    refuse(one_sided, f"{root}: identities in only one of visible and infrared", "add pictures of the other modality")
    if len(spelled) < 2:
        raise InputError(f"{root}: {len(spelled)} identities, at least 2 are needed; {FOLDER_REMEDY}")
    return [spelled[name] for name in sorted(spelled)]


def _published_data(name: str, root: Path, train: ImageSet, test: ImageSet) -> ReIDData:
    layout = FolderLayout(Path(os.path.abspath(root)), name)
    both = (*train.paths, *test.paths)
    note_doubles(root, both, [""] * len(both))  # folders tell people and modalities
    train, test = (replace(images, people=_people(images, layout)) for images in (train, test))
    return ReIDData(name, root, name, train, test, layout, FOLDERS[name])


def _people(images: ImageSet, layout: FolderLayout) -> dict[int, str]:
    """Return the names of the folders of people, where a picture lies in one."""
    identities, first = np.unique(images.identities, return_index=True)
    read = ((int(identity), layout.labels(images.paths[i])) for identity, i in zip(identities, first, strict=True))
    return {identity: Path(labels.identity).name for identity, labels in read if labels}


def _require_folders(root: Path, name: str) -> None:
    names = *FOLDERS[name], LISTS[name]
    require_directory(root, f"data.root must hold {', '.join(names)}, as the data set is distributed", *names)


def _read_identities(listing: Path) -> set[int]:
    fields = [field.strip() for line in read_lines(listing, _LIST_REMEDY) for field in line.split(",") if field.strip()]
    wrong = (f"'{field[:20]}'" for field in fields if not field.isdecimal() or len(field) > _MAX_DIGITS)
    refuse(wrong, f"{listing}: fields that are not identities", "use 1,2,3")
    if not fields:
        raise InputError(f"{listing}: lists no identity; {_LIST_REMEDY}")
    return set(map(int, fields))


def _read_identity_folders(root: Path, cameras: Sequence[tuple[Path, int, bool]], identities: set[int]) -> ImageSet:
    """Read the pictures of `identities`, ascending, from the folder `{identity:04d}` of each camera, if it exists.
    cameras: folder, number, and whether it is infrared."""
    skipped: list[Path] = []
    rows = [
        (path, identity, camera, infrared)
        for identity in sorted(identities)
        for folder, camera, infrared in cameras
        if (person := folder / f"{identity:04d}").is_dir()
        for path in list_pictures(person, skipped)
    ]
    note_skipped(skipped, root)
    missing = (f"{identity:04d}" for identity in sorted(identities - {identity for _, identity, _, _ in rows}))
    refuse(missing, f"{root}: identities without a picture under any camera", "check the lists of identities")
    return image_set(rows)


def _read_lists(root: Path, lists: Sequence[tuple[Path, str]]) -> ImageSet:
    """Read the lists of a split's visible and infrared pictures, each with the layout of its pictures. Where names have
    no camera, visible is camera 1 and infrared camera 2.

    Raises InputError unless each picture lies as its layout says and is listed once, each folder of a person has one
    label of its own, and both lists have the same people.
    """
    rows, people, partner = [], [], {}  # partner: the folder of each label, and the label of each folder
    for infrared, (listing, layout) in enumerate(lists):
        (pattern,), first = patterns(layout), {}
        elsewhere, again, wrong = [], [], []
        people.append(set())
        for number, path, label in _read_list(listing, root):
            name = os.path.normpath(path)
            if not (match := pattern.fullmatch(name)):
                elsewhere.append(f"line {number} '{path}'")
                continue
            person = match["identity"]
            if first.setdefault(name, number) != number:
                again.append(f"line {number} '{path}'")
            if (partner.setdefault(label, person), partner.setdefault(person, label)) != (person, label):
                wrong.append(f"line {number} '{path}' {label}")
            people[-1].add(person)
            rows.append((root / path, label, int(match.groupdict().get("camera", 1 + infrared)), bool(infrared)))
        refuse(elsewhere, f"{listing}: pictures that do not lie in {layout}", _LIST_REMEDY)
        refuse(again, f"{listing}: pictures listed again", _LIST_REMEDY)
        refuse(wrong, f"{listing}: labels of another folder, or a folder's second label", _LIST_REMEDY)
    both = f"{lists[0][0]} and {lists[1][0].name}"
    refuse(sorted(people[0] ^ people[1]), f"{both}: people on only one of them", _LISTS_REMEDY)
    return image_set(rows)


def _read_list(listing: Path, root: Path) -> list[tuple[int, Path, int]]:
    """Read the line number, path relative to `root` and label of every line `path label`."""
    rows, wrong = [], []
    for number, line in enumerate(read_lines(listing, _LIST_REMEDY), 1):
        fields = line.rsplit(maxsplit=1)
        path, label = fields if len(fields) == 2 else ("", "")
        if label.isdecimal() and len(label) <= _MAX_DIGITS and not Path(path).is_absolute():
            rows.append((number, path, int(label)))
        elif fields:
            wrong.append(f"line {number} '{line.strip()}'")
    refuse(wrong, f"{listing}: lines that are not 'path label', the path relative to data.root", "correct them")
    if not rows:
        raise InputError(f"{listing}:1: lists no picture; {_LIST_REMEDY}")
    paths = listed_files(listing, root, [(number, name) for number, name, _ in rows], _LIST_REMEDY)
    return [(number, path, label) for (number, _, label), path in zip(rows, paths, strict=True)]

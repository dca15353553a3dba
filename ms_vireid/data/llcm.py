"""LLCM, the low-light cross-modality set (Zhang and Wang, CVPR 2023), as it is distributed:

* to train on: `idx/train_{vis,nir}.txt`, lines `path label`, of pictures `vis/0351/0351_c06_s200656_f4830_vis.jpg`
  and `nir/0351/0351_c06_s200656_f4830_nir.jpg`, whose names give the camera (`c06`);
* to test on: the identities of `idx/test_id.txt` (one line, commas) in `test_{vis,nir}/cam{1..9}/{id:04d}/*.jpg`.

Nine cameras take visible and, but for camera 3, infrared pictures.
"""

import re
from pathlib import Path

from ms_vireid.command.errors import refuse
from ms_vireid.data.records import ImageSet, ReIDData, image_set
from ms_vireid.data.validation import read_identities, read_identity_folders, read_labelled_paths, require_directory

VISIBLE_CAMERAS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
INFRARED_CAMERAS = (1, 2, 4, 5, 6, 7, 8, 9)
CAMERA_IN_NAME = re.compile(r"_c(\d{1,2})_")
REMEDY = "data.root must hold vis, nir, test_vis, test_nir and idx, as LLCM is distributed"


def read_llcm(root: Path) -> ReIDData:
    """Training identities are the lists' labels, test identities those of the folders; the two are numbered apart.

    Raises InputError for missing folders or lists, lines that do not fit, a training picture without a camera in its
    name, and an identity without any picture.
    """
    require_directory(root, REMEDY, "vis", "nir", "test_vis", "test_nir", "idx")
    cameras = [(root / "test_vis" / f"cam{camera}", camera, False) for camera in VISIBLE_CAMERAS]
    cameras += [(root / "test_nir" / f"cam{camera}", camera, True) for camera in INFRARED_CAMERAS]
    test = read_identity_folders(root, cameras, read_identities(root / "idx" / "test_id.txt", REMEDY))
    return ReIDData("llcm", root, "llcm", _read_train(root), test)


def _read_train(root: Path) -> ImageSet:
    rows = []
    for modality in ("vis", "nir"):
        listing, nameless = root / "idx" / f"train_{modality}.txt", []
        for number, path, label in read_labelled_paths(listing, REMEDY):
            if camera := CAMERA_IN_NAME.search(Path(path).name):
                rows.append((root / path, label, int(camera[1]), modality == "nir"))
            else:
                nameless.append(f"line {number} '{path}'")
        refuse(nameless, f"{listing}: pictures without a camera (as in _c06_) in their names", "correct them")
    return image_set(rows)

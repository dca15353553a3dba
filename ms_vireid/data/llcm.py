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
from ms_vireid.data.validation import list_pictures, read_identities, read_labelled_paths, require_directory

VISIBLE_CAMERAS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
INFRARED_CAMERAS = (1, 2, 4, 5, 6, 7, 8, 9)
CAMERA_IN_NAME = re.compile(r"_c(\d{1,2})_")
REMEDY = "data.root must hold vis, nir, test_vis, test_nir and idx, as LLCM is distributed"


def read_llcm(root: Path) -> ReIDData:
    """Training identities are the lists' labels, test identities those of the folders: numbers of their own each.

    An identity that a camera has not seen has no folder there. Pictures are .jpg, .jpeg, .png or .bmp files.

    Raises:
        InputError: folders or lists missing, a line that is not a path and a number, a training picture without a
            camera in its name, a list of identities that is not numbers and commas, an identity without any folder.
    """
    require_directory(root, REMEDY)
    for name in ("vis", "nir", "test_vis", "test_nir", "idx"):
        require_directory(root / name, REMEDY)
    return ReIDData("llcm", root, "llcm", _read_train(root), _read_test(root))


def _read_train(root: Path) -> ImageSet:
    rows = []
    for modality in ("vis", "nir"):
        listing = root / "idx" / f"train_{modality}.txt"
        pictures = read_labelled_paths(listing, REMEDY)
        cameras = [CAMERA_IN_NAME.search(Path(path).name) for _, path, _ in pictures]
        nameless = (f"line {n} '{path}'" for (n, path, _), camera in zip(pictures, cameras, strict=True) if not camera)
        refuse(nameless, f"{listing}: pictures without a camera (as in _c06_) in their names", "correct them")
        rows += [
            (root / path, label, int(camera[1]), modality == "nir")
            for (_, path, label), camera in zip(pictures, cameras, strict=True)
        ]
    return image_set(rows)


def _read_test(root: Path) -> ImageSet:
    rows, absent = [], []
    for identity in sorted(set(read_identities(root / "idx" / "test_id.txt", REMEDY))):
        folders = [
            (root / f"test_{modality}" / f"cam{camera}" / f"{identity:04d}", camera, modality == "nir")
            for modality, cameras in (("vis", VISIBLE_CAMERAS), ("nir", INFRARED_CAMERAS))
            for camera in cameras
        ]
        folders = [folder for folder in folders if folder[0].is_dir()]
        if not folders:
            absent.append(f"{identity:04d}")
        for folder, camera, infrared in folders:
            rows += [(path, identity, camera, infrared) for path in list_pictures(folder)]
    refuse(absent, f"{root}: identities of idx/test_id.txt without a folder under any camera", "check the list")
    return image_set(rows)

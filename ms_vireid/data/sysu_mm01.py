"""SYSU-MM01 (Wu et al. 2017): `cam{1..6}/{id:04d}/*.jpg` and `exp/{train,val,test}_id.txt`."""

from pathlib import Path

from ms_vireid.command.errors import refuse
from ms_vireid.data.records import ReIDData, image_set
from ms_vireid.data.validation import list_pictures, read_identities, require_directory

CAMERAS = (1, 2, 3, 4, 5, 6)
INFRARED_CAMERAS = (3, 6)
REMEDY = "data.root must hold cam1 ... cam6 and exp, as SYSU-MM01 is distributed"


def read_sysu_mm01(root: Path) -> ReIDData:
    """Training pictures of the train and val identities, test pictures of the test identities, all six cameras.

    An identity that a camera has not seen has no folder there. Pictures are .jpg, .jpeg, .png or .bmp files.

    Raises:
        InputError: folders or lists missing, a list that is not numbers and commas, an identity in two lists, an
            identity without any folder.
    """
    require_directory(root, REMEDY)
    for name in ("exp", *(f"cam{camera}" for camera in CAMERAS)):
        require_directory(root / name, REMEDY)
    train, val, test = (read_identities(root / "exp" / f"{split}_id.txt", REMEDY) for split in ("train", "val", "test"))
    shared = sorted((set(train) | set(val)) & set(test))
    refuse(map(str, shared), f"{root}/exp: identities listed both for training and for testing", "list each once")
    return ReIDData(
        name="sysu_mm01",
        root=root,
        protocol="sysu_mm01",
        train=image_set(_pictures(root, sorted({*train, *val}))),
        test=image_set(_pictures(root, sorted(set(test)))),
    )


def _pictures(root: Path, identities: list[int]) -> list[tuple[Path, int, int, bool]]:
    rows, absent = [], []
    for identity in identities:
        folders = [(camera, root / f"cam{camera}" / f"{identity:04d}") for camera in CAMERAS]
        folders = [(camera, folder) for camera, folder in folders if folder.is_dir()]
        if not folders:
            absent.append(f"{identity:04d}")
        for camera, folder in folders:
            rows += [(path, identity, camera, camera in INFRARED_CAMERAS) for path in list_pictures(folder)]
    refuse(absent, f"{root}: identities listed in exp without a folder under any camera", "check the lists")
    return rows

"""SYSU-MM01 (Wu et al. 2017): `cam{1..6}/{id:04d}/*.jpg` and `exp/{train,val,test}_id.txt`."""

from pathlib import Path

from ms_vireid.command.errors import refuse
from ms_vireid.data.records import ReIDData
from ms_vireid.data.validation import read_identities, read_identity_folders, require_directory

CAMERAS = (1, 2, 3, 4, 5, 6)
INFRARED_CAMERAS = (3, 6)
REMEDY = "data.root must hold cam1 ... cam6 and exp, as SYSU-MM01 is distributed"


def read_sysu_mm01(root: Path) -> ReIDData:
    """Training pictures of the train and val identities, test pictures of the test identities, all six cameras.

    Raises InputError for missing folders or lists, a list that is not numbers and commas, an identity both to train and
    to test on, and an identity without any picture.
    """
    require_directory(root, REMEDY, "exp", *(f"cam{camera}" for camera in CAMERAS))
    train, val, test = (read_identities(root / "exp" / f"{split}_id.txt", REMEDY) for split in ("train", "val", "test"))
    shared = sorted({*train, *val} & {*test})
    refuse(map(str, shared), f"{root}/exp: identities listed both for training and for testing", "list each once")
    cameras = [(root / f"cam{camera}", camera, camera in INFRARED_CAMERAS) for camera in CAMERAS]
    train, test = (read_identity_folders(root, cameras, identities) for identities in ([*train, *val], test))
    return ReIDData("sysu_mm01", root, "sysu_mm01", train, test)

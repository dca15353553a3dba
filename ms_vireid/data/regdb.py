"""RegDB (Nguyen et al. 2017): `Visible/`, `Thermal/` and `idx/{train,test}_{visible,thermal}_{1..10}.txt`."""

from pathlib import Path

from ms_vireid.data.records import ImageSet, ReIDData, image_set
from ms_vireid.data.validation import read_labelled_paths, require_directory

VISIBLE_CAMERA, THERMAL_CAMERA = 1, 2
REMEDY = "data.root must hold Visible, Thermal and idx, as RegDB is distributed"


def read_regdb(root: Path, trial: int) -> ReIDData:
    """Split `trial` (1 to 10). Every line of a list is `path label`, the path relative to `root`.

    Raises InputError for missing folders or lists, and for a line that is not a path and a number.
    """
    require_directory(root, REMEDY, "Visible", "Thermal", "idx")
    return ReIDData("regdb", root, "regdb", _read_split(root, "train", trial), _read_split(root, "test", trial))


def _read_split(root: Path, split: str, trial: int) -> ImageSet:
    rows = []
    for modality, camera in (("visible", VISIBLE_CAMERA), ("thermal", THERMAL_CAMERA)):
        listing = root / "idx" / f"{split}_{modality}_{trial}.txt"
        for _, path, label in read_labelled_paths(listing, REMEDY):
            rows.append((root / path, label, camera, camera == THERMAL_CAMERA))
    return image_set(rows)

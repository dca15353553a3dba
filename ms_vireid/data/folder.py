"""Pictures of your own: `visible/ID/*.jpg` and `infrared/ID/*.jpg`."""

import math
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.data.records import ReIDData, image_set
from ms_vireid.data.validation import list_pictures, require_directory

REMEDY = "data.root must hold visible/ID/*.jpg and infrared/ID/*.jpg"


def read_folder(root: Path, test_fraction: float) -> ReIDData:
    """Identities are the folder names in order; the last `test_fraction` of them are tested on.

    Raises InputError for a missing folder, an identity without a folder in the other modality, and fewer than two
    identities.
    """
    require_directory(root, REMEDY, "visible", "infrared")
    names = {m: {entry.name for entry in (root / m).iterdir() if entry.is_dir()} for m in ("visible", "infrared")}
    one_sided = sorted(names["visible"] ^ names["infrared"])
    refuse(one_sided, f"{root}: identities in only one of visible and infrared", "add the other folder")
    identities = sorted(names["visible"])
    if len(identities) < 2:
        raise InputError(f"{root}: {len(identities)} identities, at least 2 are needed; {REMEDY}")
    rows = [
        (path, number, camera, modality == "infrared")
        for number, name in enumerate(identities)
        for camera, modality in enumerate(("visible", "infrared"), 1)
        for path in list_pictures(root / modality / name)
    ]
    images = image_set(rows)
    held_out = min(max(math.ceil(len(identities) * test_fraction), 1), len(identities) - 1)
    testing = images.identities >= len(identities) - held_out
    return ReIDData("folder", root, "regdb", images.subset(~testing), images.subset(np.flatnonzero(testing)))

"""RegDB (Nguyen et al. 2017): `Visible/`, `Thermal/` and `idx/{train,test}_{visible,thermal}_{1..10}.txt`."""

from pathlib import Path

from ms_vireid.data.records import ImageSet, ReIDData, image_set
from ms_vireid.data.validation import refuse, require_directory
from ms_vireid.errors import InputError

VISIBLE_CAMERA, THERMAL_CAMERA = 1, 2
REMEDY = "data.root must hold Visible, Thermal and idx, as RegDB is distributed"


def read_regdb(root: Path, trial: int) -> ReIDData:
    """Split `trial` (1 to 10). Every line of a list is `path label`, the path relative to `root`.

    Raises:
        InputError: folders or lists missing, or a line that is not a path and a number.
    """
    require_directory(root, REMEDY)
    for name in ("Visible", "Thermal", "idx"):
        require_directory(root / name, REMEDY)
    return ReIDData("regdb", root, "regdb", _read_split(root, "train", trial), _read_split(root, "test", trial))


def _read_split(root: Path, split: str, trial: int) -> ImageSet:
    rows = []
    for modality, camera in (("visible", VISIBLE_CAMERA), ("thermal", THERMAL_CAMERA)):
        listing = root / "idx" / f"{split}_{modality}_{trial}.txt"
        for path, label in _read_list(listing):
            rows.append((root / path, label, camera, camera == THERMAL_CAMERA))
    return image_set(rows)


def _is_path_and_label(fields: list[str]) -> bool:
    """A label is kept as int32, so at most nine digits are taken."""
    return len(fields) == 2 and not Path(fields[0]).is_absolute() and fields[1].isdecimal() and len(fields[1]) < 10


def _read_list(listing: Path) -> list[tuple[str, int]]:
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listing}: cannot be read ({error}); {REMEDY}") from None
    numbered = [(number, line.rsplit(maxsplit=1)) for number, line in enumerate(lines, 1) if line.strip()]
    wrong = (f"line {n} '{' '.join(f)}'" for n, f in numbered if not _is_path_and_label(f))
    refuse(wrong, f"{listing}: lines that are not 'path label', the path relative to data.root", "correct them")
    if not numbered:
        raise InputError(f"{listing}:1: lists no picture; {REMEDY}")
    return [(path, int(label)) for _, (path, label) in numbered]

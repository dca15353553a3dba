"""What a data set holds, by split and modality, beside what its authors have published, and what else is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ms_vireid.command.errors import summary
from ms_vireid.command.names import MODALITIES
from ms_vireid.config import DataConfig
from ms_vireid.data.folders import SYSU_CAMERAS, SYSU_INFRARED_CAMERAS, identity_of
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.data.validation import pictures_of_each

SPLITS = ("train", "test")
Part = tuple[str, str]  # a split and a modality
REGDB_EACH = 10  # pictures of an identity and modality


@dataclass(frozen=True)
class Count:
    """Of one split and modality. by_camera: pictures; empty where a set's authors do not say."""

    identities: int
    pictures: int
    by_camera: Mapping[int, int] = field(default_factory=dict)

    @property
    def cameras(self) -> int | None:
        return len(self.by_camera) or None


def _cameras(identities: int, by_camera: Mapping[int, int]) -> Count:
    return Count(identities, sum(by_camera.values()), by_camera)


# SYSU-MM01's are its authors' evaluation/data_split: rand_perm_cam.mat numbers the pictures of every person and camera,
# and the people of neither train_id.mat nor test_id.mat who have both modalities are the 99 to validate on. The sums
# are those of published training logs. LLCM's are its paper's, section 4.2, which prints 13,909 test pictures in all,
# while those of its two modalities are 15,846, as are the set's 46,767 without those to train on.
PUBLISHED: dict[str, dict[Part, Count]] = {
    "sysu_mm01": {
        ("train", "visible"): _cameras(395, {1: 4721, 2: 5753, 4: 5811, 5: 5973}),
        ("train", "infrared"): _cameras(395, {3: 7909, 6: 4000}),
        ("test", "visible"): _cameras(96, {1: 1374, 2: 1565, 4: 1918, 5: 1918}),
        ("test", "infrared"): _cameras(96, {3: 1883, 6: 1920}),
    },
    "regdb": {
        (split, modality): _cameras(206, {camera: 206 * REGDB_EACH})
        for split in SPLITS
        for camera, modality in enumerate(MODALITIES, 1)
    },
    "llcm": {
        ("train", "visible"): Count(713, 16946),
        ("train", "infrared"): Count(713, 13975),
        ("test", "visible"): Count(351, 8680),
        ("test", "infrared"): Count(351, 7166),
    },
}
LISTS = {  # what other identities than those most likely mean
    "sysu_mm01": "exp/ holds other lists than the authors' train_id.txt (296), val_id.txt (99, trained on too) and "
    "test_id.txt (96), or folders are missing",
    "regdb": "idx/ holds other lists than the published splits, 206 people each to train and to test on",
    "llcm": "idx/ holds other lists than the authors' train_vis.txt, train_nir.txt and test_id.txt, or "
    "folders are missing",
    "synthetic": "remove the folder, and it is drawn anew",
}
FEWER = "files are missing: unpack the archive again, and look for a copy that was cut off"
MORE = "files were added: remove copies, and frames cut out of the set's videos"
MOVED = "files lie under another camera: unpack the archive again"


def expected(config: DataConfig) -> dict[Part, Count]:
    """Of the configured data set: as published, or of the synthetic one as configured. Empty for one's own folders."""
    if config.name != "synthetic":
        return PUBLISHED.get(config.name, {})
    asked = config.synthetic
    identities = {"train": asked.train_identities + asked.val_identities, "test": asked.test_identities}
    visible = [camera for camera in SYSU_CAMERAS if camera not in SYSU_INFRARED_CAMERAS]
    return {
        (split, modality): _cameras(count, dict.fromkeys(cameras, count * asked.images_per_camera))
        for split, count in identities.items()
        for modality, cameras in zip(MODALITIES, (visible, SYSU_INFRARED_CAMERAS), strict=True)
    }


def counts(data: ReIDData) -> dict[Part, Count]:
    """What is there."""
    return {
        (split, modality): _count(images.subset(images.infrared == (modality == "infrared")))
        for split, images in zip(SPLITS, (data.train, data.test), strict=True)
        for modality in MODALITIES
    }


def _count(images: ImageSet) -> Count:
    cameras, pictures = np.unique(images.cameras, return_counts=True)
    return _cameras(images.num_identities, dict(zip(cameras.tolist(), pictures.tolist(), strict=True)))


def findings(data: ReIDData, name: str, wanted: Mapping[Part, Count]) -> list[str]:
    """A line for each thing that is not as `expected` or does not fit together, with what it most likely means.

    name: of the configured data set. wanted: what `expected` says of it.
    """
    found, lines = counts(data), []
    others = [
        f"{' '.join(part)} {found[part].identities:,}, not {count.identities:,}"
        for part, count in wanted.items()
        if found[part].identities != count.identities
    ]
    if others:
        lines.append(f"identities: {', '.join(others)}; {LISTS[name]}")
    for part, count in wanted.items():
        if found[part].identities == count.identities and (line := _difference(found[part], count)):
            lines.append(f"{' '.join(part)}: {line}")
    for split, images in zip(SPLITS, (data.train, data.test), strict=True):
        for modality, people in pictures_of_each(images).items():
            where = f"{split} {modality}"
            if without := [person for person, pictures in people if not pictures]:
                lines.append(f"{where}: identities without a picture: {summary(without)}; add some, or drop them")
            odd = [person for person, pictures in people if pictures not in (0, REGDB_EACH)]
            if odd and name == "regdb":
                lines.append(
                    f"{where}: identities without {REGDB_EACH} pictures: {summary(odd)}; check idx/ and the files"
                )
    if name == "regdb" and (both := sorted(_people(data.train) & _people(data.test))):
        lines.append(f"identities both trained and tested on: {summary(both)}; results would be too good")
    return lines


def _difference(found: Count, wanted: Count) -> str | None:
    """Of the pictures, by camera where that is known."""
    cameras = sorted({*found.by_camera, *wanted.by_camera}) if wanted.by_camera else ()
    pairs = {camera: (found.by_camera.get(camera, 0), wanted.by_camera.get(camera, 0)) for camera in cameras}
    differing = [
        f"camera {camera} {ours:,}, not {theirs:,}" for camera, (ours, theirs) in pairs.items() if ours != theirs
    ]
    if found.pictures == wanted.pictures:
        return f"pictures of {', '.join(differing)}; {MOVED}" if differing else None
    means = FEWER if found.pictures < wanted.pictures else MORE
    by_camera = f" ({', '.join(differing)})" if len(pairs) > 1 else ""
    return f"{found.pictures:,} pictures, not {wanted.pictures:,}{by_camera}; {means}"


def _people(images: ImageSet) -> set[str]:
    """The names of folders that name a person."""
    folders = {path.parent for path in images.paths}
    return {name for folder in folders if (name := identity_of(folder.absolute().parts[-3:]))}

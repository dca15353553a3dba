"""Compares what a data set contains, by split and modality, with the counts that its authors published."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ms_vireid.command.errors import summary
from ms_vireid.command.names import MODALITIES
from ms_vireid.config import DataConfig
from ms_vireid.data.published_sets import SYSU_CAMERAS, SYSU_INFRARED_CAMERAS
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.data.validation import pictures_of_each

SPLITS = ("train", "test")
Subset = tuple[str, str]  # a split and a modality
REGDB_EACH = 10  # pictures of each identity and modality


@dataclass(frozen=True)
class Count:
    """Counts of one split and modality. by_camera: pictures; empty if a set's authors do not say."""

    identities: int
    pictures: int
    by_camera: Mapping[int, int] = field(default_factory=dict)

    @property
    def cameras(self) -> int | None:
        return len(self.by_camera) or None


def _cameras(identities: int, by_camera: Mapping[int, int]) -> Count:
    return Count(identities, sum(by_camera.values()), by_camera)


# SYSU-MM01's come from its authors' evaluation/data_split: rand_perm_cam.mat numbers the pictures of every person and
# camera, and the people with both modalities in neither train_id.mat nor test_id.mat are the 99 for validation. The
# sums agree with published training logs. LLCM's come from section 4.2 of its paper, which prints 13,909 test pictures
# in all, but 15,846 for its two modalities together; the set's 46,767 less the training pictures are 15,846 too.
PUBLISHED: dict[str, dict[Subset, Count]] = {
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
REASONS = {  # the likely reason for other numbers of identities
    "sysu_mm01": "exp/ lacks the authors' lists train_id.txt (296), val_id.txt (99, trained on too) and "
    "test_id.txt (96), or folders are missing",
    "regdb": "idx/ lacks the published splits, 206 people each to train and to test on",
    "llcm": "idx/ lacks the authors' lists train_vis.txt, train_nir.txt and test_id.txt, or folders are missing",
    "synthetic": "remove the folder to draw it again",
}
FEWER = "files are missing: unpack the archive again, and look for a copy that was cut off"
MORE = "files were added: remove copies, and frames cut out of the set's videos"
MOVED = "files lie under another camera: unpack the archive again"


def expected(config: DataConfig) -> dict[Subset, Count]:
    """Return the counts that the configured data set should have: as published, or as configured for the synthetic one.
    Empty for the user's own folders."""
    if config.name != "synthetic":
        return PUBLISHED.get(config.name, {})
    synthetic = config.synthetic
    training = synthetic.train_identities + synthetic.val_identities
    identities = {"train": training, "test": synthetic.test_identities}
    visible = [camera for camera in SYSU_CAMERAS if camera not in SYSU_INFRARED_CAMERAS]
    return {
        (split, modality): _cameras(count, dict.fromkeys(cameras, count * synthetic.images_per_camera))
        for split, count in identities.items()
        for modality, cameras in zip(MODALITIES, (visible, SYSU_INFRARED_CAMERAS), strict=True)
    }


def counts(data: ReIDData) -> dict[Subset, Count]:
    """Count what a data set contains."""
    return {
        (split, modality): _count(images.subset(images.infrared == (modality == "infrared")))
        for split, images in zip(SPLITS, (data.train, data.test), strict=True)
        for modality in MODALITIES
    }


def _count(images: ImageSet) -> Count:
    cameras, pictures = np.unique(images.cameras, return_counts=True)
    return _cameras(images.num_identities, dict(zip(cameras.tolist(), pictures.tolist(), strict=True)))


def findings(data: ReIDData, name: str, wanted: Mapping[Subset, Count]) -> list[str]:
    """List everything that differs from `wanted` or is inconsistent, one line each, with its likely reason.

    name: of the configured data set. wanted: its `expected` counts.
    """
    actual, lines = counts(data), []
    differing = [
        f"{' '.join(part)} {actual[part].identities:,}, not {count.identities:,}"
        for part, count in wanted.items()
        if actual[part].identities != count.identities
    ]
    if differing:
        lines.append(f"identities: {', '.join(differing)}; {REASONS[name]}")
    for part, count in wanted.items():
        if actual[part].identities == count.identities and (line := _difference(actual[part], count)):
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
    return lines


def _difference(actual: Count, wanted: Count) -> str | None:
    """Describe how the numbers of pictures differ, by camera where that is known; None if they agree."""
    cameras = sorted({*actual.by_camera, *wanted.by_camera}) if wanted.by_camera else ()
    pairs = {camera: (actual.by_camera.get(camera, 0), wanted.by_camera.get(camera, 0)) for camera in cameras}
    differing = [
        f"camera {camera} {ours:,}, not {theirs:,}" for camera, (ours, theirs) in pairs.items() if ours != theirs
    ]
    if actual.pictures == wanted.pictures:
        return f"pictures of {', '.join(differing)}; {MOVED}" if differing else None
    reason = FEWER if actual.pictures < wanted.pictures else MORE
    by_camera = f" ({', '.join(differing)})" if len(pairs) > 1 else ""
    return f"{actual.pictures:,} pictures, not {wanted.pictures:,}{by_camera}; {reason}"

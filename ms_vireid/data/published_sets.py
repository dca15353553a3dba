"""Cameras and folders of the published data sets, as they are distributed."""

SYSU_CAMERAS = (1, 2, 3, 4, 5, 6)
SYSU_INFRARED_CAMERAS = (3, 6)
LLCM_VISIBLE_CAMERAS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
LLCM_INFRARED_CAMERAS = (1, 2, 4, 5, 6, 7, 8, 9)
FOLDERS = {  # of the people's pictures
    "sysu_mm01": tuple(f"cam{camera}" for camera in SYSU_CAMERAS),
    "regdb": ("Visible", "Thermal"),
    "llcm": ("vis", "nir", "test_vis", "test_nir"),
}
LISTS = {"sysu_mm01": "exp", "regdb": "idx", "llcm": "idx"}  # the folder of the lists of people


def published_set(folders: set[str]) -> str | None:
    """Return the name of the set whose folders, with that of its lists, are all among these."""
    return next((name for name, own in FOLDERS.items() if folders >= {*own, LISTS[name]}), None)

import colorsys

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from ms_vireid.command.errors import InputError
from ms_vireid.data import corruptions
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    CorruptedVersion,
    corrupt,
    corruption_sheet,
    read_photographs,
)
from ms_vireid.data.loader import iterate
from ms_vireid.data.readers import read_sysu_mm01
from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity

from . import tree

TYPES = list(CORRUPTIONS)
REFERENCE_SIZE = (288, 144)


def person(size: tuple[int, int] = REFERENCE_SIZE, identity: int = 3, camera: int = 2) -> np.ndarray:
    picture = render(draw_identity(0, identity), Camera(0, camera, size), np.random.default_rng(1))
    return np.asarray(picture)


def noise_picture(size: tuple[int, int], gray: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return np.repeat(pixels[:, :, :1], 3, axis=2) if gray else pixels


def constant(*colour: int, size: tuple[int, int] = REFERENCE_SIZE) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def corrupted(pixels: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(pixels, name, severity, np.random.default_rng(seed))


def randomly_corrupted(pixels: np.ndarray, seed: int, number: int) -> np.ndarray:
    return CorruptedVersion(seed, np.array([number])).apply(pixels, 0)


def assert_cut_off(result: np.ndarray, expected: np.ndarray) -> None:
    """Every value is the largest whole number that is not above what is expected, up to float32's rounding of it."""
    missing = expected - result
    assert missing.min() >= -0.01, missing.min()
    assert missing.max() < 1.01, missing.max()


# the set as a whole


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("size", "gray"), [((48, 24), True), ((37, 53), False), ((8, 8), False), ((1, 1), False), ((2, 90), True)]
)
def test_shape_type_and_input_are_kept(name, size, gray):
    pixels = noise_picture(size, gray)
    pixels.flags.writeable = False
    for severity in SEVERITIES:
        result = corrupted(pixels, name, severity)
        assert (result.shape, result.dtype) == ((*size, 3), np.uint8)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pictures_stay_within_the_range(name, value):
    # What the corruptions compute, in 0..1 and a little beyond, is finite, and clipped before it is cut to 8 bits:
    # cast as it is it would wrap around.
    image = np.full((3, 48, 24), value / 255, np.float32)
    for severity in SEVERITIES:
        result = CORRUPTIONS[name](image, severity, np.random.default_rng(0))
        assert np.isfinite(result).all()
        pixels = corrupted(constant(value, value, value, size=(48, 24)), name, severity)
        lost = 255 * np.clip(result, 0, 1).transpose(1, 2, 0) - pixels  # a part of a level, and float32's rounding
        assert lost.min() >= -2e-3
        assert lost.max() <= 1


# drawn at random


# Of the same picture: the mean error at each severity, and the deviation of what there is then.
STRENGTHS = {
    "gaussian_noise": (15.95, 23.25, 33.22, 44.96, 59.65, 44.87, 48.84, 55.71, 65.45, 78.78),
    "shot_noise": (13.06, 20.06, 28.65, 44.08, 55.86, 44.00, 47.78, 54.42, 67.40, 78.11),
    "impulse_noise": (3.96, 8.07, 12.01, 22.04, 34.45, 47.09, 52.60, 57.52, 68.60, 79.37),
    "speckle_noise": (8.10, 10.76, 18.64, 23.68, 30.69, 42.11, 43.17, 47.64, 51.29, 56.99),
    "defocus_blur": (4.68, 6.00, 8.13, 10.16, 11.99, 38.21, 37.04, 35.33, 33.61, 32.05),
    "glass_blur": (7.55, 7.09, 10.26, 10.52, 12.11, 39.95, 38.26, 36.25, 35.29, 32.71),
    "motion_blur": (5.82, 9.33, 13.14, 16.36, 18.19, 38.32, 36.51, 34.28, 32.15, 30.73),
    "zoom_blur": (8.84, 11.06, 12.76, 14.42, 16.06, 38.70, 38.30, 37.51, 37.10, 36.23),
    "gaussian_blur": (1.93, 5.19, 7.33, 9.22, 12.33, 39.53, 37.43, 35.61, 33.93, 31.09),
    "snow": (39.49, 62.43, 66.75, 84.24, 97.80, 43.27, 45.25, 49.87, 52.35, 44.77),
    "frost": (51.83, 64.62, 71.57, 68.99, 72.70, 42.41, 42.59, 44.58, 43.82, 45.37),
    "fog": (30.31, 33.41, 33.77, 32.70, 33.28, 23.72, 23.93, 28.06, 31.47, 31.69),
    "rain": (24.68, 31.67, 40.23, 42.92, 51.35, 38.67, 36.11, 32.97, 30.22, 25.60),
    "spatter": (0.97, 3.32, 4.91, 4.65, 7.52, 40.63, 40.93, 41.17, 37.96, 36.47),
    "brightness": (19.40, 39.19, 58.13, 77.04, 94.80, 43.85, 46.99, 49.41, 52.28, 54.69),
    "contrast": (18.88, 22.06, 25.21, 28.37, 29.94, 16.98, 13.23, 9.69, 6.74, 5.78),
    "saturate": (13.74, 17.75, 14.33, 23.12, 29.63, 41.08, 42.92, 48.03, 47.76, 47.21),
    "elastic": (5.50, 6.71, 8.18, 9.20, 10.47, 39.39, 39.29, 39.14, 39.04, 38.97),
    "pixelate": (4.53, 4.77, 7.22, 8.35, 8.46, 39.43, 39.53, 38.04, 37.45, 37.33),
    "jpeg": (7.74, 8.65, 9.06, 10.76, 12.42, 39.68, 39.76, 39.35, 39.59, 39.45),
}


@pytest.mark.parametrize("name", TYPES)
def test_severities_are_as_strong_as_they_were(name):
    picture = person((144, 72))
    results = [corrupted(picture, name, severity).astype(np.float64) for severity in SEVERITIES]
    strengths = [abs(result - picture).mean() for result in results] + [result.std() for result in results]
    assert strengths == pytest.approx(STRENGTHS[name], abs=0.05)


def test_a_random_corruption_follows_from_seed_and_image():
    pixels = person((48, 24))
    for index in range(20):
        first = randomly_corrupted(pixels, 5, index)
        np.random.default_rng().random(3)
        np.testing.assert_array_equal(randomly_corrupted(pixels, 5, index), first)
    first = randomly_corrupted(pixels, 5, 0)
    assert not np.array_equal(first, randomly_corrupted(pixels, 5, 1))
    assert not np.array_equal(first, randomly_corrupted(pixels, 6, 0))
    # Of a set's pictures by their numbers, not by where they stand.
    np.testing.assert_array_equal(CorruptedVersion(3, [7, 2, 900]).apply(pixels, 2), randomly_corrupted(pixels, 3, 900))


def test_types_and_severities_are_drawn_uniformly(monkeypatch):
    drawn = []
    monkeypatch.setattr(corruptions, "corrupt", lambda _pixels, name, severity, *_: drawn.append((name, severity)))
    for index in range(10_000):
        randomly_corrupted(constant(0, 0, 0, size=(1, 1)), index % 10, index)
    names, severities = zip(*drawn, strict=True)
    combinations = [drawn.count((name, severity)) for name in TYPES for severity in SEVERITIES]
    # Five standard deviations of binomials with p = 1/20, 1/5 and 1/100.
    assert all(abs(names.count(name) - 500) < 109 for name in TYPES)
    assert all(abs(severities.count(severity) - 2000) < 200 for severity in SEVERITIES)
    assert all(abs(count - 100) < 50 for count in combinations)


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    return read_sysu_mm01(tree.write_sysu_mm01(tmp_path_factory.mktemp("sysu"))).test


def in_batches(images, version=None, workers=0, batch_size=3) -> dict:
    """Every picture as the model would see it, by its path."""
    items = iterate(EvaluationBatches(images, (32, 16), batch_size, version), workers)
    return {images.paths[i]: pixels for batch, index in items for pixels, i in zip(batch.copy(), index, strict=True)}


def test_evaluation_batches_corrupt_visible_pictures_only(test_set):
    clean = in_batches(test_set)
    seen = in_batches(test_set, CorruptedVersion(0, np.arange(len(test_set))))
    for path, infrared in zip(test_set.paths, test_set.infrared, strict=True):
        assert np.array_equal(clean[path], seen[path]) == infrared


def test_a_corrupted_version_depends_neither_on_workers_nor_on_batches_nor_on_what_else_is_in_them(test_set):
    numbers = np.arange(len(test_set))
    expected = in_batches(test_set, CorruptedVersion(4, numbers))
    part = np.random.default_rng(0).permutation(numbers)[:6]
    for found in (
        in_batches(test_set, CorruptedVersion(4, numbers), workers=2, batch_size=2),
        in_batches(test_set.subset(part), CorruptedVersion(4, part)),
    ):
        for path, pixels in found.items():
            np.testing.assert_array_equal(pixels, expected[path])


# single corruptions


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.08), (3, 0.18)])
def test_gaussian_and_speckle_noise_have_the_published_deviations(severity, deviation):
    gray = constant(128, 128, 128)
    # 124,416 values: a deviation's standard error is 0.2% of it; rounding adds 0.3 grey levels in quadrature.
    assert corrupted(gray, "gaussian_noise", severity).std() == pytest.approx(255 * deviation, rel=0.01)
    speckle = {1: 0.15, 3: 0.35}[severity]
    assert corrupted(constant(100, 100, 100), "speckle_noise", severity).std() == pytest.approx(100 * speckle, rel=0.01)


def test_shot_noise_is_poisson_noise():
    result = corrupted(constant(51, 51, 51), "shot_noise", 1).astype(float)  # 0.2 of 60 photons: 12 on average
    assert result.mean() == pytest.approx(51, rel=0.01)
    assert result.std() == pytest.approx(255 * np.sqrt(12) / 60, rel=0.01)


def test_impulse_noise_is_as_much_salt_as_pepper():
    result = corrupted(constant(128, 128, 128), "impulse_noise", 5)
    shares = [np.mean(result == value) for value in (0, 128, 255)]
    np.testing.assert_allclose(shares, [0.135, 0.73, 0.135], atol=0.007)  # five standard errors of 124,416 draws


BLURS = [name for name in TYPES if name.endswith("_blur")]


@pytest.mark.parametrize("name", [*BLURS, "contrast", "elastic", "pixelate"])
def test_what_only_moves_or_mixes_pixels_keeps_a_constant_picture(name):
    for severity in SEVERITIES:
        assert (corrupted(constant(120, 60, 200), name, severity) == (120, 60, 200)).all()


def test_gaussian_blur_is_scipys():
    pixels = person()
    expected = gaussian_filter(pixels.astype(np.float64), (4, 4, 0), mode="nearest", truncate=4)
    assert_cut_off(corrupted(pixels, "gaussian_blur", 4), expected)


@pytest.mark.parametrize("name", [*BLURS, "snow", "rain", "elastic"])
def test_sizes_are_corrupted_alike(name):
    """The mean error of a picture of half the height and width is that of the large one, within a quarter."""
    errors = [
        np.mean([np.abs(corrupted(person(size), name, 4, seed).astype(int) - person(size)) for seed in range(8)])
        for size in (REFERENCE_SIZE, (144, 72))
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.25)


def test_defocus_spreads_a_point_over_a_disc():
    spot = np.zeros((1, *REFERENCE_SIZE), np.float32)
    spot[0, 100, 70] = 1
    result = CORRUPTIONS["defocus_blur"](spot, 3, np.random.default_rng(0))[0]  # radius 6
    rows, columns = np.indices(REFERENCE_SIZE)
    distance = np.hypot(rows - 100, columns - 70)
    np.testing.assert_allclose(result[distance <= 5.5], result[100, 70], rtol=1e-4)
    assert np.abs(result[distance >= 6.5]).max() < 1e-6
    assert result.sum() == pytest.approx(1, abs=1e-5)


def test_motion_blur_moves_a_point_along_one_line():
    spot = np.zeros((1, *REFERENCE_SIZE), np.float32)
    spot[0, 100, 70] = 1
    for seed in range(10):
        result = CORRUPTIONS["motion_blur"](spot, 1, np.random.default_rng(seed))[0]
        rows, columns = np.nonzero(result > 1e-4)
        assert columns.min() == 70  # angles within 45 degrees of the right
        assert columns.max() > 75
        slope = (rows - 100) @ (columns - 70) / np.square(columns - 70).sum()
        assert np.abs(rows - 100 - slope * (columns - 70)).max() < 1.1  # whole pixels on a straight line


def test_brightness_and_saturation_are_those_of_hsv():
    pixels = noise_picture((12, 8))
    pixels[0, :3] = [[0, 0, 0], [90, 90, 90], [255, 255, 255]]
    for name, change in (
        ("brightness", lambda h, s, v: (h, s, min(v + 0.2, 1))),
        ("saturate", lambda h, s, v: (h, min(0.1 * s, 1), v)),
    ):
        expected = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in pixels.reshape(-1, 3) / 255]
        result = corrupted(pixels, name, 2).reshape(-1, 3)
        assert_cut_off(result, 255 * np.array(expected))


@pytest.mark.parametrize("severity", [4, 5])
def test_more_saturation_makes_gray_reddish_as_the_published_one_does(severity):
    red, green, blue = corrupted(constant(100, 100, 100, size=(1, 1)), "saturate", severity)[0, 0]
    assert (red, green) == (100, blue)
    assert green == round(100 * {4: 0.9, 5: 0.8}[severity])


def test_contrast_by_hand():
    pixels = np.array([[[0, 10, 255], [100, 10, 255]]], np.uint8)
    # The channels' means are 50, 10 and 255; 0.4 of the distances from them remain.
    assert corrupted(pixels, "contrast", 1).tolist() == [[[30, 10, 255], [70, 10, 255]]]
    # Mean 1.5, of which 0.4 of the distances remain: 0.9 and 2.1, which are cut off and not rounded.
    assert corrupted(np.uint8([[[0] * 3, [3] * 3]]), "contrast", 1)[0, :, 0].tolist() == [0, 2]
    for level in range(0, 256, 5):  # a value that nothing changes is not cut off to the one below
        pixels = constant(level, level, level, size=(9, 5))
        assert (corrupted(pixels, "saturate", 1) == pixels).all()
        assert (corrupted(pixels, "contrast", 3) == pixels).all()


def test_jpeg_is_pillows_of_the_published_quality(tmp_path):
    Image.fromarray(person()).save(tmp_path / "a.jpg", quality=10)
    with Image.open(tmp_path / "a.jpg") as picture:
        np.testing.assert_array_equal(corrupted(person(), "jpeg", 4), np.asarray(picture))


def test_spatter_is_turquoise_water_or_brown_mud():
    water = corrupted(constant(0, 0, 0), "spatter", 3).reshape(-1, 3).max(axis=0)
    assert water[0] < water[1] == water[2]
    mud = corrupted(constant(255, 255, 255), "spatter", 5).reshape(-1, 3)
    np.testing.assert_array_equal(mud.min(axis=0), [63, 42, 20])


def photograph(height: int, width: int) -> np.ndarray:
    """Brighter by half a level for each pixel to the right."""
    return np.repeat(np.tile(np.arange(width) // 2, (height, 1)).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(("shape", "slope"), [((400, 500), 0.5 / 1.1), ((100, 500), 0.5 / (1.1 * 288 / 100))])
def test_frost_of_a_photograph_is_a_piece_of_it_enlarged(shape, slope):
    # By a tenth; by what the picture's height asks for as well where the photograph is lower.
    black = np.zeros((3, *REFERENCE_SIZE), np.float32)
    frost = corruptions.photographed_frost(black, 1, np.random.default_rng(0), [photograph(*shape)])
    levels = frost[0] * 255 / 0.4  # severity 1 adds 0.4 of the ice
    steps = (levels[:, -10] - levels[:, 10]) / 124  # of columns 10 to 134
    np.testing.assert_allclose(steps, slope, atol=1.5 / 124)  # the ramp's and the result's whole levels


def test_photographs_take_the_place_of_the_drawn_ice_in_frost_alone():
    black, dark = constant(0, 0, 0), [np.zeros((300, 200, 3), np.uint8)]
    for name in TYPES:
        drawn = corrupted(person(), name, 3)
        photographed = corrupt(person(), name, 3, np.random.default_rng(0), dark)
        assert np.array_equal(drawn, photographed) == (name != "frost")
    assert not corrupt(black, "frost", 3, np.random.default_rng(0), dark).any()
    version, small = CorruptedVersion(0, np.arange(120), tuple(dark)), person((48, 24))
    frosted = [i for i in range(120) if not np.array_equal(version.apply(small, i), randomly_corrupted(small, 0, i))]
    assert 0 < len(frosted) < 18  # one of twenty types: 6 expected, standard deviation 2.4


def test_every_photograph_is_taken_and_what_is_none_is_noted(tmp_path, caplog):
    for level in (50, 100, 150):
        Image.fromarray(constant(level, level, level)).save(tmp_path / f"{level}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    photographs = read_photographs(tmp_path)
    assert "notes.txt" in caplog.text
    seen = {int(corrupt(constant(0, 0, 0), "frost", 3, np.random.default_rng(i), photographs).max()) for i in range(40)}
    assert seen == {35, 70, 105}  # 0.7 of each


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, r"frost: .*evaluation\.frost is a folder of photographs"),
        ({}, "frost: holds no picture; evaluation"),
        ({"a.jpg": b"text"}, r"a\.jpg: cannot be decoded as a picture"),
    ],
)
def test_a_folder_without_photographs_is_refused(tmp_path, files, message):
    folder = tmp_path / "frost"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_photographs(folder)


def midpoints_one_by_one(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """The published fractal point by point: squares' middles, then the points of the grid's lines, wrapping around."""
    height, step, spread = np.zeros((side, side)), side, 1.0

    def at(row, column):
        return height[row % side, column % side]

    while step >= 2:
        half, cells = step // 2, range(0, side, step)
        noise = rng.uniform(-spread, spread, (len(cells), len(cells)))
        for i, row in enumerate(cells):
            for j, column in enumerate(cells):
                around = at(row, column), at(row + step, column), at(row, column + step), at(row + step, column + step)
                height[row + half, column + half] = sum(around) / 4 + noise[i, j]
        for down, right in ((0, half), (half, 0)):
            noise = rng.uniform(-spread, spread, (len(cells), len(cells)))
            for i, row in enumerate(cells):
                for j, column in enumerate(cells):
                    r, c = row + down, column + right
                    around = at(r - half, c), at(r + half, c), at(r, c - half), at(r, c + half)
                    height[r, c] = sum(around) / 4 + noise[i, j]
        step, spread = half, spread / decay**2
    return (height - height.min()) / (height.max() - height.min())


@pytest.mark.parametrize(("side", "decay"), [(2, 2.0), (8, 1.4), (32, 2.0)])
def test_the_fog_is_the_published_fractal(side, decay):
    actual = corruptions._plasma(side, decay, np.random.default_rng(3))
    np.testing.assert_allclose(actual, midpoints_one_by_one(side, decay, np.random.default_rng(3)), atol=1e-6)


def test_fog_is_a_corner_of_a_map_whose_side_is_a_power_of_two():
    image = np.full((3, *REFERENCE_SIZE), 0.5, np.float32)
    mist = corruptions._plasma(512, 1.7, np.random.default_rng(5))[:288, :144]
    expected = (0.5 + 2.5 * mist) * 0.5 / 3  # severity 3
    np.testing.assert_allclose(CORRUPTIONS["fog"](image, 3, np.random.default_rng(5))[0], expected, atol=1e-6)


def test_elastic_mirrors_the_picture_as_the_published_one_does():
    pixels, rng = noise_picture(REFERENCE_SIZE), np.random.default_rng(4)
    shifts = [
        30 * gaussian_filter(field, (2.88, 1.44), mode="reflect", truncate=3)  # severity 5
        for field in rng.uniform(-1.44, 1.44, (2, *REFERENCE_SIZE))
    ]
    places = np.indices(REFERENCE_SIZE) + shifts
    assert min(places[1].min(), places[0].min()) < -1  # so that the border matters
    expected = [map_coordinates(pixels[:, :, c] / 255, places, order=1, mode="reflect") for c in range(3)]
    actual = CORRUPTIONS["elastic"](corruptions._planes(pixels), 5, np.random.default_rng(4))
    np.testing.assert_allclose(actual, expected, atol=2e-4)  # float32 places: 3e-5 of a pixel in noise


# the sheet


def test_the_sheet_shows_every_type_at_every_severity():
    pixels = person((48, 96))
    sheet = np.asarray(corruption_sheet(pixels, np.random.default_rng(0)))
    column, row = 100, 52  # picture and margin
    assert sheet.shape == (12 + 5 * row, 12 + 20 * column, 3)
    place = TYPES.index("contrast")
    for severity in SEVERITIES:
        top, left = 12 + (severity - 1) * row, 12 + place * column
        np.testing.assert_array_equal(sheet[top : top + 48, left : left + 96], corrupted(pixels, "contrast", severity))
    assert corruption_sheet(person((32, 16)), np.random.default_rng(0)).width > 20 * 60  # room for the names

import numpy as np
import pytest
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.config import AugmentationConfig
from ms_vireid.data.transforms import (
    adaptive_gray,
    augment,
    channel_exchange,
    gaussian_blur,
    load_image,
    normalise,
    random_erasing,
    to_gray,
)

from . import tree

NOTHING = AugmentationConfig(flip=0.0, erasing=0.0, infrared_jitter=0.0)


def pixels_of(seed: int = 0, size: tuple[int, int] = (24, 16), gray: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return np.repeat(pixels[:, :, :1], 3, axis=2) if gray else pixels


# loading


def test_a_gray_file_is_three_equal_channels_and_a_coloured_one_keeps_its_own(tmp_path):
    path = tree.write_picture(tmp_path / "colour.png")
    with Image.open(path) as image:
        colour, gray = np.asarray(image), np.asarray(image.convert("L"))
        image.convert("L").save(tmp_path / "gray.png")
    assert np.array_equal(load_image(path, tree.SIZE), colour)
    assert np.array_equal(load_image(tmp_path / "gray.png", tree.SIZE), np.dstack([gray] * 3))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_a_picture_of_any_mode_has_three_channels(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(pixels_of()).convert(mode).save(tmp_path / f"a.{suffix}")
    loaded = load_image(tmp_path / f"a.{suffix}", (24, 16))
    assert (loaded.shape, loaded.dtype) == ((24, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"cut.{suffix}", None) for suffix in ("jpg", "png", "bmp")),
        *(("other.jpg", content) for content in (b"", b"text", b"\xff\xd8\xff", b"BM", b"\x89PNG\r\n\x1a\n")),
        ("gone.jpg", None),
    ],
)
def test_a_file_that_is_not_a_whole_picture_is_refused_by_its_path(tmp_path, name, content):
    if name.startswith("cut"):
        tree.truncate(tree.write_picture(tmp_path / name))
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: cannot be decoded as a picture"):
        load_image(tmp_path / name, (24, 16))


# arithmetic: decoding, resizing, normalising, gray and jitter are compared with torchvision's by the ladder


def test_blur_keeps_channels_and_constants_and_takes_pictures_smaller_than_its_kernel():
    blurred = gaussian_blur(pixels_of(gray=True), 1.0)
    assert (blurred == blurred[:, :, :1]).all()
    assert (gaussian_blur(np.full((24, 16, 3), 77, np.uint8), 2.0) == 77).all()
    pixels = pixels_of(size=(5, 3), gray=True)
    expected = pixels[:, :, 0].astype(np.float64)
    for axis, reach in enumerate((4, 2)):  # as far as a reflection goes: the edge is not repeated
        weights = np.exp(-np.square(np.arange(-reach, reach + 1)) / 8.0)
        padded = np.pad(expected, [(reach, reach) if axis == i else (0, 0) for i in (0, 1)], mode="reflect")
        expected = np.apply_along_axis(np.convolve, axis, padded, weights / weights.sum(), "valid")
    assert np.abs(gaussian_blur(pixels, 2.0) - expected[:, :, None]).max() <= 0.501


# erasing


def erased(config: AugmentationConfig, seed: int, size=(64, 32)) -> np.ndarray:
    """Which pixels have changed, bool [H, W]."""
    image = np.full((3, *size), 9.0, np.float32)
    return (random_erasing(image, config, np.random.default_rng(seed)) != 9.0).any(axis=0)


def rectangle(mask: np.ndarray) -> tuple[int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask.sum() == height * width
    return height, width


ALWAYS = AugmentationConfig(erasing=0.999999)


@pytest.mark.parametrize("seed", range(20))
def test_erasing_fills_one_rectangle_within_the_bounds_of_area_and_aspect(seed):
    height, width = rectangle(erased(ALWAYS, seed))
    # Both sides are rounded, so a side is up to half a pixel off.
    assert (height + 0.5) * (width + 0.5) >= 0.02 * 64 * 32
    assert (height - 0.5) * (width - 0.5) <= 0.4 * 64 * 32
    assert (height + 0.5) / (width - 0.5) >= 0.3
    assert (height - 0.5) / (width + 0.5) <= 1 / 0.3


def test_erasing_writes_the_configured_fill_as_it_is():
    image = random_erasing(np.full((3, 64, 32), 9.0, np.float32), ALWAYS, np.random.default_rng(0))
    mask = image[0] != 9.0
    np.testing.assert_array_equal(np.unique(image[:, mask], axis=1)[:, 0], np.float32([0.485, 0.456, 0.406]))


def test_erasing_reaches_every_corner_and_happens_as_often_as_configured():
    assert np.any([erased(ALWAYS, seed, (16, 8)) for seed in range(300)], axis=0).all()
    assert not any(erased(NOTHING, seed).any() for seed in range(20))
    happened = sum(erased(AugmentationConfig(), seed).any() for seed in range(1000))
    assert abs(happened - 500) < 80  # five standard deviations of a binomial


# padding and crop


def windows(pixels: np.ndarray, padding: int) -> list[np.ndarray]:
    """All windows of a picture's own size in it and a black frame around it, by rows."""
    height, width = pixels.shape[:2]
    frame = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))
    places = range(2 * padding + 1)
    return [frame[top : top + height, left : left + width] for top in places for left in places]


@pytest.mark.parametrize("padding", [3, 18])  # 18: more than the picture's width
@pytest.mark.parametrize("flip", [False, True])
def test_a_window_is_black_outside_the_picture_and_flipped_after_it_is_cut_out(padding, flip):
    pixels = pixels_of()
    for i, window in enumerate(windows(pixels, padding)):
        top, left = (place - padding for place in divmod(i, 2 * padding + 1))
        found = normalise(pixels, top, left, flip)
        np.testing.assert_array_equal(found, normalise(window[:, ::-1] if flip else window))


@pytest.mark.parametrize("infrared", [False, True])
def test_a_crop_is_any_window_of_the_padded_picture(infrared):
    pixels = pixels_of(gray=infrared)
    config = NOTHING.model_copy(update={"crop_padding": 3})
    numbers = {normalise(window).tobytes(): i for i, window in enumerate(windows(pixels, 3))}
    crops = (augment(pixels, infrared, False, config, np.random.default_rng(seed)) for seed in range(1000))
    # A window is missed by chance once in 1e7 trials of this test.
    assert {numbers[crop.tobytes()] for crop in crops} == set(range(49))


# the whole


@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, 0), ({"infrared_jitter": 0.3}, 0), ({"flip": 0.5}, 0.5), ({"visible_channel_exchange": 0.25}, 0.25)],
)
def test_visible_pictures_are_changed_as_often_as_configured(changes, share):
    config, plain = NOTHING.model_copy(update=changes), normalise(pixels_of())
    results = (augment(pixels_of(), False, False, config, np.random.default_rng(seed)) for seed in range(400))
    changed = np.mean([not np.array_equal(result, plain) for result in results])
    # Five standard deviations of a binomial; without augmentation a picture is normalised and no more.
    assert abs(changed - share) <= 5 * (share * (1 - share) / 400) ** 0.5


def test_flip_mirrors_left_and_right():
    config = NOTHING.model_copy(update={"flip": 1.0})
    result = augment(pixels_of(), False, False, config, np.random.default_rng(0))
    np.testing.assert_array_equal(result, normalise(pixels_of())[:, :, ::-1])
    assert result.flags.c_contiguous


@pytest.mark.parametrize("infrared", [False, True])
def test_augmentation_follows_from_its_generator_and_leaves_its_input_as_it_was(infrared):
    pixels = pixels_of(gray=infrared)
    pixels.flags.writeable = False
    for seed in range(10):
        results = [augment(pixels, infrared, False, AugmentationConfig(), np.random.default_rng(seed)) for _ in "12"]
        np.testing.assert_array_equal(*results)


def test_the_gray_stage_turns_visible_pictures_gray():
    result = augment(pixels_of(), False, True, NOTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(result, normalise(to_gray(pixels_of())))


def test_infrared_is_either_jittered_or_blurred():
    pixels = pixels_of(gray=True)
    config = NOTHING.model_copy(update={"infrared_jitter": 0.3, "infrared_blur_sigma": (2.0, 2.0001)})
    blurred = normalise(gaussian_blur(pixels, 2.00005))
    results = [augment(pixels, True, False, config, np.random.default_rng(seed)) for seed in range(200)]
    # One grey level is 0.0175; the sigmas drawn differ too little for more than that.
    count = sum(np.abs(result - blurred).max() < 0.04 for result in results)
    assert abs(count - 100) < 36  # five standard deviations of a binomial


def test_jittered_infrared_is_as_often_brighter_as_darker():
    grey = np.full((24, 16, 3), 100, np.uint8)  # of one value, which neither a blur nor the contrast changes
    config = NOTHING.model_copy(update={"infrared_jitter": 0.3})
    results = [augment(grey, True, False, config, np.random.default_rng(seed)) for seed in range(200)]
    level = normalise(np.array([[[70] * 3, [100] * 3, [130] * 3]], np.uint8))[0, 0]
    means = np.array([result[0].mean() for result in results])
    assert means.min() == pytest.approx(level[0], abs=0.02 * (level[2] - level[0]))
    assert means.max() == pytest.approx(level[2], abs=0.02 * (level[2] - level[0]))


# channel augmentation


def image_of(seed: int = 0) -> np.ndarray:
    return normalise(pixels_of(seed))


def kinds(function, draws: int = 400) -> dict[str, int]:
    """How often each of the outcomes occurs."""
    image, counts = image_of(), {}
    outcomes = {f"channel {i}": np.repeat(image[i : i + 1], 3, axis=0) for i in range(3)}
    luma = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    outcomes |= {"luma": np.repeat(luma[None], 3, axis=0), "itself": image}
    for seed in range(draws):
        result = function(image.copy(), np.random.default_rng(seed))
        assert (result.shape, result.dtype) == (image.shape, np.float32)
        (kind,) = (name for name, outcome in outcomes.items() if np.allclose(result, outcome, rtol=0, atol=1e-6))
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def test_channel_exchange_takes_each_channel_equally_often():
    counts = kinds(channel_exchange)
    assert counts.keys() == {"channel 0", "channel 1", "channel 2"}
    # 400 draws of 1/3: mean 133, standard deviation 9.4.
    assert all(95 <= count <= 171 for count in counts.values())


def test_adaptive_gray_takes_channels_luma_or_the_picture_itself():
    counts = kinds(adaptive_gray)
    # Of 400 draws 100 of each channel, 50 of the others, standard deviations 8.7 and 6.6.
    assert all(65 <= counts[f"channel {i}"] <= 135 for i in range(3))
    assert all(23 <= counts[kind] <= 77 for kind in ("luma", "itself"))


@pytest.mark.parametrize("infrared", [False, True])
def test_each_modality_has_its_own_channel_augmentation_which_comes_last(infrared):
    config = AugmentationConfig(
        flip=0.0, infrared_jitter=0.0, erasing=1.0, visible_channel_exchange=1.0, infrared_adaptive_gray=True
    )
    pixels = pixels_of(gray=infrared)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rng.random()  # flip
        expected = random_erasing(normalise(pixels), config, rng)
        if not infrared:
            rng.random()  # whether to exchange channels
        expected = (adaptive_gray if infrared else channel_exchange)(expected, rng)
        result = augment(pixels, infrared, False, config, np.random.default_rng(seed))
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("infrared", [False, True])
def test_no_random_number_is_drawn_for_a_crop_or_channels_that_are_off(infrared):
    config = AugmentationConfig(infrared_jitter=0.0)
    used, expected = np.random.default_rng(3), np.random.default_rng(3)
    augment(pixels_of(gray=infrared), infrared, False, config, used)
    expected.random()  # flip
    random_erasing(image_of(), config, expected)
    assert used.random() == expected.random()

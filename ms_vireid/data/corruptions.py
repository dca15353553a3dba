"""The twenty corruptions of the ReID corruption benchmark, at five severities, in NumPy, SciPy and Pillow.

Types and severity constants are from "Benchmarking neural network robustness to common corruptions and
perturbations" (Hendrycks and Dietterich, ICLR 2019), `elastic` from its version for pictures of any size, and `rain`
from "Benchmarks for corruption invariant person re-identification" (Chen et al., NeurIPS 2021). Lengths in pixels are
as printed at 288x144, the size of the latter, and scale with the square root of the picture's area.

Every corruption takes float32 [3, H, W] in 0..1, a severity in 1..5 and a generator, and returns the same shape, not
yet clipped. Apart from the random numbers, only these differ from what is published:

* frost: ice is drawn (`_ice`) instead of cropped from five photographs; it has about the same mean and spread, but
  other shapes. With the user's photographs (`evaluation.frost`) it is cropped from these, as published.
* spatter, severities 1 to 3: drops are lit from the upper left instead of by edge detection, distance and embossing;
  they cover as much and look simpler.
* rain: drawn by the rules of the library that the benchmark calls; the blur is a box of the same width.
* snow: Pillow's linear filter enlarges the flakes; defocus: a pixel at the disc's rim is weighted by the part that the
  disc covers, without a Gaussian of half a pixel; zoom blur: views are rounded to 8 bits; glass blur: pixels are
  swapped in another order. None of these changes a picture's mean error by more than random draws do.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates

from ms_vireid.command.errors import InputError
from ms_vireid.data.pictures import read_pixels
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.validation import require_directory, walk

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_AREA = 288 * 144  # pixels: the size at which lengths in pixels are as published
FROST_SHARES = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # of the picture and of the ice
FROST_COLOUR = np.array([0.80, 0.90, 1.00], np.float32)
WATER_COLOUR = np.array([175, 238, 238], np.float32) / 255  # pale turquoise, as published
MUD_COLOUR = np.array([63, 42, 20], np.float32) / 255  # as published


def gaussian_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + deviation * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise of a sensor that counts `photons` photons for white."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(image * photons).astype(np.float32) / photons


def impulse_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper, in each channel separately."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    drawn = rng.random(image.shape, np.float32)
    return np.where(drawn < share, drawn < share / 2, image)


def speckle_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return image + image * deviation * rng.standard_normal(image.shape, np.float32)


def defocus_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A lens out of focus: convolution with a disc, whose rim pixels are weighted by the part that it covers."""
    radius = (3, 4, 6, 8, 10)[severity - 1] * _scale(image)
    steps = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disc = np.clip(radius + 0.5 - np.hypot(steps[:, None], steps), 0, 1)
    return _convolve(image, disc / disc.sum())


def glass_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Frosted glass: pixels swap places with neighbours (`_swapped_places`), between two Gaussian blurs."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    scale, size = _scale(image), image.shape[1:]
    places = np.arange(size[0] * size[1])
    for _ in range(rounds):
        places = places[_swapped_places(size, reach, scale, rng)]
    blurred = _blur(image, sigma * scale).reshape(3, -1)
    return _blur(blurred[:, places].reshape(image.shape), sigma * scale)


def motion_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    scale = _scale(image)
    return _convolve(image, _streak(radius * scale, sigma * scale, rng.uniform(-45, 45)))


def zoom_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the picture and of increasingly close views of its centre."""
    closest, step = ((1.11, 0.01), (1.15, 0.01), (1.2, 0.02), (1.24, 0.02), (1.3, 0.03))[severity - 1]
    picture, total = _picture(image), image.copy()
    zooms = np.arange(1, closest + step / 2, step)
    for zoom in zooms:
        width, height = picture.size
        left, top = (width - width / zoom) / 2, (height - height / zoom) / 2
        view = picture.resize(picture.size, Image.Resampling.BILINEAR, (left, top, width - left, height - top))
        total += _planes(view)
    return total / (len(zooms) + 1)


def gaussian_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return _blur(image, (1, 2, 3, 4, 6)[severity - 1] * _scale(image))


def snow(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    mean, deviation, zoom, threshold, radius, sigma, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    flakes = mean + deviation * _noise(_reference_size(image), zoom, rng)
    flakes = np.where(flakes < threshold, 0, flakes.clip(0, 1))
    flakes = _fitted(_convolve(flakes, _streak(radius, sigma, rng.uniform(-135, -45))), image)
    gray = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image, 1)
    whitened = share * image + (1 - share) * np.maximum(image, 1.5 * gray + 0.5)
    return whitened + flakes + flakes[::-1, ::-1]


def frost(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Ice on the lens, drawn (`_ice`)."""
    picture_share, ice_share = FROST_SHARES[severity - 1]
    ice = _fitted(_ice(_reference_size(image), rng), image)
    return picture_share * image + ice_share * FROST_COLOUR[:, None, None] * ice


def photographed_frost(
    image: np.ndarray, severity: int, rng: np.random.Generator, photographs: Sequence[np.ndarray]
) -> np.ndarray:
    """Add a crop of a photograph, uint8 [H, W, 3]. As published, the photograph is enlarged to the picture's size if it
    is smaller, and then by a tenth."""
    picture_share, ice_share = FROST_SHARES[severity - 1]
    chosen = photographs[rng.integers(len(photographs))]
    height, width = size = _reference_size(image)
    factor = 1.1 * max(1.0, height / chosen.shape[0], width / chosen.shape[1])
    rows, columns = (math.ceil(factor * n) for n in chosen.shape[:2])
    top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
    across, down = chosen.shape[1] / columns, chosen.shape[0] / rows  # pixels of the photograph per pixel of the crop
    window = (left * across, top * down, (left + width) * across, (top + height) * down)
    crop = Image.fromarray(chosen).resize(size[::-1], Image.Resampling.BICUBIC, window)
    return picture_share * image + ice_share * _planes(crop.resize(image.shape[:0:-1]))


def fog(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add fractal noise, then darken the result to the picture's original maximum."""
    density, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    size = _reference_size(image)
    mist = _fitted(_plasma(2 ** (max(size) - 1).bit_length(), decay, rng)[: size[0], : size[1]], image)
    brightest = image.max()
    return (image + density * mist) * (brightest / (brightest + density))


def rain(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Drizzle, heavy rain (severities 2 and 3) or a torrent (4 and 5): slanted lines, then a blur and less light."""
    area_of_drop, length = ((770, 10), (600, 30), (600, 30), (500, 60), (500, 60))[severity - 1]
    height, width = size = _reference_size(image)
    slant = round(rng.uniform(-10, 10))  # horizontal pixels over a drop's length
    count = height * width // area_of_drop
    down = np.arange(length + 1)
    right = np.rint(slant * down / length).astype(int)
    rows = rng.integers(0, max(1, height - length), (count, 1)) + down
    columns = rng.integers(min(-slant, 0), width - min(slant, 0), (count, 1)) + right
    inside = (rows < height) & (columns >= 0) & (columns < width)
    drops = np.zeros(size, np.float32)
    drops[rows[inside], columns[inside]] = 1
    wet = image + _fitted(drops, image) * (200 / 255 - image)
    box = (2 + severity) * _scale(image)  # pixels
    blurred = _picture(wet).filter(ImageFilter.BoxBlur(max(0, (box - 1) / 2)))
    return _planes(blurred) - (0.05 + 0.05 * severity)


def spatter(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Drops of water (severities 1 to 3), lit from the upper left, or mud where smoothed noise exceeds a threshold."""
    mean, deviation, sigma, threshold, amount = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[severity - 1]
    liquid = _blur(mean + deviation * rng.standard_normal(_reference_size(image), np.float32), sigma)
    if severity <= 3:
        thickness = np.maximum(liquid - threshold, 0)
        thickness /= max(thickness.max(), 1e-6)
        slope = thickness - np.pad(thickness, ((1, 0), (1, 0)), mode="edge")[:-1, :-1]  # rising away from the light
        water = amount * np.sqrt(thickness) * np.clip(0.6 + 0.4 * slope / max(np.abs(slope).max(), 1e-6), 0, 1)
        return image + WATER_COLOUR[:, None, None] * _fitted(water, image)
    mud = _blur((liquid > threshold).astype(np.float32), amount)
    mud = _fitted(np.where(mud < 0.8, 0, mud), image)
    return image * (1 - mud) + MUD_COLOUR[:, None, None] * mud


def brightness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Raise V of HSV: multiply all channels by the same factor; black becomes gray."""
    value = image.max(axis=0)
    raised = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    return np.where(value > 0, image * (raised / np.maximum(value, 1e-6)), raised)


def contrast(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean(axis=(1, 2), keepdims=True)
    return mean + (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] * (image - mean)


def saturate(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Change S of HSV: less colour at severities 1 and 2, more at 3 to 5. An inherited quirk: gray has hue 0, which is
    red, so the constant added at severities 4 and 5 makes it reddish."""
    factor, offset = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    value = image.max(axis=0)
    chroma = value - image.min(axis=0)
    red = np.array([0, 1, 1], np.float32)[:, None, None]
    missing = np.where(chroma > 0, (value - image) / np.maximum(chroma, 1e-6), red)  # 1 where a channel is lowest
    saturation = np.clip(factor * chroma / np.maximum(value, 1e-6) + offset, 0, 1)
    return value * (1 - saturation * missing)


def elastic(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Move every pixel by a few hundredths of the height; the picture is mirrored at its borders."""
    strength = (12.5, 16.25, 21.25, 25, 30)[severity - 1]
    height, width = size = _reference_size(image)
    drawn = rng.uniform(-0.005 * height, 0.005 * height, (2, *size))
    smoothed = gaussian_filter(drawn, (0, 0.01 * height, 0.01 * width), mode="reflect", truncate=3)
    places = np.indices(image.shape[1:], np.float32)
    places += [strength * _scale(image) * _fitted(shift, image) for shift in smoothed]
    return np.stack([map_coordinates(plane, places, order=1, mode="reflect") for plane in image])


def pixelate(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture = _picture(image)
    small = picture.resize([max(1, int(share * n)) for n in picture.size], Image.Resampling.BOX)
    return _planes(small.resize(picture.size, Image.Resampling.NEAREST))


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    with Image.open(file) as picture:
        return _planes(picture)


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, speckle_noise,
        defocus_blur, glass_blur, motion_blur, zoom_blur, gaussian_blur,
        snow, frost, fog, rain, spatter,
        brightness, contrast, saturate,
        elastic, pixelate, jpeg,
    )
}  # fmt: skip


def corrupt(
    pixels: np.ndarray, name: str, severity: int, rng: np.random.Generator, photographs: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Corrupt a picture, uint8 [H, W, 3] of any size. photographs: of frost, in the same form; without any it is drawn.

    Values are truncated to integers, as published, after adding 0.001 against float32's rounding errors.
    """
    if name == "frost" and photographs:
        image = photographed_frost(_planes(pixels), severity, rng, photographs)
    else:
        image = CORRUPTIONS[name](_planes(pixels), severity, rng)
    return np.ascontiguousarray((image.clip(0, 1) * 255 + 1e-3).astype(np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True, eq=False)
class CorruptedVersion:
    """A corrupted version of a set of pictures. A picture's number decides type and severity, all equally likely."""

    seed: int
    numbers: np.ndarray  # int [N], in any order
    photographs: tuple[np.ndarray, ...] = ()

    def apply(self, pixels: np.ndarray, position: int) -> np.ndarray:
        """Corrupt the picture at this position of the set, uint8 [H, W, 3]."""
        rng = counter_generator("corruption", self.seed, 0, int(self.numbers[position]))
        name = list(CORRUPTIONS)[rng.integers(len(CORRUPTIONS))]
        return corrupt(pixels, name, int(rng.integers(1, len(SEVERITIES) + 1)), rng, self.photographs)


def read_photographs(folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read the pictures below a folder, if one is given, uint8 [H, W, 3]; raises InputError if it has none, or a broken
    one."""
    if folder is None:
        return ()
    remedy = "evaluation.frost is a folder of photographs of frost; leave it out to have frost drawn"
    require_directory(folder, remedy)
    if not (paths := walk(folder)):
        raise InputError(f"{folder}: holds no picture; {remedy}")
    return tuple(read_pixels(folder / path) for path in paths)


def corruption_sheet(
    pixels: np.ndarray, rng: np.random.Generator, photographs: Sequence[np.ndarray] = ()
) -> Image.Image:
    """Draw every corruption of a picture, uint8 [H, W, 3]: a column for each type, a row for each severity."""
    margin, line = 4, 12  # pixels
    label = ImageDraw.Draw(Image.new("L", (1, 1))).textlength
    height, width = pixels.shape[0] + margin, max(pixels.shape[1], *map(math.ceil, map(label, CORRUPTIONS))) + margin
    sheet = Image.new("RGB", (line + len(CORRUPTIONS) * width, line + len(SEVERITIES) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(CORRUPTIONS):
        draw.text((line + column * width, 0), name, "black")
    for row, severity in enumerate(SEVERITIES):
        draw.text((margin, line + row * height), str(severity), "black")
        for column, name in enumerate(CORRUPTIONS):
            corrupted = Image.fromarray(corrupt(pixels, name, severity, rng, photographs))
            sheet.paste(corrupted, (line + column * width, line + row * height))
    return sheet


def _planes(pixels: np.ndarray | Image.Image) -> np.ndarray:
    """Convert uint8 [H, W, 3] to float32 [3, H, W] in 0..1."""
    return np.multiply(np.asarray(pixels).transpose(2, 0, 1), np.float32(1 / 255), order="C")


def _picture(image: np.ndarray) -> Image.Image:
    """Clip float [3, H, W] to 0..1 and round it to a picture of 8 bits."""
    return Image.fromarray(np.ascontiguousarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)))


def _scale(image: np.ndarray) -> float:
    """Return the length in this picture of one pixel at the reference size."""
    return math.sqrt(image[0].size / REFERENCE_AREA)


def _reference_size(image: np.ndarray) -> tuple[int, int]:
    """Return the picture's shape scaled to the reference area, at which ice, drops and the like are drawn."""
    scale = _scale(image)
    return max(2, round(image.shape[1] / scale)), max(2, round(image.shape[2] / scale))


def _fitted(layer: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Resize float [H', W'] to the picture's size."""
    layer = Image.fromarray(layer.astype(np.float32, copy=False))
    return np.asarray(layer.resize(image.shape[:0:-1], Image.Resampling.BILINEAR))


def _convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve [..., H, W] with [2a + 1, 2b + 1], repeating border pixels. An FFT's time does not depend on the kernel,
    and SciPy's own convolution takes half a second to import."""
    above, left = (n // 2 for n in kernel.shape)
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(above, above), (left, left)], mode="edge")
    size = [-(-n // 16) * 16 for n in padded.shape[-2:]]  # lengths for which an FFT is fast
    result = np.fft.irfft2(np.fft.rfft2(padded, size) * np.fft.rfft2(kernel, size), size)
    rows, columns = (slice(2 * n, length) for n, length in zip((above, left), padded.shape[-2:], strict=True))
    return result[..., rows, columns].astype(np.float32)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(image, sigma, mode="nearest", axes=(-2, -1))


def _swapped_places(size: tuple[int, int], reach: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Swap every pixel with a neighbour; returns the index of the pixel at each place, int [H * W].

    As published, the neighbour is -reach to reach - 1 rows and columns away, here times `scale`. The published loop
    swaps one pixel at a time. Pixels that are 2 * reach + 1 apart cannot share a neighbour, so here they are swapped
    together.
    """
    height, width = size
    offsets = scale * rng.integers(-reach, reach, (2, *size))
    offsets = np.floor(offsets + rng.random(offsets.shape)).astype(int)  # whole pixels, right on average
    rows = (offsets[0] + np.arange(height)[:, None]).clip(0, height - 1)
    columns = (offsets[1] + np.arange(width)).clip(0, width - 1)
    places, others = np.arange(height * width).reshape(size), rows * width + columns
    order, spacing = np.arange(height * width), 2 * math.ceil(reach * scale) + 1
    for turn in reversed(range(spacing**2)):
        lattice = np.s_[turn // spacing :: spacing, turn % spacing :: spacing]
        first, second = places[lattice], others[lattice]
        order[first], order[second] = order[second], order[first]
    return order


def _streak(radius: float, sigma: float, angle: float) -> np.ndarray:
    """Make a kernel of sum 1: a fading line of 2 * radius pixels from its centre. angle: degrees, counter-clockwise."""
    length = round(2 * radius)
    steps = np.arange(length + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    up, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    kernel = np.zeros((2 * length + 1, 2 * length + 1))
    places = length + np.rint(np.outer((-up, right), steps)).astype(int)
    np.add.at(kernel, tuple(places), weights / weights.sum())
    return kernel


def _noise(size: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 [H, W]: normal noise with a value every `cell` pixels, interpolated linearly."""
    height, width = (n / cell for n in size)
    grid = Image.fromarray(rng.standard_normal((math.ceil(height), math.ceil(width)), np.float32))
    return np.asarray(grid.resize(size[::-1], Image.Resampling.BILINEAR, (0, 0, width, height)))


def _plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 [side, side] in 0..1, the published fractal: midpoint displacement that wraps around. side: a power
    of two.

    Starting from four corners, each point between four known ones is their mean plus a uniform random number, whose
    range shrinks by the square of `decay` each time the grid is halved.
    """
    height = np.zeros((side, side))
    step, spread = side, 1.0
    while step >= 2:
        half = step // 2
        corners = height[::step, ::step]
        across = corners + np.roll(corners, -1, axis=1)
        down = corners + np.roll(corners, -1, axis=0)
        middles = (across + np.roll(across, -1, axis=0)) / 4
        middles += rng.uniform(-spread, spread, corners.shape)
        height[half::step, half::step] = middles
        # Points on the grid's lines lie between two corners and the centres of two adjacent squares.
        height[::step, half::step] = (across + middles + np.roll(middles, 1, axis=0)) / 4
        height[half::step, ::step] = (down + middles + np.roll(middles, 1, axis=1)) / 4
        height[::step, half::step] += rng.uniform(-spread, spread, corners.shape)
        height[half::step, ::step] += rng.uniform(-spread, spread, corners.shape)
        step, spread = half, spread / decay**2
    height -= height.min()
    return (height / height.max()).astype(np.float32)


def _ice(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw float32 [H, W] in 0..1: ice crystals, whose needles reach from their centres to the next crystal. Each
    crystal is a table of noise by distance and direction; the needles are the ridges where the noise crosses its mean.
    """
    crystals, rings, spokes = 12, 12, 48
    wavy = [4 * _noise(size, 24, rng) for _ in size]
    rows, columns = (axis + shift for axis, shift in zip(np.indices(size, np.float32), wavy, strict=True))
    middles = (rng.uniform(-0.1, 1.1, (2, crystals, 1, 1)) * np.reshape(size, (2, 1, 1, 1))).astype(np.float32)
    nearest = np.hypot(rows - middles[0], columns - middles[1]).argmin(axis=0)
    down, right = rows - middles[0, nearest, 0, 0], columns - middles[1, nearest, 0, 0]
    ring = np.minimum(2 * np.log2(1 + np.hypot(down, right) / 6), rings - 1)
    spoke = (np.arctan2(down, right) / math.tau + 0.5) * spokes
    table = rng.random((crystals * rings, spokes + 1), np.float32)
    table[:, -1] = table[:, 0]
    values = map_coordinates(table, (nearest * rings + ring, spoke), order=1, mode="nearest")
    ridges = 1 - np.abs(2 * values - 1)
    octaves = range(1, int(math.log2(max(size))) + 1)  # noise of halving grid widths, each weaker than the last
    clouds = sum(1.8**-octave * _noise(size, max(size) / 2**octave, rng) for octave in octaves)
    clouds = (clouds - clouds.min()) / max(np.ptp(clouds), 1e-6)
    ice = 0.15 + clouds * (0.4 + 0.9 * ridges**2) + 0.06 * _noise(size, 1.5, rng)
    return ice.clip(0, 1)

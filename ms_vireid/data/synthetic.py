"""Procedural people in SYSU-MM01's layout on disk, for demonstrations and tests without a licensed data set.

A figure is drawn once, as a map of *inks* (which material lies at each pixel). The visible picture looks an ink up by
its colour, the infrared one by its material's reflectance, and the two are drawn independently of each other. So an
identity can be found across modalities by body shape, garments, patterns and carried things, and not by brightness.

Lengths are in figure heights (the figure's, not the picture's) unless a docstring says otherwise.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ms_vireid.errors import InputError

IDENTITY, CAMERA, SCENE, PICTURE = range(4)  # the random streams of a seed
VERSION = 2  # of the pictures: raise it whenever the same parameters no longer give the same files
MARKER = "synthetic.json"
CAMERAS = (1, 2, 3, 4, 5, 6)
INFRARED_CAMERAS = (3, 6)
OUTDOOR_CAMERAS = (4, 5, 6)
PLACES = {3: 2}  # camera 3 stands in camera 2's room, as in SYSU-MM01; every other camera has a place of its own
SUPERSAMPLING = 2
JPEG_QUALITY = 92
OUTLINE = 160  # light of 255 that reaches a shadow
INFRARED_GLOW = 0.2  # share of the light that spreads around bright surfaces

COLOURS = (
    (232, 232, 228), (196, 190, 176), (128, 130, 134), (86, 88, 94), (44, 44, 48), (188, 40, 44), (128, 44, 54),
    (226, 126, 44), (232, 200, 70), (72, 140, 64), (50, 88, 66), (58, 164, 176), (54, 96, 190), (44, 54, 108),
    (122, 70, 156), (226, 138, 168), (128, 92, 64), (158, 196, 226),
)  # fmt: skip
MATERIALS = {"leather": 0.24, "nylon": 0.38, "denim": 0.52, "wool": 0.66, "cotton": 0.80, "polyester": 0.94}
SKIN_COLOURS = ((240, 206, 182), (222, 178, 146), (186, 136, 102), (134, 92, 66), (92, 62, 46))
HAIR_COLOURS = ((24, 20, 20), (58, 40, 30), (104, 70, 44), (176, 140, 88), (150, 148, 146))
SKIN_REFLECTANCE = 0.70
HAIR_REFLECTANCES = (0.28, 0.44)
VANISHING_PATTERNS = 0.15  # share of patterns printed with a dye that infrared does not see
MIN_INK_CONTRAST = 0.28  # between a pattern's two inks, in luma (of 1) and in reflectance, unless the pattern vanishes


# --- what a person is -------------------------------------------------------------------------------------------------


class Part(IntEnum):
    """Values of the ink map. A garment's accent follows its base: a pattern adds one where it applies."""

    BACKGROUND, SKIN, HAIR, UPPER, UPPER_ACCENT, LOWER, LOWER_ACCENT, SHOES, BAG, BAG_ACCENT, HAT, SCARF = range(12)


@dataclass(frozen=True)
class Ink:
    """How one material looks: colour in 0..255 RGB to visible cameras, reflectance in 0..1 to infrared ones."""

    colour: tuple[int, int, int]
    reflectance: float

    def value(self, infrared: bool) -> int | tuple[int, int, int]:
        return round(255 * self.reflectance) if infrared else self.colour


NOTHING = Ink((0, 0, 0), 0.0)


@dataclass(frozen=True)
class Body:
    height: float  # in picture heights
    shoulders: float  # half widths
    hips: float
    legs: float  # from the ground to the waist
    head: float  # radius
    limbs: float  # thickness of a sleeve
    hair: str

    @property
    def chin(self) -> float:
        return 1 - 2.1 * self.head

    @property
    def shoulder(self) -> float:
        """The height of the shoulder line."""
        return self.chin - 0.035


@dataclass(frozen=True)
class Pattern:
    name: str
    period: float

    def covers(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Where the accent lies, bool. u runs across the body from its centre line, v down from the garment's top."""
        return PATTERNS[self.name](u, v, self.period)


@dataclass(frozen=True)
class Upper:
    length: float  # how far it hangs below the waist
    sleeves: float  # share of the arm that is covered
    pattern: Pattern


@dataclass(frozen=True)
class Lower:
    cut: str  # "trousers" or "skirt"
    length: float  # share of the leg that is covered
    pattern: Pattern


@dataclass(frozen=True)
class Identity:
    body: Body
    upper: Upper
    lower: Lower
    bag: str
    hat: str
    scarf: bool
    inks: dict[Part, Ink]


@dataclass(frozen=True)
class Pose:
    """What changes from picture to picture. x, ground: the figure's foot point in picture heights."""

    x: float
    ground: float
    scale: float
    lean: float  # sideways shift per height
    mirror: int  # 1 or -1
    turn: float  # 0 seen from the front or back, 1 from the side
    stride: float  # how far the feet are from under the hips, signed
    back: bool


@dataclass(frozen=True)
class Camera:
    """light: float32 [H, W, C], C = 3 for visible and 1 for infrared. tone: uint8 [256], its gamma curve."""

    number: int
    light: np.ndarray
    tone: np.ndarray
    blur: float  # radius in picture heights
    noise: float  # standard deviation in 0..255
    scene: Image.Image  # larger than a picture: each picture shows another part of it

    @property
    def infrared(self) -> bool:
        return self.number in INFRARED_CAMERAS


PATTERNS: dict[str, Callable] = {
    "plain": lambda u, v, p: np.zeros_like(u, bool),
    "hoops": lambda u, v, p: v % p < p / 2,
    "stripes": lambda u, v, p: (u + p / 4) % p < p / 2,
    "diagonal": lambda u, v, p: (0.7 * (u + v)) % p < p / 2,
    "checks": lambda u, v, p: ((u + p / 4) % p < p / 2) ^ (v % p < p / 2),
    "dots": lambda u, v, p: ((u + p / 2) % p - p / 2) ** 2 + (v % p - p / 2) ** 2 < (0.33 * p) ** 2,
    "logo": lambda u, v, p: (abs(u) < 0.6 * p) & (abs(v - 0.12) < 0.5 * p),
    "badge": lambda u, v, p: (u - 0.05) ** 2 + (v - 0.09) ** 2 < (0.45 * p) ** 2,
    "band": lambda u, v, p: abs(v - 0.14) < 0.45 * p,
    "zip": lambda u, v, p: abs(u) < 0.2 * p,
    "yoke": lambda u, v, p: v < 1.2 * p,
    "halves": lambda u, v, p: u > 0,
    "sash": lambda u, v, p: abs(u + v - 0.14) < 0.4 * p,
    "side stripe": lambda u, v, p: abs(abs(u) - 0.09) < 0.2 * p,
}
# what an identity is drawn from; an entry that comes twice is twice as likely
UPPER_PATTERNS = tuple(name for name in PATTERNS if name != "side stripe")
LOWER_PATTERNS = ("plain", "plain", "plain", "hoops", "stripes", "checks", "dots", "side stripe", "halves", "yoke")
PERIODS = (0.07, 0.10, 0.15)
HAIRS = ("bald", "short", "long", "bun", "curly", "ponytail")
BAGS = ("none", "none", "backpack", "handbag", "shoulder bag", "suitcase")
HATS = ("none", "none", "none", "beanie", "cap", "brim")
UPPER_LENGTHS = (-0.02, 0.04, 0.12, 0.24)
SLEEVES = (0.0, 0.45, 0.92, 0.92)
TROUSERS = (("trousers", 0.96), ("trousers", 0.96), ("trousers", 0.68), ("trousers", 0.42))
SKIRTS = (("skirt", 0.5), ("skirt", 0.8))


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def draw_identity(seed: int, number: int) -> Identity:
    """The person with this number, the same for every picture."""
    rng = np.random.default_rng((seed, IDENTITY, number))
    body = Body(
        height=_pick(rng, (0.78, 0.84, 0.90)),
        shoulders=_pick(rng, (0.085, 0.110, 0.135)),
        hips=_pick(rng, (0.065, 0.090, 0.115)),
        legs=_pick(rng, (0.44, 0.49, 0.54)),
        head=_pick(rng, (0.060, 0.068, 0.076)),
        limbs=_pick(rng, (0.052, 0.066, 0.080)),
        hair=_pick(rng, HAIRS),
    )
    upper_pattern = Pattern(_pick(rng, UPPER_PATTERNS), _pick(rng, PERIODS))
    lower_pattern = Pattern(_pick(rng, LOWER_PATTERNS), _pick(rng, PERIODS))
    upper = Upper(_pick(rng, UPPER_LENGTHS), _pick(rng, SLEEVES), upper_pattern)
    lower = Lower(*_pick(rng, TROUSERS + SKIRTS), lower_pattern)
    bag, hat, scarf = _pick(rng, BAGS), _pick(rng, HATS), rng.random() < 0.2
    inks = {
        Part.SKIN: Ink(_pick(rng, SKIN_COLOURS), SKIN_REFLECTANCE),
        Part.HAIR: Ink(_pick(rng, HAIR_COLOURS), _pick(rng, HAIR_REFLECTANCES)),
        **{part: _draw_inks(rng)[0] for part in (Part.SHOES, Part.HAT, Part.SCARF)},
    }
    for base in (Part.UPPER, Part.LOWER, Part.BAG):
        inks[base], inks[Part(base + 1)] = _draw_inks(rng)
    return Identity(body, upper, lower, bag, hat, scarf, inks)


def _draw_inks(rng: np.random.Generator) -> tuple[Ink, Ink]:
    """A garment's base and accent: apart in luma, and apart in reflectance unless the pattern vanishes in infrared."""
    base = Ink(_pick(rng, COLOURS), _pick(rng, tuple(MATERIALS.values())))
    colours = [c for c in COLOURS if abs(_luma(c) - _luma(base.colour)) >= MIN_INK_CONTRAST]
    reflectances = [r for r in MATERIALS.values() if abs(r - base.reflectance) >= MIN_INK_CONTRAST]
    vanishes = rng.random() < VANISHING_PATTERNS
    return base, Ink(_pick(rng, colours), base.reflectance if vanishes else _pick(rng, reflectances))


def _luma(colour: tuple[int, int, int]) -> float:
    return float(np.dot(colour, (0.299, 0.587, 0.114))) / 255


def draw_pose(rng: np.random.Generator, aspect: float) -> Pose:
    """aspect: picture width / height."""
    turn = rng.uniform(0, 0.7)
    return Pose(
        x=aspect / 2 + rng.uniform(-0.02, 0.02),
        ground=rng.uniform(0.95, 0.975),
        scale=rng.uniform(0.97, 1.02),
        lean=rng.uniform(-0.025, 0.025),
        mirror=_pick(rng, (1, -1)),
        turn=turn,
        stride=rng.uniform(-1, 1) * (0.02 + 0.08 * turn),
        back=rng.random() < 0.25,
    )


# --- drawing a person -------------------------------------------------------------------------------------------------


class Figure:
    """Two layers of [H, W] pixels: which ink lies there, and how much of the light reaches it.

    Drawn in figure coordinates: x runs sideways from the body's centre line, y upwards from the ground.
    """

    def __init__(self, size: tuple[int, int], pose: Pose, height: float):
        self.pose, self.size = pose, size
        self.unit = height * pose.scale * size[0]  # pixels in a figure height
        self.ink = Image.new("L", size[::-1], Part.BACKGROUND)
        self.shade = Image.new("L", size[::-1], 255)
        self._ink, self._shade = ImageDraw.Draw(self.ink), ImageDraw.Draw(self.shade)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        pose, height = self.pose, self.size[0]
        return pose.x * height + (pose.mirror * x + pose.lean * y) * self.unit, pose.ground * height - y * self.unit

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """x float32 [H, W] and y float32 [H, 1] of every pixel."""
        rows, columns = (np.arange(n, dtype=np.float32) for n in self.size)
        y = (self.pose.ground * self.size[0] - rows[:, None]) / self.unit
        x = (columns - self.pose.x * self.size[0]) / self.unit - self.pose.lean * y
        return self.pose.mirror * x, y

    def limb(self, path: list, width: float, part: Part, shade: int = 255, outline: float = 0.0) -> None:
        """A band along a path; an outline of shadow sets it off from what lies behind."""
        pixels, width = [self._pixel(*point) for point in path], max(1, round(width * self.unit))
        if outline:
            _draw_band(self._shade, pixels, width + 2 * max(1, round(outline * self.unit)), OUTLINE)
        _draw_band(self._ink, pixels, width, part)
        _draw_band(self._shade, pixels, width, shade)

    def polygon(self, points: list, part: Part) -> None:
        pixels = [self._pixel(*point) for point in points]
        self._ink.polygon(pixels, part)
        self._shade.polygon(pixels, 255)

    def column(self, part: Part, *levels: tuple[float, float]) -> None:
        """A shape symmetric about the centre line, through (y, half width) levels."""
        self.polygon([(-w, y) for y, w in levels] + [(w, y) for y, w in reversed(levels)], part)

    def box(self, part: Part, x: float, y: float, width: float, height: float) -> None:
        """A rectangle centred on (x, y)."""
        left, right, low, high = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        self.polygon([(left, low), (left, high), (right, high), (right, low)], part)

    def disc(self, part: Part, x: float, y: float, width: float, height: float, start: int = 0) -> None:
        """An ellipse centred on (x, y); start = 180 draws its upper half only."""
        (cx, cy), rx, ry = self._pixel(x, y), width * self.unit / 2, height * self.unit / 2
        for layer, value in ((self._ink, part), (self._shade, 255)):
            layer.chord((cx - rx, cy - ry, cx + rx, cy + ry), start, 360, value)

    def ground_shadow(self) -> None:
        (cx, cy), unit = self._pixel(0, 0), self.unit
        self._shade.ellipse((cx - 0.2 * unit, cy - 0.03 * unit, cx + 0.2 * unit, cy + 0.02 * unit), OUTLINE)


def _draw_band(layer: ImageDraw.ImageDraw, pixels: list, width: int, value: int) -> None:
    """A line with rounded joints; `ImageDraw.line(joint="curve")` would do, at three times the cost."""
    layer.line(pixels, value, width)
    for x, y in pixels[1:-1]:
        layer.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), value)


def draw_person(identity: Identity, pose: Pose, size: tuple[int, int]) -> tuple[np.ndarray, Image.Image]:
    """The ink map (values of `Part`), uint8 [H, W] of `size`, and a picture ("L") of how much light reaches where."""
    body = identity.body
    figure = Figure(size, pose, body.height)
    figure.ground_shadow()
    if identity.bag == "backpack" and not pose.back:
        _draw_backpack(figure, body)
    _draw_arm(figure, identity, side=-1)
    _draw_legs(figure, identity)
    _draw_top(figure, identity)
    _draw_head(figure, identity)
    _draw_bag(figure, identity)
    _draw_arm(figure, identity, side=1)
    ink = np.array(figure.ink)
    x, y = figure.coordinates()
    ink += (ink == Part.UPPER) & identity.upper.pattern.covers(x, body.shoulder - y)
    ink += (ink == Part.LOWER) & identity.lower.pattern.covers(x, body.legs - y)
    return ink, figure.shade


def _narrow(pose: Pose) -> float:
    """How wide the body is seen, of 1: a person seen from the side is narrower."""
    return 1 - 0.25 * pose.turn


def _draw_arm(figure: Figure, identity: Identity, side: int) -> None:
    """side: 1 is the arm nearer to the camera, -1 the farther one."""
    body, swing = identity.body, -side * figure.pose.stride
    x, y = side * (body.shoulders * _narrow(figure.pose) - 0.35 * body.limbs), body.shoulder - 0.3 * body.limbs
    path = [(x, y), (x + side * 0.03 + 0.4 * swing, y - 0.17), (x + side * 0.02 + swing, y - 0.34)]
    shade, outline = (255, 0.012) if side > 0 else (200, 0.0)
    figure.limb(path, 0.7 * body.limbs, Part.SKIN, shade, outline)
    if identity.upper.sleeves:
        figure.limb(_first(path, identity.upper.sleeves), body.limbs, Part.UPPER, shade, outline)


def _draw_legs(figure: Figure, identity: Identity) -> None:
    body, lower, pose = identity.body, identity.lower, figure.pose
    for side in (-1, 1):
        x, stride = side * 0.55 * body.hips * _narrow(pose), side * pose.stride
        path = [(x, body.legs - 0.02), (x + 0.4 * stride + 0.02 * pose.turn, 0.5 * body.legs), (x + stride, 0.03)]
        shade, outline = (255, 0.008) if side > 0 else (195, 0.0)
        figure.limb(path, 0.9 * body.limbs, Part.SKIN, shade)
        if lower.cut == "trousers":
            figure.limb(_first(path, lower.length), 0.03 + 0.75 * body.hips, Part.LOWER, shade, outline)
        toe = x + stride + 0.02 * side + 0.035 * pose.turn
        figure.limb([(x + stride - 0.01, 0.022), (toe, 0.018)], 0.042, Part.SHOES, shade)
    hips = body.hips * _narrow(pose)
    figure.column(Part.LOWER, (body.legs + 0.03, 0.95 * hips), (body.legs - 0.07, 1.1 * hips))
    if lower.cut == "skirt":
        hem = body.legs * (1 - lower.length)
        figure.column(Part.LOWER, (body.legs, hips), (hem, 1.25 * hips + 0.12 * lower.length + 0.3 * abs(pose.stride)))


def _draw_top(figure: Figure, identity: Identity) -> None:
    body, narrow = identity.body, _narrow(figure.pose)
    shoulders, hips, y = body.shoulders * narrow, body.hips * narrow, body.shoulder
    figure.limb([(0, body.chin + 0.02), (0, y - 0.01)], 0.9 * body.head, Part.SKIN)
    figure.column(
        Part.UPPER,
        (y + 0.015, 0.5 * body.head),
        (y - 0.005, 0.85 * shoulders),
        (y - 0.04, shoulders),
        (body.legs + 0.08, 0.5 * (shoulders + hips)),
        (body.legs - identity.upper.length, 1.1 * hips + 0.15 * max(0.0, identity.upper.length)),
    )


def _draw_head(figure: Figure, identity: Identity) -> None:
    body, back = identity.body, figure.pose.back
    r, chin = body.head, body.chin
    y = chin + r  # of the head's middle
    covered = Part.HAIR if back and body.hair != "bald" else Part.SKIN
    if body.hair == "curly":
        figure.disc(Part.HAIR, 0, y + 0.25 * r, 2.8 * r, 2.6 * r)
    elif body.hair == "long":
        figure.column(Part.HAIR, (y + 0.6 * r, 0.9 * r), (y, 1.15 * r), (body.shoulder - 0.05, 1.3 * r))
    elif body.hair == "bun":
        figure.disc(Part.HAIR, 0, y + 1.3 * r, 1.1 * r, 1.0 * r)
    elif body.hair == "ponytail":
        tail = [(-0.6 * r, y + 0.7 * r), (-1.25 * r, y + 0.3 * r), (-1.35 * r, body.shoulder)]
        figure.limb(tail, 0.55 * r, Part.HAIR)
    figure.disc(covered, 0, y, 1.7 * r, 2.1 * r)
    if body.hair != "bald":
        figure.disc(Part.HAIR, 0, y + 0.3 * r, 1.9 * r, 1.7 * r, start=180)
    if identity.hat != "none":
        figure.disc(Part.HAT, 0, y + 0.35 * r, 2.1 * r, (2.6 if identity.hat == "beanie" else 1.9) * r, start=180)
    if identity.hat == "cap":
        figure.limb([(0, y + 0.4 * r), (1.8 * r, y + 0.3 * r)], 0.35 * r, Part.HAT)
    elif identity.hat == "brim":
        figure.disc(Part.HAT, 0, y + 0.45 * r, 4.0 * r, 0.6 * r)
    if identity.scarf:
        figure.limb([(-1.0 * r, chin - 0.015), (1.0 * r, chin - 0.015)], 0.055, Part.SCARF, outline=0.006)
        figure.limb([(0.5 * r, chin - 0.02), (0.6 * r, chin - 0.19)], 0.05, Part.SCARF, outline=0.006)


def _draw_backpack(figure: Figure, body: Body) -> None:
    """The pack itself: in front of the body where its back is seen, otherwise looking out behind it."""
    y = body.shoulder - 0.13
    figure.box(Part.BAG, -0.05 * figure.pose.turn, y, 1.5 * body.shoulders + 0.06, 0.27)
    figure.box(Part.BAG_ACCENT, -0.05 * figure.pose.turn, y - 0.06, body.shoulders + 0.04, 0.09)


def _draw_bag(figure: Figure, identity: Identity) -> None:
    body, bag = identity.body, identity.bag
    shoulders, top = body.shoulders * _narrow(figure.pose), body.shoulder
    side = body.shoulders + 0.035
    if bag == "backpack" and figure.pose.back:
        _draw_backpack(figure, body)
    elif bag == "backpack":
        for x in (-0.6 * shoulders, 0.6 * shoulders):
            figure.limb([(x, top), (x, top - 0.2)], 0.032, Part.BAG)
    elif bag == "shoulder bag":
        figure.limb([(-0.7 * shoulders, top), (side, body.legs + 0.02)], 0.026, Part.BAG, outline=0.006)
        figure.box(Part.BAG, side, body.legs - 0.03, 0.13, 0.13)
        figure.box(Part.BAG_ACCENT, side, body.legs, 0.13, 0.04)
    elif bag == "handbag":
        figure.limb([(-side - 0.04, 0.46), (-side - 0.01, 0.5), (-side + 0.03, 0.46)], 0.014, Part.BAG)
        figure.box(Part.BAG, -side, 0.39, 0.15, 0.14)
        figure.box(Part.BAG_ACCENT, -side, 0.37, 0.15, 0.035)
    elif bag == "suitcase":
        figure.limb([(-side - 0.02, 0.46), (-side - 0.02, 0.26)], 0.016, Part.BAG_ACCENT)
        figure.box(Part.BAG, -side - 0.02, 0.15, 0.15, 0.25)
        figure.box(Part.BAG_ACCENT, -side - 0.02, 0.15, 0.04, 0.25)


def _first(path: list, share: float) -> list:
    """The first share of a path of two segments, each counted as half of it."""
    start, middle, end = path
    if share <= 0.5:
        return [start, _between(start, middle, 2 * share)]
    return [start, middle, _between(middle, end, 2 * share - 1)]


def _between(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


# --- cameras ----------------------------------------------------------------------------------------------------------


def make_camera(seed: int, number: int, image_size: tuple[int, int]) -> Camera:
    """The camera with this number: its light, its tone and the place it looks at. image_size: (H, W) in pixels."""
    rng = np.random.default_rng((seed, CAMERA, number))
    infrared = number in INFRARED_CAMERAS
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in image_size), indexing="ij")
    if infrared:  # a lamp beside the lens: bright in the middle, dark in the corners
        centre_x, centre_y = rng.uniform(-0.25, 0.25, size=2)
        light = 1.05 - rng.uniform(0.25, 0.45) * ((x - centre_x) ** 2 + 0.6 * (y - centre_y) ** 2)
        light = rng.uniform(0.85, 1.05) * light[..., None]
    else:  # light from one side, of a colour of its own
        angle = rng.uniform(0, 2 * np.pi)
        light = 1 + rng.uniform(0.05, 0.2) * (np.cos(angle) * x + np.sin(angle) * y)
        light = rng.uniform(0.75, 1.1) * light[..., None] * rng.uniform(0.85, 1.12, size=3)
    gamma = rng.uniform(0.85, 1.2)
    tone = np.round(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8)
    blur, noise = (rng.uniform(0.003, 0.005), rng.uniform(3, 6)) if infrared else (0.0, rng.uniform(2, 4))
    return Camera(number, light.astype(np.float32), tone, blur, noise, _draw_scene(seed, number, image_size))


def _draw_scene(seed: int, number: int, image_size: tuple[int, int]) -> Image.Image:
    """The empty place a camera looks at, supersampled, a fifth higher and half as wide again as a picture."""
    rng = np.random.default_rng((seed, SCENE, PLACES.get(number, number)))
    infrared, outdoor = number in INFRARED_CAMERAS, number in OUTDOOR_CAMERAS
    height, width = round(1.2 * SUPERSAMPLING * image_size[0]), round(1.5 * SUPERSAMPLING * image_size[1])
    wall, floor = _background_ink(rng, outdoor), _background_ink(rng, outdoor)
    scene = Image.new("L" if infrared else "RGB", (width, height), wall.value(infrared))
    draw = ImageDraw.Draw(scene)
    horizon = height * rng.uniform(0.5, 0.75)
    draw.rectangle((0, horizon, width, height), floor.value(infrared))
    seam = _background_ink(rng, outdoor).value(infrared)
    for x in np.linspace(-0.5, 1.5, rng.integers(6, 10)):  # seams of the floor run towards the vanishing point
        draw.line([(width * (0.3 + 0.4 * x), horizon), (width * (2 * x - 0.5), height)], seam, SUPERSAMPLING)
    for _ in range(7):
        _draw_clutter(scene, rng, outdoor)
    return scene


def _draw_clutter(picture: Image.Image, rng: np.random.Generator, outdoor: bool) -> None:
    """One thing of the background: a post, a tree, a box or something on the wall."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    kind = _pick(rng, ("post", "tree", "box") if outdoor else ("post", "panel", "box"))
    x, w, foot = width * rng.random(), width * rng.uniform(0.08, 0.25), height * rng.uniform(0.7, 0.9)
    share, value = rng.random(), _background_ink(rng, outdoor).value(infrared=picture.mode == "L")
    if kind == "post":
        draw.rectangle((x, 0, x + 0.3 * w, foot), value)
    elif kind == "tree":
        draw.rectangle((x - 0.1 * w, 0.3 * height, x + 0.1 * w, foot), value)
        draw.ellipse((x - w, 0.1 * height * share, x + w, height * (0.25 + 0.2 * share)), value)
    elif kind == "box":
        draw.rectangle((x, foot - height * (0.1 + 0.15 * share), x + w, foot), value)
    else:
        draw.rectangle((x, height * (0.05 + 0.2 * share), x + w, height * (0.25 + 0.2 * share)), value)


def _background_ink(rng: np.random.Generator, outdoor: bool) -> Ink:
    """A dull, dim colour, greener outdoors; far from an infrared camera's lamp, so dark to it."""
    colour = rng.uniform(30, 105) + rng.uniform(-14, 14, size=3) + (np.array((-8, 10, -10)) if outdoor else 0)
    return Ink(tuple(int(c) for c in np.clip(colour, 0, 255)), rng.uniform(0.06, 0.32))


# --- a picture and the data set ---------------------------------------------------------------------------------------


def render(identity: Identity, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """One picture of the identity: RGB from a visible camera, single-channel ("L") from an infrared one.

    Which random numbers are drawn does not depend on the identity's inks.
    """
    height, width = camera.light.shape[:2]
    size = (SUPERSAMPLING * height, SUPERSAMPLING * width)
    pose = draw_pose(rng, width / height)
    ink, shade = draw_person(identity, pose, size)
    picture = _draw_background(camera, rng, size)
    mask = Image.fromarray((ink != Part.BACKGROUND) * np.uint8(255))
    picture.paste(_paint(ink, identity.inks, camera.infrared), mask=mask)

    mask, shade = mask.reduce(SUPERSAMPLING), shade.reduce(SUPERSAMPLING)
    inside = np.asarray(mask.filter(ImageFilter.BoxBlur(height / 40)), np.float32) / 255
    roundness = 1 - 0.45 * (1 - inside) * (np.asarray(mask, np.float32) / 255)  # darker towards the figure's edges
    folds = Image.fromarray(rng.uniform(0.88, 1.12, size=(9, 5)).astype(np.float32)).resize((width, height))
    light = roundness * np.asarray(folds) * np.asarray(shade, np.float32) * (rng.uniform(0.85, 1.15) / 255)
    return _expose(picture.reduce(SUPERSAMPLING), light, camera, rng)


def _draw_background(camera: Camera, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Some part of the camera's scene, with two things in it that are there only this time."""
    height, width = size
    left, top = rng.integers(camera.scene.width - width), rng.integers(camera.scene.height - height)
    background = camera.scene.crop((left, top, left + width, top + height))
    for _ in range(2):
        _draw_clutter(background, rng, camera.number in OUTDOOR_CAMERAS)
    return background


def _paint(ink: np.ndarray, inks: dict[Part, Ink], infrared: bool) -> Image.Image:
    """The ink map as a camera sees it in even light: mode "L" if infrared, else "RGB"."""
    values = [inks.get(part, NOTHING).value(infrared) for part in Part]
    painted = Image.fromarray(ink)
    if infrared:
        return painted.point(values + [0] * (256 - len(values)))
    painted.putpalette([channel for value in values for channel in value])
    return painted.convert("RGB")


def _expose(picture: Image.Image, light: np.ndarray, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """What the camera makes of an evenly lit picture under `light` [H, W], the share of its own light that arrives."""
    if camera.infrared:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur * picture.height))
        picture = Image.blend(picture, picture.filter(ImageFilter.BoxBlur(picture.height / 12)), INFRARED_GLOW)
    values = np.asarray(picture, np.float32).reshape(camera.light.shape) * light[..., None] * camera.light
    values += camera.noise * rng.standard_normal((*light.shape, 1), dtype=np.float32)
    return Image.fromarray(camera.tone[np.clip(values, 0, 255).astype(np.uint8)].squeeze())


def generate_sysu_mm01(
    root: str | Path,
    *,
    seed: int = 0,
    train_identities: int = 140,
    val_identities: int = 20,
    test_identities: int = 40,
    images_per_camera: int = 2,
    image_size: tuple[int, int] = (128, 64),
) -> None:
    """Write a synthetic set in SYSU-MM01's layout at `root`, or leave it alone if exactly this set is there.

    Identities are numbered from 1, first those to train on, then to validate, then to test. Each has
    `images_per_camera` pictures of `image_size` (H, W) pixels from each of the six cameras; a picture depends only on
    (seed, identity, camera, number, image_size). The tree appears at `root` complete or not at all.

    Raises InputError if `root` holds anything else, cannot be written, or a size is out of range.
    """
    root, splits = Path(root), {"train": train_identities, "val": val_identities, "test": test_identities}
    counts = {**splits, "pictures each camera": images_per_camera}
    if min(counts.values()) < 1 or max(sum(splits.values()), images_per_camera) > 9999:
        raise InputError(f"synthetic set with {counts}: each must be at least 1, identities and pictures at most 9999")
    if seed < 0:
        raise InputError(f"synthetic set with seed {seed}: give 0 or more")
    if min(image_size) < 16:
        raise InputError(f"synthetic pictures of {image_size[0]}x{image_size[1]} pixels: give sizes of 16 or more")
    parameters = {
        "version": VERSION,
        "seed": seed,
        "identities": splits,
        "images_per_camera": images_per_camera,
        "image_size": list(image_size),
    }
    if _is_there(root, parameters):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # a sibling, so that the rename stays on one file system; it is removed whatever happens
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as staging:
            tree = Path(staging) / root.name
            _write_tree(tree, parameters)
            tree.rename(root)
    except OSError as error:
        if not _is_there(root, parameters):  # it is, if another process was generating the same set and ended first
            raise InputError(f"cannot write the synthetic set at {root}: {error}") from error


def _is_there(root: Path, parameters: dict) -> bool:
    """Whether `root` holds this very set; False if it holds nothing, InputError if anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        raise InputError(f"{root} is not a synthetic set (no readable {MARKER}): give another folder") from None
    if found != parameters:
        raise InputError(f"{root} holds {found}, not {parameters}: remove it or give another folder")
    return True


def _write_tree(tree: Path, parameters: dict) -> None:
    seed, splits = parameters["seed"], parameters["identities"]
    number = 0
    (tree / "exp").mkdir(parents=True)
    for split, count in splits.items():
        ids = range(number + 1, number + count + 1)
        (tree / "exp" / f"{split}_id.txt").write_text(",".join(map(str, ids)) + "\n")
        number += count
    cameras = [make_camera(seed, camera, parameters["image_size"]) for camera in CAMERAS]
    for person in range(1, number + 1):
        identity = draw_identity(seed, person)
        for camera in cameras:
            folder = tree / f"cam{camera.number}" / f"{person:04d}"
            folder.mkdir(parents=True)
            for n in range(1, parameters["images_per_camera"] + 1):
                rng = np.random.default_rng((seed, PICTURE, person, camera.number, n))
                render(identity, camera, rng).save(folder / f"{n:04d}.jpg", quality=JPEG_QUALITY)
    (tree / MARKER).write_text(json.dumps(parameters, indent=2) + "\n")

"""A person's properties, and their inks as cameras see them. Lengths are in figure heights unless noted."""

from dataclasses import dataclass, make_dataclass
from enum import IntEnum

import numpy as np

IDENTITY = 0  # random stream of a seed
COLOURS = (
    (232, 232, 228), (196, 190, 176), (128, 130, 134), (86, 88, 94), (44, 44, 48), (188, 40, 44), (128, 44, 54),
    (226, 126, 44), (232, 200, 70), (72, 140, 64), (50, 88, 66), (58, 164, 176), (54, 96, 190), (44, 54, 108),
    (122, 70, 156), (226, 138, 168), (128, 92, 64), (158, 196, 226),
)  # fmt: skip
REFLECTANCES = (0.24, 0.38, 0.52, 0.66, 0.80, 0.94)  # leather, nylon, denim, wool, cotton, polyester
SKIN_COLOURS = ((240, 206, 182), (222, 178, 146), (186, 136, 102), (134, 92, 66), (92, 62, 46))
HAIR_COLOURS = ((24, 20, 20), (58, 40, 30), (104, 70, 44), (176, 140, 88), (150, 148, 146))
SKIN_REFLECTANCE = 0.70
HAIR_REFLECTANCES = (0.28, 0.44)
VANISHING_PATTERNS = 0.15  # share of patterns printed with a dye that is invisible in infrared
MIN_INK_CONTRAST = 0.28  # between a pattern's two inks, in luma (of 1) and, unless it vanishes, in reflectance

# Where a pattern shows its accent. u: across the body from the centre line; v: down from the garment's top; p: period.
PATTERNS = {
    "plain": lambda u, v, p: np.zeros_like(u, bool),
    "hoops": lambda u, v, p: v % p < p / 2,
    "stripes": lambda u, v, p: (u + p / 4) % p < p / 2,
    "diagonal": lambda u, v, p: (0.7 * (u + v)) % p < p / 2,
    "checks": lambda u, v, p: ((u + p / 4) % p < p / 2) ^ (v % p < p / 2),
    "band": lambda u, v, p: abs(v - 0.14) < 0.45 * p,
    "yoke": lambda u, v, p: v < 1.2 * p,
    "halves": lambda u, v, p: u > 0,
    "sash": lambda u, v, p: abs(u + v - 0.14) < 0.4 * p,
    "side stripe": lambda u, v, p: abs(abs(u) - 0.09) < 0.2 * p,
}
PERIODS = (0.09, 0.15)
CHOICES = {  # an identity's fields in drawing order; a repeated entry is more likely
    "height": (0.78, 0.84, 0.90),  # in picture heights
    "shoulders": (0.085, 0.110, 0.135),  # half width
    "hips": (0.065, 0.090, 0.115),  # half width
    "legs": (0.44, 0.49, 0.54),  # from the ground to the waist
    "head": (0.060, 0.068, 0.076),  # radius
    "limbs": (0.052, 0.066, 0.080),  # thickness of a sleeve
    "hair": ("bald", "short", "long", "curly"),
    "upper_pattern": tuple(name for name in PATTERNS if name != "side stripe"),
    "upper_period": PERIODS,
    "lower_pattern": ("plain", "plain", "hoops", "stripes", "checks", "side stripe", "halves", "yoke"),
    "lower_period": PERIODS,
    "upper_length": (-0.02, 0.04, 0.12, 0.24),  # how far it hangs below the waist
    "sleeves": (0.0, 0.45, 0.92, 0.92),  # covered share of the arm
    # cut, and covered share of the leg
    "lower": (*(("trousers", share) for share in (0.96, 0.96, 0.68, 0.42)), ("skirt", 0.5), ("skirt", 0.8)),
    "bag": ("none", "none", "backpack", "handbag", "shoulder bag", "suitcase"),
    "hat": ("none", "none", "beanie", "brim"),
}


class BodyPart(IntEnum):
    """Values of the ink map. A garment's accent is its base plus one, which a pattern adds."""

    BACKGROUND, SKIN, HAIR, UPPER, UPPER_ACCENT, LOWER, LOWER_ACCENT, SHOES, BAG, BAG_ACCENT, HAT, SCARF = range(12)


@dataclass(frozen=True)
class Ink:
    """A material: its RGB colour in 0..255 for visible cameras, its reflectance in 0..1 for infrared ones."""

    colour: tuple[int, int, int]
    reflectance: float

    def value(self, infrared: bool) -> int | tuple[int, int, int]:
        return round(255 * self.reflectance) if infrared else self.colour


class Identity(make_dataclass("Fields", [*CHOICES, "scarf", "inks"], frozen=True)):
    """A person: a value for each of `CHOICES`, whether they wear a scarf, and the ink of each part."""

    @property
    def chin(self) -> float:
        return 1 - 2.1 * self.head

    @property
    def shoulder(self) -> float:
        """The height of the shoulder line."""
        return self.chin - 0.035


class Pose:
    """Random properties that change from picture to picture. aspect: picture width / height."""

    def __init__(self, rng: np.random.Generator, aspect: float):
        self.turn = rng.uniform(0, 0.7)  # 0: seen from the front or back, 1: from the side
        self.narrow = 1 - 0.25 * self.turn  # factor of the body's apparent width
        self.x = aspect / 2 + rng.uniform(-0.02, 0.02)  # of the figure's foot point, in picture heights
        self.ground = rng.uniform(0.95, 0.975)
        self.scale = rng.uniform(0.97, 1.02)
        self.lean = rng.uniform(-0.025, 0.025)  # sideways shift per height
        self.mirror = pick(rng, (1, -1))
        self.stride = rng.uniform(-1, 1) * (0.02 + 0.08 * self.turn)  # signed distance of the feet from below the hips
        self.back = rng.random() < 0.25


def pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def draw_identity(seed: int, number: int) -> Identity:
    """Draw the person with this number, who is the same in every picture."""
    rng = np.random.default_rng((seed, IDENTITY, number))
    drawn = {field: pick(rng, options) for field, options in CHOICES.items()}
    scarf = rng.random() < 0.2
    inks = {
        BodyPart.BACKGROUND: Ink((0, 0, 0), 0.0),
        BodyPart.SKIN: Ink(pick(rng, SKIN_COLOURS), SKIN_REFLECTANCE),
        BodyPart.HAIR: Ink(pick(rng, HAIR_COLOURS), pick(rng, HAIR_REFLECTANCES)),
        **{part: _draw_inks(rng)[0] for part in (BodyPart.SHOES, BodyPart.HAT, BodyPart.SCARF)},
    }
    for base in (BodyPart.UPPER, BodyPart.LOWER, BodyPart.BAG):
        inks[base], inks[BodyPart(base + 1)] = _draw_inks(rng)
    return Identity(**drawn, scarf=scarf, inks=inks)


def _draw_inks(rng: np.random.Generator) -> tuple[Ink, Ink]:
    """Draw a garment's base and accent. They differ in luma and, unless the pattern vanishes, in reflectance."""
    base = Ink(pick(rng, COLOURS), pick(rng, REFLECTANCES))
    colours = [c for c in COLOURS if abs(_luma(c) - _luma(base.colour)) >= MIN_INK_CONTRAST]
    reflectances = [r for r in REFLECTANCES if abs(r - base.reflectance) >= MIN_INK_CONTRAST]
    vanishes = rng.random() < VANISHING_PATTERNS
    return base, Ink(pick(rng, colours), base.reflectance if vanishes else pick(rng, reflectances))


def _luma(colour: tuple[int, int, int]) -> float:
    return float(np.dot(colour, (0.299, 0.587, 0.114))) / 255

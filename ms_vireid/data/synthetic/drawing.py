"""Draws a person as a map of inks. Lengths are in figure heights (the figure's, not the picture's)."""

import numpy as np
from PIL import Image, ImageDraw

from ms_vireid.data.synthetic.people import PATTERNS, BodyPart, Identity, Pose

OUTLINE = 160  # of 255: light in a shadow


class Figure:
    """Two layers of [H, W] pixels: the ink, and the light that reaches it. x runs sideways from the body's centre line,
    y upwards from the ground."""

    def __init__(self, size: tuple[int, int], pose: Pose, height: float):
        self.pose, self.size = pose, size
        self.unit = height * pose.scale * size[0]  # pixels in a figure height
        self.ink = Image.new("L", size[::-1], BodyPart.BACKGROUND)
        self.shade = Image.new("L", size[::-1], 255)
        self._ink, self._shade = ImageDraw.Draw(self.ink), ImageDraw.Draw(self.shade)
        (x, y), unit = self._pixel(0, 0), self.unit  # the shadow on the ground
        self._shade.ellipse((x - 0.2 * unit, y - 0.03 * unit, x + 0.2 * unit, y + 0.02 * unit), OUTLINE)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        pose, height = self.pose, self.size[0]
        return pose.x * height + (pose.mirror * x + pose.lean * y) * self.unit, pose.ground * height - y * self.unit

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x, float32 [H, W], and y, float32 [H, 1], of every pixel."""
        rows, columns = (np.arange(n, dtype=np.float32) for n in self.size)
        y = (self.pose.ground * self.size[0] - rows[:, None]) / self.unit
        x = (columns - self.pose.x * self.size[0]) / self.unit - self.pose.lean * y
        return self.pose.mirror * x, y

    def limb(self, path: list, width: float, part: BodyPart, shade: int = 255, outline: float = 0.0) -> None:
        """Draw a band along a path; an outline of shadow separates it from what is behind."""
        pixels, width = [self._pixel(*point) for point in path], max(1, round(width * self.unit))
        if outline:
            _draw_band(self._shade, pixels, width + 2 * max(1, round(outline * self.unit)), OUTLINE)
        _draw_band(self._ink, pixels, width, part)
        _draw_band(self._shade, pixels, width, shade)

    def polygon(self, points: list, part: BodyPart) -> None:
        pixels = [self._pixel(*point) for point in points]
        self._ink.polygon(pixels, part)
        self._shade.polygon(pixels, 255)

    def column(self, part: BodyPart, *levels: tuple[float, float]) -> None:
        """Draw a shape that is symmetric about the centre line, through (y, half width) levels."""
        self.polygon([(-w, y) for y, w in levels] + [(w, y) for y, w in reversed(levels)], part)

    def box(self, part: BodyPart, x: float, y: float, width: float, height: float) -> None:
        """Draw a rectangle centred on (x, y)."""
        left, right, low, high = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        self.polygon([(left, low), (left, high), (right, high), (right, low)], part)

    def disc(self, part: BodyPart, x: float, y: float, width: float, height: float, start: int = 0) -> None:
        """Draw an ellipse centred on (x, y), or with start = 180 its upper half."""
        (cx, cy), rx, ry = self._pixel(x, y), width * self.unit / 2, height * self.unit / 2
        for layer, value in ((self._ink, part), (self._shade, 255)):
            layer.chord((cx - rx, cy - ry, cx + rx, cy + ry), start, 360, value)


def _draw_band(layer: ImageDraw.ImageDraw, pixels: list, width: int, value: int) -> None:
    """Draw a line with rounded joints. `ImageDraw.line(joint="curve")` takes three times as long."""
    layer.line(pixels, value, width)
    for x, y in pixels[1:-1]:
        layer.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), value)


def draw_person(person: Identity, pose: Pose, size: tuple[int, int]) -> tuple[np.ndarray, Image.Image]:
    """Draw the ink map (values of `Part`), uint8 [H, W] of `size`, and the light at each pixel, a picture ("L")."""
    figure = Figure(size, pose, person.height)
    if person.bag == "backpack" and not pose.back:
        _draw_backpack(figure, person)
    _draw_arm(figure, person, side=-1)
    _draw_legs(figure, person)
    _draw_top(figure, person)
    _draw_head(figure, person)
    _draw_bag(figure, person)
    _draw_arm(figure, person, side=1)
    ink = np.array(figure.ink)
    x, y = figure.coordinates()
    ink += (ink == BodyPart.UPPER) & PATTERNS[person.upper_pattern](x, person.shoulder - y, person.upper_period)
    ink += (ink == BodyPart.LOWER) & PATTERNS[person.lower_pattern](x, person.legs - y, person.lower_period)
    return ink, figure.shade


def _draw_arm(figure: Figure, person: Identity, side: int) -> None:
    """Draw an arm. side: 1 for the one nearer to the camera, -1 for the other."""
    swing = -side * figure.pose.stride
    x = side * (person.shoulders * figure.pose.narrow - 0.35 * person.limbs)
    y = person.shoulder - 0.3 * person.limbs
    path = [(x, y), (x + side * 0.03 + 0.4 * swing, y - 0.17), (x + side * 0.02 + swing, y - 0.34)]
    shade, outline = (255, 0.012) if side > 0 else (200, 0.0)
    figure.limb(path, 0.7 * person.limbs, BodyPart.SKIN, shade, outline)
    if person.sleeves:
        figure.limb(_first(path, person.sleeves), person.limbs, BodyPart.UPPER, shade, outline)


def _draw_legs(figure: Figure, person: Identity) -> None:
    pose, waist, (cut, length) = figure.pose, person.legs, person.lower
    hips = person.hips * pose.narrow
    for side in (-1, 1):
        x, stride = side * 0.55 * person.hips * pose.narrow, side * pose.stride
        path = [(x, waist - 0.02), (x + 0.4 * stride + 0.02 * pose.turn, 0.5 * waist), (x + stride, 0.03)]
        shade, outline = (255, 0.008) if side > 0 else (195, 0.0)
        figure.limb(path, 0.9 * person.limbs, BodyPart.SKIN, shade)
        if cut == "trousers":
            figure.limb(_first(path, length), 0.03 + 0.75 * person.hips, BodyPart.LOWER, shade, outline)
        toe = x + stride + 0.02 * side + 0.035 * pose.turn
        figure.limb([(x + stride - 0.01, 0.022), (toe, 0.018)], 0.042, BodyPart.SHOES, shade)
    figure.column(BodyPart.LOWER, (waist + 0.03, 0.95 * hips), (waist - 0.07, 1.1 * hips))
    if cut == "skirt":
        hem = 1.25 * hips + 0.12 * length + 0.3 * abs(pose.stride)
        figure.column(BodyPart.LOWER, (waist, hips), (waist * (1 - length), hem))


def _draw_top(figure: Figure, person: Identity) -> None:
    shoulders, hips = person.shoulders * figure.pose.narrow, person.hips * figure.pose.narrow
    y = person.shoulder
    figure.limb([(0, person.chin + 0.02), (0, y - 0.01)], 0.9 * person.head, BodyPart.SKIN)
    figure.column(
        BodyPart.UPPER,
        (y + 0.015, 0.5 * person.head),
        (y - 0.005, 0.85 * shoulders),
        (y - 0.04, shoulders),
        (person.legs + 0.08, 0.5 * (shoulders + hips)),
        (person.legs - person.upper_length, 1.1 * hips + 0.15 * max(0.0, person.upper_length)),
    )


def _draw_head(figure: Figure, person: Identity) -> None:
    r, chin, hair, hat = person.head, person.chin, person.hair, person.hat
    y = chin + r  # of the head's centre
    if hair == "curly":
        figure.disc(BodyPart.HAIR, 0, y + 0.25 * r, 2.8 * r, 2.6 * r)
    elif hair == "long":
        figure.column(BodyPart.HAIR, (y + 0.6 * r, 0.9 * r), (y, 1.15 * r), (person.shoulder - 0.05, 1.3 * r))
    figure.disc(BodyPart.HAIR if figure.pose.back and hair != "bald" else BodyPart.SKIN, 0, y, 1.7 * r, 2.1 * r)
    if hair != "bald":
        figure.disc(BodyPart.HAIR, 0, y + 0.3 * r, 1.9 * r, 1.7 * r, start=180)
    if hat != "none":
        figure.disc(BodyPart.HAT, 0, y + 0.35 * r, 2.1 * r, (2.6 if hat == "beanie" else 1.9) * r, start=180)
    if hat == "brim":
        figure.disc(BodyPart.HAT, 0, y + 0.45 * r, 4.0 * r, 0.6 * r)
    if person.scarf:
        figure.limb([(-1.0 * r, chin - 0.015), (1.0 * r, chin - 0.015)], 0.055, BodyPart.SCARF, outline=0.006)
        figure.limb([(0.5 * r, chin - 0.02), (0.6 * r, chin - 0.19)], 0.05, BodyPart.SCARF, outline=0.006)


def _draw_backpack(figure: Figure, person: Identity) -> None:
    """Draw the pack itself: over the body if that is seen from behind, else sticking out behind it."""
    x, y = -0.05 * figure.pose.turn, person.shoulder - 0.13
    figure.box(BodyPart.BAG, x, y, 1.5 * person.shoulders + 0.06, 0.27)
    figure.box(BodyPart.BAG_ACCENT, x, y - 0.06, person.shoulders + 0.04, 0.09)


def _draw_bag(figure: Figure, person: Identity) -> None:
    bag, waist, top = person.bag, person.legs, person.shoulder
    shoulders = person.shoulders * figure.pose.narrow
    side = person.shoulders + 0.035
    if bag == "backpack" and figure.pose.back:
        _draw_backpack(figure, person)
    elif bag == "backpack":
        for x in (-0.6 * shoulders, 0.6 * shoulders):
            figure.limb([(x, top), (x, top - 0.2)], 0.032, BodyPart.BAG)
    elif bag == "shoulder bag":
        figure.limb([(-0.7 * shoulders, top), (side, waist + 0.02)], 0.026, BodyPart.BAG, outline=0.006)
        figure.box(BodyPart.BAG, side, waist - 0.03, 0.13, 0.13)
        figure.box(BodyPart.BAG_ACCENT, side, waist, 0.13, 0.04)
    elif bag == "handbag":
        figure.limb([(-side - 0.04, 0.46), (-side - 0.01, 0.5), (-side + 0.03, 0.46)], 0.014, BodyPart.BAG)
        figure.box(BodyPart.BAG, -side, 0.39, 0.15, 0.14)
        figure.box(BodyPart.BAG_ACCENT, -side, 0.37, 0.15, 0.035)
    elif bag == "suitcase":
        figure.limb([(-side - 0.02, 0.46), (-side - 0.02, 0.26)], 0.016, BodyPart.BAG_ACCENT)
        figure.box(BodyPart.BAG, -side - 0.02, 0.15, 0.15, 0.25)
        figure.box(BodyPart.BAG_ACCENT, -side - 0.02, 0.15, 0.04, 0.25)


def _first(path: list, share: float) -> list:
    """Cut a path of two segments, each counted as half of it, to its first `share`."""
    segments, share = divmod(2 * share, 1)  # complete segments, and the share of the next one
    (x, y), (next_x, next_y) = path[int(segments) : int(segments) + 2]
    return [*path[: int(segments) + 1], (x + share * (next_x - x), y + share * (next_y - y))]

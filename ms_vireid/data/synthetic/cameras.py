"""Cameras, their scenes, and how they render a person."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ms_vireid.data.published_sets import SYSU_INFRARED_CAMERAS
from ms_vireid.data.synthetic.drawing import draw_person
from ms_vireid.data.synthetic.people import BodyPart, Identity, Ink, Pose, pick

CAMERA, SCENE = 1, 2  # random streams of a seed
OUTDOOR_CAMERAS = (4, 5, 6)
PLACES = {3: 2}  # cameras 2 and 3 share a room, as in SYSU-MM01; every other camera has its own place
SUPERSAMPLING = 2
INFRARED_GLOW = 0.2  # share of the light that spreads around bright surfaces


class Camera:
    """The camera with this number: its light, tone and scene. image_size: (H, W) in pixels.

    light: float32 [H, W, C], C = 3 for visible and 1 for infrared. tone: uint8 [256], the gamma curve. blur: radius in
    picture heights. noise: standard deviation in 0..255. scene: larger than a picture, which shows a part of it.
    """

    def __init__(self, seed: int, number: int, image_size: tuple[int, int]):
        rng = np.random.default_rng((seed, CAMERA, number))
        self.number, self.infrared, self.outdoor = number, number in SYSU_INFRARED_CAMERAS, number in OUTDOOR_CAMERAS
        y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in image_size), indexing="ij")
        if self.infrared:  # a lamp beside the lens: bright centre, dark corners
            centre_x, centre_y = rng.uniform(-0.25, 0.25, size=2)
            light = 1.05 - rng.uniform(0.25, 0.45) * ((x - centre_x) ** 2 + 0.6 * (y - centre_y) ** 2)
            light = rng.uniform(0.85, 1.05) * light[..., None]
        else:  # coloured light from one side
            angle = rng.uniform(0, 2 * np.pi)
            light = 1 + rng.uniform(0.05, 0.2) * (np.cos(angle) * x + np.sin(angle) * y)
            light = rng.uniform(0.75, 1.1) * light[..., None] * rng.uniform(0.85, 1.12, size=3)
        self.light = light.astype(np.float32)
        self.tone = np.round(255 * np.linspace(0, 1, 256) ** rng.uniform(0.85, 1.2)).astype(np.uint8)
        self.blur = rng.uniform(0.003, 0.005) if self.infrared else 0.0
        self.noise = rng.uniform(3, 6) if self.infrared else rng.uniform(2, 4)
        self.scene = self._draw_scene(seed, image_size)

    def _draw_scene(self, seed: int, image_size: tuple[int, int]) -> Image.Image:
        """Draw the empty scene, supersampled, 1.2 times as high and 1.5 times as wide as a picture."""
        rng = np.random.default_rng((seed, SCENE, PLACES.get(self.number, self.number)))
        infrared, outdoor = self.infrared, self.outdoor
        height, width = round(1.2 * SUPERSAMPLING * image_size[0]), round(1.5 * SUPERSAMPLING * image_size[1])
        wall, floor = _background_ink(rng, outdoor), _background_ink(rng, outdoor)
        scene = Image.new("L" if infrared else "RGB", (width, height), wall.value(infrared))
        draw = ImageDraw.Draw(scene)
        horizon = height * rng.uniform(0.5, 0.75)
        draw.rectangle((0, horizon, width, height), floor.value(infrared))
        seam = _background_ink(rng, outdoor).value(infrared)
        for x in np.linspace(-0.5, 1.5, rng.integers(6, 10)):  # the floor's seams converge at the vanishing point
            draw.line([(width * (0.3 + 0.4 * x), horizon), (width * (2 * x - 0.5), height)], seam, SUPERSAMPLING)
        for _ in range(7):
            _draw_clutter(scene, rng, outdoor)
        return scene


def _draw_clutter(picture: Image.Image, rng: np.random.Generator, outdoor: bool) -> None:
    """Draw an object in the background: a post, a tree, a box or a panel on the wall."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    kind = pick(rng, ("post", "tree", "box") if outdoor else ("post", "panel", "box"))
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
    """Draw a dull, dim colour, greener outdoors, and dark in infrared, as it is far from the camera's lamp."""
    colour = rng.uniform(30, 105) + rng.uniform(-14, 14, size=3) + (np.array((-8, 10, -10)) if outdoor else 0)
    return Ink(tuple(int(c) for c in np.clip(colour, 0, 255)), rng.uniform(0.06, 0.32))


def render(identity: Identity, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Render a picture, "RGB" for a visible camera and "L" for infrared. The drawing does not depend on the inks."""
    height, width = camera.light.shape[:2]
    size = (SUPERSAMPLING * height, SUPERSAMPLING * width)
    ink, shade = draw_person(identity, Pose(rng, width / height), size)
    # Crop the camera's scene and add two objects for this picture.
    left, top = rng.integers(camera.scene.width - size[1]), rng.integers(camera.scene.height - size[0])
    picture = camera.scene.crop((left, top, left + size[1], top + size[0]))
    for _ in range(2):
        _draw_clutter(picture, rng, camera.outdoor)
    mask = Image.fromarray((ink != BodyPart.BACKGROUND) * np.uint8(255))
    colours = np.array([identity.inks[part].value(camera.infrared) for part in BodyPart], np.uint8)
    picture.paste(Image.fromarray(colours[ink]), mask=mask)
    mask, shade = mask.reduce(SUPERSAMPLING), shade.reduce(SUPERSAMPLING)
    inside = np.asarray(mask.filter(ImageFilter.BoxBlur(height / 40)), np.float32) / 255
    roundness = 1 - 0.45 * (1 - inside) * (np.asarray(mask, np.float32) / 255)  # darker towards the figure's edges
    folds = Image.fromarray(rng.uniform(0.88, 1.12, size=(9, 5)).astype(np.float32)).resize((width, height))
    light = roundness * np.asarray(folds) * np.asarray(shade, np.float32) * (rng.uniform(0.85, 1.15) / 255)
    return _expose(picture.reduce(SUPERSAMPLING), light, camera, rng)


def _expose(picture: Image.Image, light: np.ndarray, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Apply the camera's light, scaled by `light` [H, W], its blur, noise and tone to an evenly lit picture."""
    if camera.infrared:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur * picture.height))
        picture = Image.blend(picture, picture.filter(ImageFilter.BoxBlur(picture.height / 12)), INFRARED_GLOW)
    values = np.asarray(picture, np.float32).reshape(camera.light.shape) * light[..., None] * camera.light
    values += camera.noise * rng.standard_normal((*light.shape, 1), dtype=np.float32)
    return Image.fromarray(camera.tone[np.clip(values, 0, 255).astype(np.uint8)].squeeze())

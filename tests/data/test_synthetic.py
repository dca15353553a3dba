import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ms_vireid.command.errors import InputError
from ms_vireid.config import SyntheticConfig
from ms_vireid.data import synthetic
from ms_vireid.data.synthetic import CAMERAS, generate_sysu_mm01, people
from ms_vireid.data.synthetic.cameras import INFRARED_CAMERAS, make_camera, render
from ms_vireid.data.synthetic.people import Pattern, draw_identity

SMALL = SyntheticConfig(
    seed=3, train_identities=2, val_identities=1, test_identities=2, images_per_camera=2, image_size=(48, 24)
)
IDENTITIES = 5


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "sysu"
    generate_sysu_mm01(root, SMALL)
    return root


def _pictures(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("cam*/*/*.jpg")}


def _picture(identity, camera, draw: int = 0) -> np.ndarray:
    return np.asarray(render(identity, camera, np.random.default_rng(draw)))


def test_layout_is_sysu_mm01s(tree):
    expected = {
        f"cam{camera}/{identity:04d}/{n:04d}.jpg"
        for camera in range(1, 7)
        for identity in range(1, IDENTITIES + 1)
        for n in (1, 2)
    }
    assert set(_pictures(tree)) == expected


def test_splits_are_one_line_of_comma_separated_identities(tree):
    splits = {name: (tree / "exp" / f"{name}_id.txt").read_text() for name in ("train", "val", "test")}
    assert splits == {"train": "1,2\n", "val": "3\n", "test": "4,5\n"}


def test_pictures_have_the_asked_size_and_infrared_ones_equal_channels(tree):
    for name in _pictures(tree):
        with Image.open(tree / name) as file:
            picture = np.asarray(file.convert("RGB"))
        assert picture.shape == (48, 24, 3), name
        gray = (picture == picture[..., :1]).all()
        assert gray == (int(name[3]) in INFRARED_CAMERAS), name


def test_same_seed_gives_the_same_bytes(tree, tmp_path):
    generate_sysu_mm01(tmp_path / "again", SMALL)
    assert _pictures(tmp_path / "again") == _pictures(tree)


def test_another_seed_gives_other_pictures(tree, tmp_path):
    generate_sysu_mm01(tmp_path / "other", SMALL.model_copy(update={"seed": 4}))
    here, there = _pictures(tree), _pictures(tmp_path / "other")
    assert not [name for name in here if here[name] == there[name]]


def test_growing_the_set_keeps_the_pictures_that_were_there(tree, tmp_path):
    grown = SMALL.model_copy(update={"test_identities": 3, "images_per_camera": 3})
    generate_sysu_mm01(tmp_path / "grown", grown)
    here, there = _pictures(tree), _pictures(tmp_path / "grown")
    assert len(there) == 6 * 6 * 3
    assert {name: there[name] for name in here} == here


def test_no_two_pictures_are_the_same(tree):
    pictures = _pictures(tree)
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.parametrize("number", CAMERAS)
def test_infrared_sees_reflectance_only_and_visible_colour_only(number):
    identity, camera = draw_identity(0, 1), make_camera(0, number, (48, 24))
    dyed = {part: replace(ink, colour=tuple(255 - c for c in ink.colour)) for part, ink in identity.inks.items()}
    woven = {part: replace(ink, reflectance=1 - ink.reflectance) for part, ink in identity.inks.items()}
    before = _picture(identity, camera)
    colour_is_seen = (_picture(replace(identity, inks=dyed), camera) != before).any()
    material_is_seen = (_picture(replace(identity, inks=woven), camera) != before).any()
    assert (colour_is_seen, material_is_seen) == ((False, True) if number in INFRARED_CAMERAS else (True, False))


@pytest.mark.parametrize("number", [1, 3])
def test_shape_and_pattern_are_seen_in_both_modalities(number):
    identity, camera = draw_identity(0, 1), make_camera(0, number, (48, 24))
    before = _picture(identity, camera)
    for name in {"hoops", "checks"} - {identity.upper.pattern.name}:
        other = replace(identity, upper=replace(identity.upper, pattern=Pattern(name, 0.1)))
        assert (_picture(other, camera) != before).any(), name
    stout = replace(identity, body=replace(identity.body, shoulders=0.16))
    assert (_picture(stout, camera) != before).any()


def test_most_patterns_stay_visible_in_infrared_and_all_in_gray():
    pairs = [
        (identity.inks[base], identity.inks[base + 1])
        for identity in (draw_identity(0, number) for number in range(200))
        for base in (people.Part.UPPER, people.Part.LOWER)
    ]
    luma = [abs(np.dot(np.subtract(a.colour, b.colour), (0.299, 0.587, 0.114))) / 255 for a, b in pairs]
    reflectance = np.array([abs(a.reflectance - b.reflectance) for a, b in pairs])
    assert min(luma) >= people.MIN_INK_CONTRAST
    assert 0.05 < (reflectance == 0).mean() < 0.3  # 0.15 expected; 400 draws have a standard deviation of 0.018
    assert reflectance[reflectance > 0].min() >= people.MIN_INK_CONTRAST


def test_colours_find_a_person_within_a_modality_and_not_across():
    """By the mean colour of six bands of the figure, as a model would that learns nothing else."""

    def bands(number: int) -> np.ndarray:
        camera = make_camera(0, number, (128, 64))
        figures = [_picture(draw_identity(0, person), camera, person + 1000 * number) for person in range(100)]
        means = np.array([figure[26:116, 24:40].reshape(6, 15 * 16, -1).mean(axis=1) for figure in figures])
        return (means - means.mean(axis=0)) / means.std(axis=0)

    def rank1(queries: np.ndarray, gallery: np.ndarray) -> float:
        distances = np.square(queries[:, None] - gallery).sum(axis=(2, 3))
        return float((distances.argmin(axis=1) == np.arange(len(queries))).mean())

    first, second, third, sixth = (bands(number) for number in (1, 2, 3, 6))
    assert rank1(first, second) > 0.6
    assert rank1(third, sixth) > 0.25
    luma = (0.299, 0.587, 0.114)
    across = [
        rank1(infrared, visible @ np.array(luma)[:, None]) for infrared in (third, sixth) for visible in (first, second)
    ]
    assert np.mean(across) < 0.06  # chance 0.01: a bare leg or a long coat tells a little


def test_every_pattern_and_accessory_can_be_drawn():
    camera, identity = make_camera(0, 1, (48, 24)), replace(draw_identity(0, 1), bag="none", hat="none", scarf=False)
    upper, lower, body = identity.upper, identity.lower, identity.body
    choices = {
        "upper": [replace(upper, pattern=Pattern(name, 0.1)) for name in people.PATTERNS]
        + [replace(upper, sleeves=share) for share in sorted(set(people.SLEEVES))],
        "lower": [replace(lower, cut=cut, length=length) for cut, length in {*people.TROUSERS, *people.SKIRTS}],
        "body": [replace(body, hair=hair) for hair in people.HAIRS],
        "bag": set(people.BAGS),
        "hat": set(people.HATS),
        "scarf": [False, True],
    }
    for field, values in choices.items():
        drawn = {_picture(replace(identity, **{field: value}), camera).tobytes() for value in values}
        assert len(drawn) >= len(values) - (field == "upper"), field  # its own pattern and sleeves: one picture


def test_a_second_call_leaves_the_tree_alone(tree):
    before = {path: path.stat().st_mtime_ns for path in (tree, *tree.rglob("*"))}
    generate_sysu_mm01(tree, SMALL)
    assert {path: path.stat().st_mtime_ns for path in (tree, *tree.rglob("*"))} == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"images_per_camera": 1}, {"image_size": (24, 48)}])
def test_another_set_in_the_way_is_an_error_and_stays(tree, change):
    before = {path: path.stat().st_mtime_ns for path in (tree, *tree.rglob("*"))}
    with pytest.raises(InputError, match="remove it or give another folder"):
        generate_sysu_mm01(tree, SMALL.model_copy(update=change))
    assert {path: path.stat().st_mtime_ns for path in (tree, *tree.rglob("*"))} == before


def test_a_folder_of_something_else_is_an_error_and_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a synthetic set"):
        generate_sysu_mm01(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    generate_sysu_mm01(tmp_path / "deep" / "er", SMALL)  # parents are made
    (tmp_path / "empty").mkdir()
    generate_sysu_mm01(tmp_path / "empty", SMALL)
    assert _pictures(tmp_path / "empty") == _pictures(tmp_path / "deep" / "er")


def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    rendered = []

    def render_three(*arguments):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.append(arguments)
        return render(*arguments)

    monkeypatch.setattr(synthetic, "render", render_three)
    with pytest.raises(KeyboardInterrupt):
        generate_sysu_mm01(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_second_accepts_the_same_set(tmp_path, monkeypatch):
    write_tree = synthetic._write_tree

    def write_while_another_ends_first(tree, parameters):
        write_tree(tree, parameters)
        write_tree(tmp_path / "set", parameters)

    monkeypatch.setattr(synthetic, "_write_tree", write_while_another_ends_first)
    generate_sysu_mm01(tmp_path / "set", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert json.loads((tmp_path / "set" / synthetic.MARKER).read_text())["images_per_camera"] == 2


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write") as caught:
        generate_sysu_mm01(tmp_path / "file" / "set", SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"train_identities": 0},
        {"images_per_camera": 0},
        {"test_identities": 10_000},
        {"image_size": (128, 8)},
        {"seed": -1},
    ],
)
def test_a_number_out_of_range_is_named(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        SyntheticConfig(**{**SMALL.model_dump(), **change})


def test_no_more_identities_than_folders_have_names_for():
    with pytest.raises(ValidationError, match="10,000 identities are more than 9,999; ask for fewer"):
        SyntheticConfig(train_identities=9000, val_identities=500, test_identities=500, images_per_camera=1)


def test_a_picture_takes_milliseconds():
    camera, identity, count = make_camera(0, 1, (128, 64)), draw_identity(0, 1), 40
    start = time.process_time()
    for n in range(count):
        _picture(identity, camera, n)
    # 1.2 to 1.6 ms measured on one core; the bound allows for slow and shared machines
    assert (time.process_time() - start) / count < 6e-3

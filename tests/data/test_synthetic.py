import base64
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.config import SyntheticConfig
from ms_vireid.data import processes, synthetic
from ms_vireid.data.published_sets import SYSU_CAMERAS, SYSU_INFRARED_CAMERAS
from ms_vireid.data.synthetic import generate_sysu_mm01, people
from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity

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


def test_layout_and_splits_are_sysu_mm01s(tree):
    assert set(_pictures(tree)) == {
        f"cam{camera}/{identity:04d}/{n:04d}.jpg"
        for camera in range(1, 7)
        for identity in range(1, IDENTITIES + 1)
        for n in (1, 2)
    }
    for name in _pictures(tree):
        with Image.open(tree / name) as file:
            assert (file.size, file.mode) == ((24, 48), "L" if int(name[3]) in SYSU_INFRARED_CAMERAS else "RGB"), name
    splits = {name: (tree / "exp" / f"{name}_id.txt").read_text() for name in ("train", "val", "test")}
    assert splits == {"train": "1,2\n", "val": "3\n", "test": "4,5\n"}


def test_a_seed_gives_the_same_bytes_and_another_other_ones_in_any_empty_folder(tree, tmp_path):
    here = _pictures(tree)
    assert len(set(here.values())) == len(here)
    (tmp_path / "empty").mkdir()
    for place in ("empty", "deep/er"):  # parents are made
        generate_sysu_mm01(tmp_path / place, SMALL)
        assert _pictures(tmp_path / place) == here
    generate_sysu_mm01(tmp_path / "other", SMALL.model_copy(update={"seed": 4}))
    there = _pictures(tmp_path / "other")
    assert not [name for name in here if here[name] == there[name]]


def test_growing_the_set_keeps_the_pictures_that_were_there(tree, tmp_path):
    grown = SMALL.model_copy(update={"test_identities": 3, "images_per_camera": 3})
    generate_sysu_mm01(tmp_path / "grown", grown)
    here, there = _pictures(tree), _pictures(tmp_path / "grown")
    assert len(there) == 6 * 6 * 3
    assert {name: there[name] for name in here} == here


@pytest.mark.parametrize("number", SYSU_CAMERAS)
def test_infrared_sees_reflectance_only_and_visible_colour_only(number):
    identity, camera = draw_identity(0, 1), Camera(0, number, (48, 24))
    dyed = {part: replace(ink, colour=tuple(255 - c for c in ink.colour)) for part, ink in identity.inks.items()}
    woven = {part: replace(ink, reflectance=1 - ink.reflectance) for part, ink in identity.inks.items()}
    before = _picture(identity, camera)
    colour_is_seen = (_picture(replace(identity, inks=dyed), camera) != before).any()
    material_is_seen = (_picture(replace(identity, inks=woven), camera) != before).any()
    assert (colour_is_seen, material_is_seen) == ((False, True) if number in SYSU_INFRARED_CAMERAS else (True, False))


@pytest.mark.parametrize(("field", "values"), [*people.CHOICES.items(), ("scarf", (False, True))])
def test_every_choice_is_seen(field, values):
    """On a person in hoops, whose patterns' widths show."""
    camera, identity = Camera(0, 1, (128, 64)), replace(draw_identity(0, 1), bag="none", hat="none", scarf=False)
    identity = replace(identity, upper_pattern="hoops", lower_pattern="hoops", lower=("trousers", 0.96))
    drawn = {_picture(replace(identity, **{field: value}), camera).tobytes() for value in values}
    assert len(drawn) == len(set(values))


# Eight people, each by the next camera: the means of 12 x 6 cells, 0 to 255, in base85.
LOOKS = (
    "IzKQaG(SQ?R$(wcL_#?}H!(XqS6EmvGeBWlQ8F+$VOvT$G&egdH!V3nEFLK&NlGalB_mNyDkCByNmeQ;K~+vkJv2gC",
    "E*d-|J0LO~KO#3EH8Ng6G$1ryigq#}Fl3-=EgdXVt4=2#E>*8kDIhX7Vq7{OD;Y{UH6BPujA33<NJ*4rX;Vx`RY+S{",
    "9WXpJDIO&`SWGP<D@K7}IWjMEmy}~QHG`e5g)%gSw6SzHF{|X*YdA2m<>Y!bGo{bpia0Gte4bM=COmhaODiHQK3_60",
    "SWZnsKs8)WMlCNhR8CDtD<eBjYH>L!JW+sjQAR;ohlN{8LRgG%PDedSY-v(EJUmflUN%TqP+d$kS!7sSM>S4OMo2_I",
    "a9~baTv|F-PEcD&GEiJ(Tu(7>yO?B9GlHj{hEr5jo3Bn>TvxHTS!85veTSQYN?&kvW>Q5`R99O}OHV~lTufO<L0?Zw",
    "6&yGt9}ycbL^dZB9WG#QEfyUeXooWt9VCaBI1n5tf{!^7B_(u-G94%(LQ^XhA00bQClnqaJxU`J9w9_aAQ&GYC@UNo",
    "Krui-J3BirUT-@(IxJOlKRiz}T5Ui<Pd80WJ3&c2S64?nI6YZmST;B;G&wssJ}xvnEIU9mO=>AbN={p5D^XiTNmM&v",
    "8ZI9=8X6fZESM)F8Y&@pE+-o*GHX>O7%EtpN*Wg`W=&oi7%D$UM;jP0MnpCn7g0_?Oe7y_d}THnJa2_?Pd`IRO;krr",
)


@pytest.mark.parametrize("number", range(1, 9))
def test_people_look_as_they_did(number):
    """Every figure of a training on this set is of these pictures."""
    camera = Camera(0, (number - 1) % 6 + 1, (96, 48))
    picture = render(draw_identity(0, number), camera, np.random.default_rng(number)).convert("L")
    cells = np.asarray(picture, np.float64).reshape(12, 8, 6, 8).mean((1, 3))
    before = np.frombuffer(base64.b85decode(LOOKS[number - 1]), np.uint8).reshape(12, 6)
    assert abs(cells - before).max() < 4  # versions of Pillow may round an edge otherwise


def times(root):
    return {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}


@pytest.mark.parametrize("change", [{}, {"seed": 4}, {"images_per_camera": 1}, {"image_size": (24, 48)}])
def test_a_set_that_is_there_stays_and_if_another_is_wanted_that_is_an_error(tree, change):
    before = times(tree)
    if change:
        with pytest.raises(InputError, match="remove it or give another folder"):
            generate_sysu_mm01(tree, SMALL.model_copy(update=change))
    else:
        generate_sysu_mm01(tree, SMALL)
    assert times(tree) == before


def test_a_folder_of_something_else_and_an_unwritable_place_are_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place, says in ((tmp_path, "not a synthetic set"), (tmp_path / "notes.txt" / "set", "cannot be written")):
        with pytest.raises(InputError, match=says) as caught:
            generate_sysu_mm01(place, SMALL)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_processes_draw_the_same_pictures(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "FEW", 0)
    generate_sysu_mm01(tmp_path / "set", SMALL)
    assert _pictures(tmp_path / "set") == _pictures(tree)


def test_a_killed_process_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "FEW", 0)
    monkeypatch.setattr(synthetic, "render", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match="was killed"):
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

"""Pictures of 16 and 32 bits, and transparent ones: the measured range, what is said about them, and who uses it."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from ms_vireid import check_data, extract, retrieve
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, DataConfig, check_config, dump_config, load_config
from ms_vireid.config.schema import FULL, ValueRanges
from ms_vireid.data.batches import EvaluationBatches, TrainingBatches
from ms_vireid.data.bit_depth import TAIL, Formats, HighBitDepth, look_at, measure_ranges, notes_on
from ms_vireid.data.pictures import read_pixels
from ms_vireid.data.readers import read_data
from ms_vireid.data.records import image_set
from ms_vireid.data.transforms import normalise
from ms_vireid.data.validation import measured_ranges, validate_for_training
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.training_data import prepare_data
from ms_vireid.search.feature_files import load_features

from ..test_train import command
from ..tiny_models import write_checkpoint
from . import tree

LOW, HIGH = 51241, 52181  # counts of a thermal camera


def counts(path, seed=0, low=LOW, high=HIGH, kind=np.uint16):
    """A picture of counts, from `low` to `high`."""
    gray = np.random.default_rng(seed).random(tree.SIZE)
    gray.flat[:2] = 0, 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((low + gray * (high - low)).astype(kind)).save(path)
    return path


@pytest.fixture
def thermal(tmp_path):
    """Four people, whose infrared pictures are counts."""
    root = tree.write_folder(tmp_path / "people")
    for number, path in enumerate(sorted(root.glob("infrared/*/*.jpg"))):
        counts(path.with_suffix(".png"), number)
        path.unlink()
    return root


def infrared(paths, cameras=None):
    """Pictures of 16 or 32 bits by infrared cameras, all by camera 1 unless told."""
    return [HighBitDepth(path, True, camera) for path, camera in zip(paths, cameras or [1] * len(paths), strict=True)]


def measure(paths):
    return measure_ranges(infrared(paths)).get("infrared")


def configuration(root, *overrides):
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", ["data.name=folder", f"data.root={root}", *overrides])


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_range_is_measured_over_all_pictures_without_odd_pixels_and_in_any_order(tmp_path, kind):
    paths = [counts(tmp_path / f"{i}.tif", i, LOW + i, HIGH + i, kind) for i in range(3)]
    for path, dead in zip(paths, (0, 60000, 0), strict=True):
        pixels = np.array(Image.open(path))
        pixels[3, 4] = dead
        Image.fromarray(pixels).save(path)
    low, high = measure(paths)
    assert LOW <= low < LOW + 20
    assert HIGH - 20 < high < HIGH + 3
    assert measure(paths[::-1]) == (low, high)
    assert measure([paths[0]] * 2 + paths) == (low, high)
    assert (low, high) == tuple(np.float32([low, high]).tolist())  # as processes tell each other


def test_a_range_leaves_out_the_ends(tmp_path):
    values = np.random.default_rng(0).normal(60, 12, (31, 11)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    ordered = np.sort(values, axis=None)
    cut = int(TAIL * (len(ordered) - 1))
    assert measure([tmp_path / "a.tif"]) == (ordered[cut], ordered[-1 - cut])


def test_a_picture_of_one_value_has_a_range_and_a_broken_one_none(tmp_path):
    low, high = measure([counts(tmp_path / "flat.png", 0, LOW, LOW)])
    assert LOW == low < high
    (tmp_path / "broken.png").write_text("no picture")
    assert measure_ranges(infrared([tmp_path / "broken.png"])) == {}
    nothing = tmp_path / "nothing.tif"
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(nothing)
    assert measure_ranges(infrared([nothing])) == {}


def test_pictures_left_with_few_gray_levels_are_named(tmp_path):
    path = counts(tmp_path / "counts.png")
    Image.new("RGBA", (2, 2)).save(tmp_path / "logo.png")
    paths = (path, tmp_path / "logo.png", tree.write_picture(tmp_path / "plain.jpg", gray=True), path)
    problems, formats = look_at(image_set([(one, 1, 2, True) for one in paths]))
    assert (problems, formats.high_bit_depth) == ({}, (HighBitDepth(path, True, 2),))
    assert formats.transparent == (tmp_path / "logo.png",)
    assert "1 (../counts.png: 5)" in notes_on(formats, FULL, tmp_path / "elsewhere")[2]  # of a list of paths
    transparent, shown, few = notes_on(formats, FULL, tmp_path)
    assert transparent.endswith("shown over gray: 1 (logo.png)")
    assert shown == "1 pictures of 16 or 32 bits: 0 to 65535 are shown as black to white"
    assert "fewer than 16 of 256 gray levels: 1 (counts.png: 5)" in few
    low, high = measure([path])
    values = f"'{{infrared: [{low:.10g}, {high:.10g}]}}'"
    assert few.endswith(f"train with data.sixteen_bit={values}, which they fill, or store them in 8 bits")
    assert notes_on(formats, ValueRanges((LOW, HIGH)), tmp_path)[1:] == [
        f"1 pictures of 16 or 32 bits: {LOW} to {HIGH} are shown as black to white"
    ]


@pytest.mark.parametrize("ranges", [FULL, "measured"])
def test_no_range_is_proposed_that_shows_no_more(tmp_path, ranges):
    """Neither the range that was measured, again, nor any other for pictures of few values."""
    wide, flat = counts(tmp_path / "wide.png"), counts(tmp_path / "flat.png", 0, LOW, LOW + 3)
    pictures = infrared([wide, flat])
    known = ValueRanges(measure_ranges(pictures)) if ranges == "measured" else ranges
    said = notes_on(Formats(tuple(pictures[1:])), known, tmp_path)[-1]
    assert said.endswith("of 256 gray levels: 1 (flat.png: 1); no range of values shows 16 of their levels")
    said = notes_on(Formats(tuple(pictures)), FULL, tmp_path)[-1]
    stated = re.search(r"data\.sixteen_bit='(.*)', which helps 1 of them, or store them in 8 bits", said)[1]
    helped = configuration(tmp_path, f"data.sixteen_bit={stated}").data.value_ranges
    assert "1 (flat.png: " in notes_on(Formats(tuple(pictures)), helped, tmp_path)[-1]


ODD = "[5,4] [1] [1,2,3] [.nan,1] [0,.inf] [0,1e300] all true [false,3] {} {infrared:[5,4]} {infrared/x:[1,2]}"


@pytest.mark.parametrize("value", [value.replace(":", ": ") for value in ODD.split()])
def test_another_range_is_refused(tmp_path, value):
    with pytest.raises(
        InputError, match=r"data\.sixteen_bit: must be full, measured or \[low, high\].*by modality and camera"
    ):
        configuration(tmp_path, f"data.sixteen_bit={value}")


def test_training_measures_over_its_pictures_and_stores_the_range(thermal):
    data = read_data(DataConfig(name="folder", root=thermal))
    notes, measured = validate_for_training(data, configuration(thermal))
    value_range = measure([path for path in data.train.paths if path.suffix == ".png"])
    assert measured == {"infrared": value_range}
    assert len(notes) == 2  # that identities repeat their pictures, and the range
    config = configuration(thermal).with_value_ranges(measured)
    again = check_config(json.loads(json.dumps(dump_config(config))), "again")
    assert again.data.value_ranges == ValueRanges(measured)
    assert (again.data.value_ranges.of(True, 2), again.data.value_ranges.of(False, 1)) == (value_range, None)
    assert validate_for_training(data, config) == (notes, {})  # stored, so not measured again
    full = configuration(thermal, "data.sixteen_bit=full")
    assert validate_for_training(data, full)[1] == {}
    assert full.with_value_ranges(measured).data.value_ranges == FULL


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_and_evaluation_see_the_range(thermal, cache):
    small = ["data.image_size=[24, 16]", "train.num_identities=2", "train.num_instances=2", f"data.cache={cache}"]
    plain = ["augmentation={flip: 0.0, erasing: 0.0, infrared_jitter: 0.0}", f"data.sixteen_bit=[{LOW}, {HIGH}]"]
    config = configuration(thermal, *small, *plain, "stages.0.visible=rgb")
    data = read_data(config.data)
    batches = TrainingBatches(data.train, config)
    batch = batches.sampler.plan(1)[0]
    for number in range(2):  # decoded, then perhaps from the cache
        images, _ = batches[number * 0]
        for image, index in zip(images, batch, strict=True):
            if data.train.infrared[index]:
                pixels = np.asarray(Image.open(data.train.paths[index])).astype(np.int64)
                levels = ((pixels - LOW) * 255 // (HIGH - LOW)).astype(np.uint8)
                np.testing.assert_array_equal(image, normalise(np.dstack([levels] * 3)))
    (one, _), *_ = EvaluationBatches(
        data.train.subset(data.train.infrared), (24, 16), 1, value_ranges=ValueRanges((LOW, HIGH))
    )
    assert len(np.unique(one[0, 0])) > 100


def test_a_model_is_given_pictures_in_the_range_of_its_training(thermal, monkeypatch, tmp_path, capfd):
    """extract, retrieve, its sheet and evaluate; the range of other pictures would be another."""
    model = write_checkpoint(
        tmp_path / "run/model.safetensors", "pmt", tmp_path / "drawn", f"data.sixteen_bit=[{LOW}, {HIGH}]"
    )
    other = counts(tmp_path / "in/infrared/0001/a.png", 0, LOW, LOW + 40)
    same = Image.fromarray(
        ((np.asarray(Image.open(other)).astype(np.int64) - LOW) * 255 // (HIGH - LOW)).astype(np.uint8)
    )
    same.save(tmp_path / "in/infrared/0001/b.png")
    arguments = ("--checkpoint", model, "--images", tmp_path / "in/infrared", "--output", "f.npz")
    command(monkeypatch, tmp_path, extract, *arguments)
    assert "note: pictures with fewer than 16 of 256 gray levels: 1 (0001/a.png: 11)" in capfd.readouterr().out
    features = load_features(tmp_path / "f.npz")
    assert features.value_ranges == ValueRanges((LOW, HIGH))
    np.testing.assert_allclose(*features.features, atol=1e-6)
    arguments = ("--query", other, "--checkpoint", model, "--gallery", "f.npz", "--sheet", "sheet.png")
    command(monkeypatch, tmp_path, retrieve, *arguments)
    assert "1.0000" in capfd.readouterr().out


def test_a_measured_range_is_no_other_recipe_on_the_same_pictures(tmp_path):
    measured = configuration(tmp_path)
    stored = dump_config(measured.with_value_ranges({"infrared": (LOW, HIGH), "infrared/3": (0, 1023)}))
    record = type("Record", (), {"config": stored})
    assert RunFolder(tmp_path).differing(record, measured, True, ()) == []
    record.config = dump_config(configuration(tmp_path, f"data.sixteen_bit=[{LOW}, {HIGH}]"))  # of an older run
    assert RunFolder(tmp_path).differing(record, measured, True, ()) == []
    other = configuration(tmp_path, f"data.sixteen_bit=[{LOW}, {HIGH + 1}]")
    assert RunFolder(tmp_path).differing(record, other, True, ()) == ["data.sixteen_bit.1"]


def test_check_data_names_what_is_left_with_few_gray_levels(thermal, monkeypatch, tmp_path, capfd):
    arguments = ("data.name=folder", "--data-root", thermal)
    monkeypatch.setattr("sys.argv", ["check_data", *map(str, arguments)])
    run(check_data.main)
    assert "note: 8 pictures of 16 or 32 bits: infrared 51" in capfd.readouterr().out
    monkeypatch.setattr("sys.argv", ["check_data", *map(str, arguments), "data.sixteen_bit=full"])
    run(check_data.main)
    assert "fewer than 16 of 256 gray levels: 8 (infrared/anna/0.png: 5, " in capfd.readouterr().out


def by_camera(tmp_path, *cameras):
    """Two infrared pictures for each (camera, low, high)."""
    pictures = []
    for camera, low, high in cameras:
        paths = [counts(tmp_path / f"{camera}-{i}.png", i, low, high) for i in range(2)]
        pictures += infrared(paths, [camera] * 2)
    return pictures


def test_each_modality_has_a_range_and_each_camera_if_one_would_be_left_with_few_levels(tmp_path):
    pictures = by_camera(tmp_path, (3, LOW, HIGH), (6, 0, 1023))
    dark = [one._replace(infrared=False, camera=1) for one in by_camera(tmp_path / "visible", (1, 0, 4095))]
    ranges = measure_ranges([*dark, *pictures])
    assert list(ranges) == ["visible", "infrared", "infrared/3", "infrared/6"]
    each = [measure_ranges(pictures[i : i + 2])["infrared"] for i in (0, 2)]
    assert [ranges["infrared/3"], ranges["infrared/6"]] == each
    assert ranges["infrared"] == (each[1][0], each[0][1])
    assert ranges["visible"] == measure_ranges(dark)["visible"]
    measured = ValueRanges(ranges)
    for one in (*dark, *pictures):
        assert len(np.unique(read_pixels(one.path, True, measured.of(one.infrared, one.camera)))) > 180
    assert measure_ranges([*pictures[::-1], *dark[::-1]]) == ranges


@pytest.mark.parametrize(
    ("cameras", "measured"),
    [
        (((3, LOW, HIGH), (6, LOW + 200, HIGH + 200)), ["infrared"]),
        (((3, 0, 1000), (6, 0, 400)), ["infrared", "infrared/3", "infrared/6"]),
        (((-1, LOW, HIGH), (6, 0, 1023)), ["infrared", "infrared/6"]),  # -1: no number
    ],
)
def test_cameras_that_differ_little_share_a_range_and_one_without_a_number_has_none(tmp_path, cameras, measured):
    assert list(measure_ranges(by_camera(tmp_path, *cameras))) == measured


def test_a_picture_takes_its_cameras_range_then_its_modalitys_then_none():
    ranges = ValueRanges({"infrared": (0, 9), "infrared/3": (2, 5)})
    assert [ranges.of(True, camera) for camera in (3, 6, None, -1)] == [(2, 5), (0, 9), (0, 9), (0, 9)]
    assert ranges.of(False, 3) is None
    assert ValueRanges((1, 2)).of(False, 3) == (1, 2)
    assert FULL.of(True, 3) is None


def test_what_is_guessed_of_unknown_cameras_and_modalities_is_said_with_a_remedy_that_helps(tmp_path):
    ranges = ValueRanges({"infrared": (0, HIGH), "infrared/3": (LOW, HIGH), "infrared/6": (0, 1023)})
    known, unknown = by_camera(tmp_path, (3, LOW, HIGH), (7, 0, 1023))[1:3]
    dark = by_camera(tmp_path / "visible", (1, 0, 4095))[0]._replace(infrared=False)
    shown, *notes = notes_on(Formats((known, unknown, dark)), ranges, tmp_path)
    assert shown == (
        f"3 pictures of 16 or 32 bits: infrared camera 3 {LOW} to {HIGH}, infrared 0 to {HIGH}, visible 0 to 65535 "
        "are shown as black to white"
    )
    visible, of_camera, few = notes
    assert visible.startswith("1 visible pictures of 16 or 32 bits: their range is unknown, so 16 bits are shown in")
    assert of_camera.startswith(
        "1 infrared pictures of 16 or 32 bits: not of infrared/3, infrared/6, so the range of all of these is taken"
    )
    remedy = "train with data.sixteen_bit='{infrared: ["
    assert remedy in of_camera
    assert "1 (7-0.png: 5); train with" in few
    stated = of_camera[of_camera.index("{") : of_camera.index("'", of_camera.index("{"))]
    helped = configuration(tmp_path, f"data.sixteen_bit={stated}").data.value_ranges
    assert len(notes_on(Formats((unknown,)), helped, tmp_path)) == 1  # no few levels then


# values that are none, and two units


def celsius(path, seed, low=20, top=None, bottom=None, kind=np.float32):
    """A picture from `low` to 40, whose first rows are `bottom` and whose last are `top`."""
    values = np.array(Image.open(counts(path, seed, low, 40, kind)))
    values[:4] = values[:4] if bottom is None else bottom
    values[-4:] = values[-4:] if top is None else top
    Image.fromarray(values).save(path)
    return path


SENTINELS = {
    "one": {"bottom": -9999},
    "both ends": {"bottom": -9999, "top": 9999},
    "float32's least": {"bottom": np.finfo(np.float32).min},
    "a fill value": {"top": 1e20},
    "of 16 bits": {"top": 65535, "kind": np.uint16},
    "absolute zero": {"bottom": -273.15},
}


@pytest.mark.parametrize("odd", SENTINELS.values(), ids=SENTINELS)
def test_values_far_outside_are_said_and_the_printed_setting_takes_them_away(tmp_path, odd):
    pictures = infrared([celsius(tmp_path / f"{i}.tif", i, **odd) for i in range(3)])
    formats = Formats(tuple(pictures))
    said = next(line for line in notes_on(formats, ValueRanges((0, 50)), tmp_path) if "far outside" in line)
    assert "rest: 3 (0.tif: " in said
    config = configuration(tmp_path, *shlex.split(said[said.index("data.no_value=") :]))
    again = check_config(json.loads(json.dumps(dump_config(config))), "again").data
    measured = measured_ranges(again, formats)
    assert 20 <= measured["infrared"][0] < measured["infrared"][1] <= 40
    ranges = again.with_value_ranges(measured).value_ranges
    assert len(notes_on(formats, ranges, tmp_path)) == 1
    shown = read_pixels(pictures[0].path, True, ranges.of(True, 1))
    assert set(shown[:4].ravel() if "bottom" in odd else shown[-4:].ravel()) == {0}
    assert len(np.unique(shown)) > 15


def test_hot_and_dead_pixels_and_a_warm_person_are_not_far_outside(tmp_path):
    dead = celsius(tmp_path / "dead.tif", 0)
    values = np.array(Image.open(dead))
    values[0, 0] = -9999
    Image.fromarray(values).save(dead)
    warm = celsius(tmp_path / "warm.tif", 1, top=60)
    assert len(notes_on(Formats(tuple(infrared([dead, warm]))), ValueRanges((0, 50)), tmp_path)) == 1


@pytest.mark.parametrize("value", ["[.nan]", "[1e300]", "all", "true", "{}", f"{[*range(11)]}", "['-9999']"])
def test_what_is_no_value_is_numbers(tmp_path, value):
    with pytest.raises(InputError, match=r"data\.no_value"):
        configuration(tmp_path, f"data.no_value={value}")


def test_a_picture_without_a_value_is_named(tmp_path):
    pictures = infrared([celsius(tmp_path / "a.tif", 0), celsius(tmp_path / "b.tif", 0)])
    Image.fromarray(np.full((4, 4), -9999, np.float32)).save(tmp_path / "b.tif")
    *_, said = notes_on(Formats(tuple(pictures)), ValueRanges((0, 50), (-9999,)), tmp_path)
    assert (
        said
        == "pictures with fewer than 16 of 256 gray levels: 1 (b.tif: 1); no range of values shows 16 of their levels"
    )


def test_no_value_needs_no_range_of_16_bits_and_gives_float32_none(tmp_path):
    ranges = configuration(tmp_path, "data.no_value=65535", "data.sixteen_bit=full").data.value_ranges
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png", True, ranges.of(True, 1)).tolist() == [[0, 127, 0]]
    with pytest.raises(InputError, match="no range of them is known"):
        read_pixels(celsius(tmp_path / "a.tif", 0), True, ranges.of(True, 1))


def as_float32(root, value, people="*"):
    """Save the infrared pictures of some people as float32 of one value, or for None as degrees Celsius."""
    for number, path in enumerate(sorted(root.glob(f"infrared/{people}/*.[jp]*g"))):
        if value is None:
            celsius(path.with_suffix(".tif"), number)
        else:
            Image.fromarray(np.full(tree.SIZE, value, np.float32)).save(path.with_suffix(".tif"))
        path.unlink()


@pytest.mark.parametrize("value", [7.25, 0.0, -0.0, 1e-45, -(2.0**52), 2.0**53 - 2.0**29])
def test_whatever_is_measured_can_be_read_back(thermal, value):
    as_float32(thermal, value)
    config = prepare_data(configuration(thermal)).config
    assert check_config(dump_config(config), "run") == config


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**53, -(2.0**53), -3.4028235e38])
def test_float32_without_a_value_that_can_be_shown_is_refused_before_training(thermal, value):
    as_float32(thermal, value)
    with pytest.raises(InputError, match=r"whose range of values is not known: 8 .*; replace them: no value is within"):
        prepare_data(configuration(thermal))


def test_float32_that_only_the_tested_people_have_is_refused_with_the_range_that_shows_it(tmp_path):
    root = tree.write_folder(tmp_path / "people")
    as_float32(root, None, "[cd]*")
    with pytest.raises(InputError, match=r"32 bits whose range of values is not known: 4 ") as refused:
        prepare_data(configuration(root))
    (remedy,) = shlex.split(str(refused.value).partition("train with ")[2])
    assert prepare_data(configuration(root, remedy)).config.data.value_ranges.of(True) is not None


@pytest.mark.parametrize("factor", [(1, 273.15), (1.8, 32)])
def test_two_units_in_a_set_are_said_with_both_ranges_and_no_range_as_a_remedy(tmp_path, factor):
    pictures = infrared([celsius(tmp_path / f"{i}.tif", i) for i in range(4)])
    assert len(notes_on(Formats(tuple(pictures)), ValueRanges((0, 50)), tmp_path)) == 1
    for one in pictures[2:]:
        Image.fromarray(np.array(Image.open(one.path)) * np.float32(factor[0]) + np.float32(factor[1])).save(one.path)
    *others, said = notes_on(Formats(tuple(pictures)), ValueRanges(measure_ranges(pictures)), tmp_path)
    assert "infrared pictures whose values do not overlap: 2 from 20" in said
    assert len(others) == 1


# infrared in colours


def palette(gray):
    """Black, purple, orange, white, as thermal cameras show heat."""
    return Image.fromarray(np.dstack([np.interp(gray, (0, 85, 170, 255), ends) for ends in IRON]).astype(np.uint8))


IRON = (0, 130, 240, 255), (0, 0, 110, 255), (0, 160, 10, 255)
GRAY = np.random.default_rng(0).integers(0, 256, (32, 16), np.uint8).repeat(8, 0).repeat(8, 1)
PLAIN = {
    "gray.jpg": lambda: Image.fromarray(GRAY),
    "equal.jpg": lambda: Image.fromarray(GRAY).convert("RGB"),
    "equal.webp": lambda: Image.fromarray(GRAY).convert("RGB"),
    "indexed.png": lambda: Image.fromarray(GRAY).convert("RGB").quantize(64),
    "tinted.jpg": lambda: Image.fromarray((GRAY[:, :, None] * np.array([1, 0.95, 1])).astype(np.uint8)),
}
COLOURED = {
    "false.jpg": lambda: palette(GRAY),
    "indexed.png": lambda: palette(GRAY).quantize(64),
    "small.png": lambda: palette(GRAY).resize((6, 12)),
}


@pytest.mark.parametrize(("pictures", "coloured"), [(PLAIN, False), (COLOURED, True)])
def test_infrared_pictures_in_colours_are_said_and_gray_ones_in_any_format_are_not(tmp_path, pictures, coloured):
    for name, draw in pictures.items():
        draw().save(tmp_path / name, quality=20)
    paths = [tmp_path / name for name in pictures]
    _, formats = look_at(image_set([(path, 1, 1, True) for path in paths]))
    said = notes_on(formats, FULL, tmp_path)
    assert len(said) == coloured
    assert not coloured or said[0].startswith(f"infrared pictures in colours: 3 ({', '.join(pictures)}); save them in")
    _, formats = look_at(image_set([(path, 1, 1, False) for path in paths]))
    assert notes_on(formats, FULL, tmp_path) == []


def test_a_sample_is_decoded_to_find_colours_and_check_data_decodes_all(tmp_path, monkeypatch, capfd):
    root = tree.write_folder(tmp_path / "people", pictures=20)
    for number, path in enumerate(root.glob("infrared/*/*.jpg")):
        gray = np.roll(GRAY, number)
        half = palette(gray) if len(path.stem) == 1 else Image.fromarray(gray).convert("RGB")
        half.save(path)  # the first half of each person's has colours
    Image.fromarray(GRAY).save(root / "infrared/anna/0.jpg")
    data = read_data(DataConfig(name="folder", root=root, test_fraction=1))
    _, formats = look_at(data.test)
    (said,) = notes_on(formats, FULL, root)
    count = int(re.match(r"infrared pictures in colours among 64 of 79 \(check-data looks at all\): (\d+) ", said)[1])
    assert 28 <= count <= 36
    monkeypatch.setattr("sys.argv", ["check_data", "data.name=folder", "--data-root", str(root)])
    run(check_data.main)
    assert "note: infrared pictures in colours: 39 (infrared/anna/1.jpg" in capfd.readouterr().out


def test_a_radiometric_jpeg_is_told_from_other_colours(tmp_path):
    palette(GRAY).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[:2] + b"\xff\xe1\x00\x0aFLIR\0\1\0\0" + content[2:])
    _, formats = look_at(image_set([(tmp_path / name, 1, 1, True) for name in ("a.jpg", "b.jpg")]))
    flir, other = notes_on(formats, FULL, tmp_path)
    assert flir.startswith("radiometric pictures in colours: 1 (b.jpg); flyr reads their temperatures")
    assert other.startswith("infrared pictures in colours: 1 (a.jpg)")


@pytest.mark.parametrize("sixteen_bit", ["measured", "full"])
def test_two_processes_get_the_ranges_of_the_first(thermal, capsys, sixteen_bit):
    class First(ProcessGroup):
        def broadcast(self, value):
            self.sent = json.dumps(value)
            return value

    class Second(ProcessGroup):
        rank = 1

        def broadcast(self, value):
            assert value is None  # it measures nothing
            return json.loads(first.sent)

    first, config = First(), configuration(thermal, f"data.sixteen_bit={sixteen_bit}")
    expected = prepare_data(config, group=first).config
    assert (expected.data.value_ranges == FULL) == (sixteen_bit == "full")
    assert "note: " in capsys.readouterr().out
    assert prepare_data(config, group=Second()).config == expected
    assert capsys.readouterr().out == ""

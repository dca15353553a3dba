"""`export.py`: files that compute what the checkpoint does, what is stored in them, and what is refused."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto
from PIL import Image

from ms_vireid import export
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.config import check_config, dump_config
from ms_vireid.data.folder_layout import find_layout
from ms_vireid.data.picture_paths import read_layout
from ms_vireid.data.records import image_set
from ms_vireid.data.transforms import load_image, normalise
from ms_vireid.engine.checkpoint import save_checkpoint
from ms_vireid.exports import mindir, onnx_graph, prepare, verification
from ms_vireid.exports.description import describe
from ms_vireid.exports.onnx_graph import OnnxGraph, emit
from ms_vireid.exports.verification import (
    BOTH,
    TOLERANCE,
    ExportRequest,
    export_verified,
    largest_error,
    probe_images,
    reference,
)
from ms_vireid.models import build_model
from ms_vireid.search.start import load_trained

from .data.files import GRAY, GRAY_ALPHA, RGB, RGBA, chunk, tags_of, tiff_kinds, write_png, write_tiff
from .data.tree import write_folder
from .test_train import refusal
from .tiny_models import tiny_config

FAMILIES = ("pmt", "agw", "mun")
FORMATS = {"onnx": onnx_graph, "mindir": mindir}
RANGES = "data.sixteen_bit={infrared: [20.5, 300.25], infrared/3: [1000, 52000], visible: [0, 1023]}"


def stored_in(path):
    """What was stored with the graph (`ms_vireid.exports.description.describe`)."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    return dict(model.user_info)


def write_trained(path, family, *options):
    """A checkpoint of a tiny model none of whose weights and statistics is as it was initialised."""
    config = tiny_config(family, path.parent / "nowhere", *options)
    model = build_model(config)
    rng = np.random.default_rng(0)
    for parameter in model.get_parameters():
        value = parameter.asnumpy()
        if parameter.name.endswith("moving_variance"):
            value = value * rng.uniform(0.5, 2.0, value.shape)
        else:
            value = value + (0.3 * value.std() or 0.1) * rng.normal(size=value.shape)
        parameter.set_data(ms.Tensor(value.astype(np.float32)))
    save_checkpoint(path, model.get_parameters(), {"config": dump_config(config), "epoch": 1})
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    written = {family: write_trained(folder / f"{family}.safetensors", family) for family in FAMILIES}
    return written | {"thermal": write_trained(folder / "thermal.safetensors", "pmt", RANGES)}


@pytest.fixture(scope="module")
def trained(checkpoints):
    return dict(zip(checkpoints, load_trained(list(checkpoints.values())), strict=True))


def export_into(folder, *options):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["export.py", *map(str, options)])
        run(export.main)


@pytest.fixture
def run_export(checkpoints, tmp_path):
    return lambda family, *options: export_into(tmp_path, "--checkpoint", checkpoints[family], *options)


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    """A function of family and format: the folder with its files, made once."""

    @cache
    def folder_of(family, kind):
        folder = tmp_path_factory.mktemp("files")
        export_into(folder, "--checkpoint", checkpoints[family], "--format", kind, "--output", f"out.{kind}")
        return folder

    return folder_of


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_compute_what_the_checkpoint_does(exported, trained, family, kind):
    paths = sorted(exported(family, kind).glob(f"*.{kind}"))
    ends = [""] if family == "pmt" else ["-infrared", "-visible"]
    names = [f"out{end}.{kind}{beside}" for end in ends for beside in ("", ".json")]
    assert sorted(path.name for path in exported(family, kind).iterdir()) == names
    for path in paths:
        modality = stored_in(path)["modality"]
        images = reference(ExportRequest(trained[family], modality)).images[[2, 0, 1, 1, 0]]
        expected = trained[family].model(ms.Tensor(images), modality).asnumpy()
        found = FORMATS[kind].load(path)(images)  # a batch of five, which the export did not try
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        assert np.abs(found[0] - found[1]).max() > 1e-3 * np.abs(found).max()
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_a_mindir_pools_in_float32(exported):
    """Not as a CPU does, by logarithms in float64 (`losses/logarithms.py`)."""
    model = ModelProto()
    model.ParseFromString((exported("agw", "mindir") / "out-visible.mindir").read_bytes())
    graphs = [model.graph, *model.functions]
    operators = {node.op_type.split("::")[-1].split(":")[0] for graph in graphs for node in graph.node}
    assert "Pow" in operators
    assert not operators & {"Log", "Exp", "Cast"}


@pytest.mark.parametrize(("family", "kind"), [("pmt", "onnx"), ("agw", "onnx"), ("pmt", "mindir")])
def test_a_picture_prepared_as_the_file_says_has_the_features_of_extract(exported, trained, tmp_path, family, kind):
    """A picture prepared with Pillow and what the file says, nothing else."""
    pictures = write_folder(tmp_path / "pictures", ("0001", "0002"))
    for path in exported(family, kind).glob(f"*.{kind}"):
        info = stored_in(path)
        for modality, decoding in json.loads(info["decoding"]).items():
            chosen = sorted((pictures / modality).rglob("*.jpg"))
            images = np.stack([by_the_short_keys(picture, info, decoding) for picture in chosen])
            found = FORMATS[kind].load(path)(images)
            rows, _ = read_layout(pictures, chosen, find_layout(pictures, chosen))
            expected = trained[family].extractor.extract(rows)
            assert found == pytest.approx(expected, abs=1e-5)
            assert found.shape[1] == int(info["feature_width"])


def by_the_short_keys(path, info, decoding):
    """As is enough for a picture of 8 bits."""
    assert (info["channel_order"], info["layout"]) == ("RGB", "NCHW")
    height, width = json.loads(info["image_size"])
    picture = Image.open(path).convert(decoding)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    mean, std = (np.array(json.loads(info[key]), np.float32) for key in ("mean", "std"))
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)


SMOOTH = (np.sin(np.arange(70) / 9)[:, None] + np.cos(np.arange(40) / 5) + 2) / 4  # 0 to 1, [70, 40]
COLOURS = Image.fromarray((np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH**2]) * 255).astype(np.uint8))
GRAY_8, GRAY_16 = COLOURS.getchannel("R"), (SMOOTH * 65535).astype(np.uint16)
KINDS = {  # name of a file: how it is written
    "rgb.png": COLOURS.save,
    "gray.png": GRAY_8.save,
    "two.png": GRAY_8.convert("1").save,
    "rgba.png": Image.merge("RGBA", (*COLOURS.split(), GRAY_8)).save,
    "la.png": Image.merge("LA", (GRAY_8, GRAY_8)).save,
    "palette.png": lambda path: COLOURS.quantize(40).save(path, transparency=bytes(range(0, 200, 5))),
    "value.png": lambda path: GRAY_8.save(path, transparency=int(GRAY_8.getpixel((9, 9)))),
    "cmyk.jpg": COLOURS.convert("CMYK").save,
    "picture.bmp": COLOURS.save,
    "rgba.webp": Image.merge("RGBA", (*COLOURS.split(), GRAY_8)).save,
    "broken exif.jpg": lambda path: COLOURS.save(path, exif=b"Exif\0\0MM\0"),
    "white is 0.tif": lambda path: GRAY_8.save(path, tiffinfo={262: 0}),
    "16.png": lambda path: write_png(path, GRAY_16, GRAY),
    "16 white is 0.tif": lambda path: Image.fromarray(GRAY_16).save(path, tiffinfo={262: 0}, compression="tiff_lzw"),
    "16 big-endian.tif": lambda path: deep_tiff(path, GRAY_16, ">u2", 1),
    "float.tif": lambda path: deep_tiff(path, np.where(SMOOTH > 0.9, np.nan, SMOOTH * 900 - 300), "<f4", 3),
}
NOT_COVERED = {
    "rgb 16.png": lambda path: write_png(path, np.dstack([GRAY_16] * 3), RGB),
    "rgba 16.png": lambda path: write_png(path, np.dstack([GRAY_16] * 4), RGBA),
    "alpha 16.png": lambda path: write_png(path, np.dstack([GRAY_16] * 2), GRAY_ALPHA),
    "16 value.png": lambda path: write_png(path, GRAY_16, GRAY, chunk(b"tRNS", GRAY_16[9, 9].astype(">u2").tobytes())),
    "palette of 8 bits.tif": lambda path: write_tiff(path, ([bytes(2800)], tags_of(40, 70, 8, 1, 3, t320=[255] * 768))),
    "two pages.tif": lambda path: COLOURS.save(path, save_all=True, append_images=[COLOURS]),
    "stack.tif": lambda path: GRAY_8.save(path, description="ImageJ=1.53t\nimages=5\n"),
    "thumbnail.tif": lambda path: write_tiff(path, ([bytes(2800)], tags_of(40, 70, 8, t254=[1]))),
}


def deep_tiff(path, values, dtype, sample):
    """sample: 1 for unsigned values, 2 for signed ones, 3 for floats."""
    tags = tags_of(40, 70, 8 * np.dtype(dtype).itemsize, t339=[sample])
    write_tiff(path, ([values.astype(dtype).tobytes()], tags), order=dtype[0])


def described(value_range, size=(48, 24), no_values=()):
    options = [f"data.image_size={list(size)}", f"data.sixteen_bit={list(value_range) if value_range else 'full'}"]
    options += [f"data.no_value={list(no_values)}"]
    preparation = describe(tiny_config("pmt", Path("nowhere"), *options), ("visible", "infrared"))
    return json.loads(json.dumps(preparation))


@pytest.mark.parametrize("name", KINDS)
def test_the_second_reader_sees_what_the_toolbox_sees(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path)
    for value_range, no_values in (((-20.5, 555.25), ()), ((100, 50000), ()), ((0, 40000), (65535, 40000))):
        expected = normalise(load_image(path, (48, 24), None, (*value_range, *no_values)))
        found = prepare.prepare(path, described(value_range, no_values=no_values), "infrared")
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(48, 24), (20, 39), (70, 12), (90, 60)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".16.png", ".16.tif"])
def test_the_second_reader_turns_and_resizes_as_the_toolbox_does(tmp_path, suffix, size):
    image = Image.fromarray(GRAY_16) if "16" in suffix else COLOURS
    for orientation in range(1, 9):
        path, exif = tmp_path / f"{orientation}{suffix}", Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif)
        found = prepare.prepare(path, described(None, size), "visible")
        assert np.array_equal(found, normalise(load_image(path, size))), orientation


@pytest.mark.parametrize("name", NOT_COVERED)
def test_both_readers_refuse_what_pillow_misreads(tmp_path, name):
    path = tmp_path / name
    NOT_COVERED[name](path)
    with pytest.raises(ValueError, match=r"not covered by the graph's preparation"):
        prepare.prepare(path, described((0, 1000)), "visible")
    with pytest.raises(InputError):
        load_image(path, (48, 24), None, (0, 1000))


def test_both_readers_take_the_same_tiffs(tmp_path):
    preparation, taken = described((-200, 50000)), 0
    for kind in tiff_kinds()[::3]:  # all would take 12 s
        path = kind.write(tmp_path / "a.tif", kind.values(20, 20))
        try:
            expected = normalise(load_image(path, (48, 24), None, (-200, 50000)))
        except InputError:
            with pytest.raises((ValueError, OSError)):
                prepare.prepare(path, preparation, "visible")
        else:
            assert np.array_equal(prepare.prepare(path, preparation, "visible"), expected), kind
            taken += 1
    assert taken > 20


def test_values_without_a_range_are_refused_by_both_readers(tmp_path):
    path = tmp_path / "float.tif"
    KINDS["float.tif"](path)
    with pytest.raises(InputError, match="no range of them is known"):
        load_image(path, (48, 24))
    with pytest.raises(ValueError, match="not covered"):
        prepare.prepare(path, described(None), "visible")


def test_the_second_reader_needs_pillow_and_numpy_alone():
    tree = ast.parse(Path(prepare.__file__).read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules - set(sys.stdlib_module_names) == {"numpy", "PIL"}


@pytest.mark.parametrize("kind", FORMATS)
def test_thermal_counts_prepared_by_the_file_have_the_features_of_extract(exported, trained, tmp_path, kind):
    path = exported("thermal", kind) / f"out.{kind}"
    preparation = prepare.load(path)
    assert preparation["steps"][1]["ranges"] == {
        "visible": [0, 1023],
        "infrared": [20.5, 300.25],
        "infrared/3": [1000, 52000],
    }
    assert json.loads(stored_in(path)["decoding"]) == dict.fromkeys(("visible", "infrared"), "see preparation")
    rows = []
    for number, (infrared, camera, scale) in enumerate([(0, 1, 1000), (1, 2, 290), (1, 3, 50000), (1, -1, 290)]):
        picture = tmp_path / f"{number}.png"
        Image.fromarray((np.roll(SMOOTH, 9 * number, 0) * scale).astype(np.uint16)).save(picture)
        rows.append((picture, 0, camera, bool(infrared)))
    images = [prepare.prepare(row[0], preparation, ("visible", "infrared")[row[3]], row[2]) for row in rows]
    found = FORMATS[kind].load(path)(np.stack(images))
    assert found == pytest.approx(trained["thermal"].extractor.extract(image_set(rows)), abs=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == 4


@pytest.mark.parametrize(("family", "kind"), [("pmt", "mindir"), ("agw", "onnx")])
def test_the_preparation_is_in_the_graph_as_well_and_of_no_other_graph(exported, tmp_path, family, kind):
    for path in exported(family, kind).glob(f"*.{kind}"):
        beside = prepare.load(path)
        info = stored_in(path)
        assert beside.pop("graph")["file"] == path.name
        assert beside == json.loads(info["preparation"])
        assert beside["modalities"] == list(json.loads(info["decoding"]))
        shutil.copy(f"{path}.json", tmp_path / f"{path.name}.json")
        (tmp_path / path.name).write_bytes(path.read_bytes() + b" ")
        with pytest.raises(ValueError, match="belongs to another graph; export again"):
            prepare.load(tmp_path / path.name)


def test_a_modality_that_is_not_the_graphs_is_refused(exported, tmp_path):
    preparation = prepare.load(exported("agw", "onnx") / "out-visible.onnx")
    with pytest.raises(ValueError, match="modality infrared: not of this graph"):
        prepare.prepare(tmp_path / "any.png", preparation, "infrared")


CHANGES = {  # of a step, by its number
    "without ranges": (1, {"ranges": {"visible": None, "infrared": None}}),
    "over white": (2, {"over": (255, 255, 255)}),
    "never turned": (3, {"orientations 2 to 8": ["ROTATE_180"] * 7}),
    "nearest neighbour": (5, {"filter": "NEAREST"}),
}


@pytest.mark.parametrize(("step", "change"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_wrong_preparation_refuses_the_export(run_export, monkeypatch, capfd, tmp_path, kind, step, change):
    def wrong(*arguments):
        preparation = describe(*arguments)
        preparation["steps"][step].update(change)
        return preparation

    monkeypatch.setattr(verification, "describe", wrong)
    said = refusal(capfd, run_export, "thermal", "--format", kind, "--output", f"out.{kind}")
    assert re.search(r"not written, as .*: its features of '.*' are .* off in batches of 3, and the limit is", said)
    assert list(tmp_path.iterdir()) == []


def test_any_batch_may_be_empty_in_onnx_and_not_in_mindir(run_export, exported, capfd):
    empty = np.empty((0, 3, 48, 24), np.float32)
    for family, width in (("pmt", 16), ("agw", 128), ("mun", 128)):
        for path in exported(family, "onnx").glob("*.onnx"):
            compute = onnx_graph.load(path)
            taken = verification.any_batch(compute, empty) == "any batch"
            # ONNX Runtime 1.23 computes a ResNet's maps in blocks on some processors, and then takes no empty batch.
            assert taken or (family != "pmt" and onnxruntime.__version__.startswith("1.23."))
            if taken:
                assert compute(empty).shape == (0, width)
    graph = nn.GraphCell(ms.load(str(exported("pmt", "mindir") / "out.mindir")))
    with pytest.raises(RuntimeError, match="must be at least 1"):
        graph(ms.Tensor(empty))
    capfd.readouterr()
    for kind, batch in (("onnx", "any batch"), ("mindir", "any batch of at least one picture")):
        run_export("pmt", "--format", kind, "--output", f"out.{kind}")
        said = capfd.readouterr().out
        assert f" to 16 features, {batch}, " in said
        assert f" of 12 files, prepared as out.{kind}.json says\n" in said


@pytest.mark.parametrize("rows", [None, 1])
def test_a_graph_that_needs_a_picture_says_so(trained, tmp_path, capfd, rows):
    """As one may with a layer of the user's own: it fails on an empty batch, or makes something of it."""

    def load(path):
        model = onnx.load(path)
        shape = onnx.numpy_helper.from_array(np.array([0, -1]), "shape")
        model.graph.initializer.append(shape)
        model.graph.node[-1].op_type = "Reshape"  # which names the output
        model.graph.node[-1].input.append("shape")
        onnx.save(model, path)
        graph = onnx_graph.load(path)
        return graph if rows is None else lambda images: graph(images) if len(images) else np.ones((rows, 16))

    format = SimpleNamespace(write=onnx_graph.write, load=load)
    verified = export_verified({tmp_path / "out.onnx": ExportRequest(trained["pmt"], BOTH)}, format)
    assert verified[tmp_path / "out.onnx"][0] == "any batch of at least one picture"
    assert capfd.readouterr().err == ""


def test_a_preparation_that_export_did_not_write_is_kept(run_export, tmp_path, capfd):
    (tmp_path / "out.onnx.json").write_text('{"people": 3}')
    said = refusal(capfd, run_export, "pmt", "--format", "onnx", "--output", "out.onnx")
    assert "out.onnx.json: already exists but was not written by this command; remove it" in said
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.onnx.json", '{"people": 3}')]


def test_an_earlier_preparation_never_stands_beside_a_new_graph(run_export, monkeypatch, tmp_path):
    run_export("thermal", "--format", "onnx", "--output", "out.onnx")
    earlier = (tmp_path / "out.onnx").read_bytes()

    def killed(source, target):
        if str(target).endswith(".json"):
            raise SystemExit(9)
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr("ms_vireid.files.writing.os.replace", killed)
    with pytest.raises(SystemExit):
        run_export("pmt", "--format", "onnx", "--output", "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() != earlier
    monkeypatch.undo()
    run_export("pmt", "--format", "onnx", "--output", "out.onnx")
    assert prepare.load(tmp_path / "out.onnx")["steps"][1]["ranges"] == {"visible": None, "infrared": None}


@pytest.mark.parametrize("page", ["docs/export.md", "docs/zh-CN/export.md"])
def test_the_pages_code_runs_without_this_toolbox(exported, tmp_path, page):
    root = Path(__file__).parents[1]
    (code,) = re.findall(r"^```python\n(.*?)^```", (root / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    write_folder(tmp_path / "people", ("0001", "0002"))
    shutil.copy(prepare.__file__, tmp_path / "prepare.py")
    for name in ("onnx", "onnx.json"):
        shutil.copy(exported("pmt", "onnx") / f"out.{name}", tmp_path / f"model.{name}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import sys\nsys.modules['ms_vireid'] = None\n" + code  # cannot be imported
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "(2, 16)\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_says_where_it_comes_from(exported, checkpoints, trained, tmp_path, kind):
    path = exported("mun", kind) / f"out-infrared.{kind}"
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode
    info = stored_in(path)
    checkpoint = json.loads(info["checkpoint"])
    assert checkpoint["sha256"] == hashlib.sha256(checkpoints["mun"].read_bytes()).hexdigest()
    assert (checkpoint["file"], checkpoint["epoch"]) == ("mun.safetensors", 1)
    assert (info["model"], info["modality"]) == ("mun", "infrared")
    assert list(json.loads(info["decoding"])) == ["infrared"]
    assert check_config(json.loads(info["config"]), "file") == trained["mun"].config


def test_one_modality_is_exported_alone_if_asked_to(run_export, tmp_path):
    run_export("mun", "--format", "onnx", "--modality", "infrared", "--output", "night.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night.onnx", "night.onnx.json"]
    assert stored_in(tmp_path / "night.onnx")["modality"] == "infrared"


def test_a_fixed_batch_is_fixed(run_export, trained, tmp_path):
    run_export("pmt", "--format", "onnx", "--batch-size", "4", "--output", "out.onnx")
    graph = onnx.load(tmp_path / "out.onnx").graph
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert shapes == [[4, 3, 48, 24], [4, 16]]
    run_export("agw", "--format", "mindir", "--batch-size", "2", "--modality", "visible", "--output", "out.mindir")
    graph = mindir.load(tmp_path / "out.mindir")
    assert graph(probe_images((48, 24), ["visible"])[:2]).shape == (2, 128)


def test_the_name_is_the_checkpoints_by_default(run_export, checkpoints, tmp_path):
    run_export("pmt", "--format", "onnx")
    assert checkpoints["pmt"].with_suffix(".onnx").exists()
    assert checkpoints["pmt"].with_suffix(".onnx.json").exists()
    (tmp_path / "run").mkdir()
    shutil.copy(checkpoints["pmt"], tmp_path / "run/model.safetensors")
    run_export("pmt", "--checkpoint", "run", "--format", "onnx")
    assert (tmp_path / "run/model.onnx").exists()


def wrong_modality(request, path):
    onnx_graph.write(replace(request, modality="visible"), path)


def another_power(request, path):
    pool = request.trained.model.pool
    pool.power = 3.001
    try:
        onnx_graph.write(request, path)
    finally:
        pool.power = 3.0


def first_of_the_batch(path):
    graph = onnx_graph.load(path)
    return lambda images: np.repeat(graph(images[:1]), len(images), axis=0)


@pytest.mark.parametrize(
    ("write", "load", "says"),
    [
        (wrong_modality, onnx_graph.load, "off in batches of 1, and the limit is"),
        (another_power, onnx_graph.load, "off in batches of 1, and the limit is"),
        (onnx_graph.write, first_of_the_batch, "off in batches of 3, and the limit is"),
        (onnx_graph.write, lambda path: lambda images: onnx_graph.load(path)(images)[:1], "not [3, 128]"),
        (
            onnx_graph.write,
            lambda path: lambda images: onnx_graph.load(path)(images) * np.nan,
            "are nan off in batches of 1",
        ),
    ],
    ids=["modality", "power", "first of the batch", "shape", "nan"],
)
def test_a_wrong_graph_does_not_get_its_name(trained, tmp_path, write, load, says):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    bad.write_bytes(b"earlier")
    agw = trained["agw"]
    requests = {good: ExportRequest(agw, "visible"), bad: ExportRequest(agw, "infrared")}
    with pytest.raises(InputError, match=r"\.onnx: not written, as the graph") as error:
        export_verified(requests, SimpleNamespace(write=write, load=load))
    assert says in str(error.value)
    assert bad.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]
    export_verified(requests, onnx_graph)
    names = ["bad.onnx", "bad.onnx.json", "good.onnx", "good.onnx.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    onnx.checker.check_model(onnx.load(bad))


def test_the_limit_grows_only_with_the_checkpoints_own_rounding(trained):
    """A BNNeck whose statistics have a small deviation around a large mean amplifies rounding."""
    pmt = trained["pmt"]
    assert reference(ExportRequest(pmt, BOTH)).limit == TOLERANCE
    neck = pmt.model.bottleneck
    kept = [p.asnumpy() for p in (neck.moving_mean, neck.moving_variance)]
    images = ms.Tensor(reference(ExportRequest(pmt, BOTH)).images)
    raw = pmt.model.base(images).asnumpy()
    try:
        neck.moving_mean.set_data(ms.Tensor(raw.mean(axis=0)))
        neck.moving_variance.set_data(ms.Tensor(np.full(16, 1e-6, np.float32)))
        expected = reference(ExportRequest(pmt, BOTH))
    finally:
        for parameter, value in zip((neck.moving_mean, neck.moving_variance), kept, strict=True):
            parameter.set_data(ms.Tensor(value))
    assert expected.limit < 1e-3
    shifted = lambda images: expected.features[: len(images)] + 2 * expected.limit  # noqa: E731
    with pytest.raises(ValueError, match="the limit is"):
        largest_error(shifted, expected, (3,))


def test_a_checkpoint_without_features_is_refused(tmp_path):
    path = write_trained(tmp_path / "model.safetensors", "pmt")
    (dead,) = load_trained([path])
    for parameter in dead.model.get_parameters():
        parameter.set_data(ms.Tensor(np.zeros(parameter.shape, np.float32)))
    with pytest.raises(InputError, match=r"features of different pictures are only 0\.0e\+00 apart"):
        reference(ExportRequest(dead, BOTH))


def test_exporting_leaves_the_model_as_it_was(trained, tmp_path):
    stage = trained["mun"].model.visible_stage
    pool, parameters = stage.maxpool, [p.name for p in trained["mun"].model.get_parameters()]
    mindir.write(ExportRequest(trained["mun"], "visible"), tmp_path / "out.mindir")
    assert stage.maxpool is pool
    assert [p.name for p in trained["mun"].model.get_parameters()] == parameters


def test_an_unknown_layer_is_named():
    with pytest.raises(InputError, match=r"Tanh: .* does not know how to write this layer.*register it there"):
        emit(nn.Tanh(), OnnxGraph(), "x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format", "onnx", "--output", "out.mindir"), "--output out.mindir: the file's name must end in .onnx"),
        (("--format", "onnx", "--modality", "visible"), "--modality visible: a PMT has one graph for both modalities"),
        (("--format", "onnx", "--checkpoint", "foreign.ckpt"), "foreign.ckpt NEW.safetensors --config RECIPE"),
        (("--format", "onnx", "--checkpoint", "cut.safetensors"), "cut.safetensors: not a whole weight file"),
    ],
)
def test_bad_options_are_refused_in_one_line(run_export, checkpoints, tmp_path, capfd, options, says):
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor([1.0])}], str(tmp_path / "foreign.ckpt"))
    (tmp_path / "cut.safetensors").write_bytes(checkpoints["pmt"].read_bytes()[:1000])
    before = sorted(tmp_path.iterdir())
    assert says in refusal(capfd, run_export, "pmt", *options)
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_named(run_export, monkeypatch, capfd):
    monkeypatch.setattr(
        "ms_vireid.command.running.find_spec", lambda package: None if package == "onnxruntime" else object()
    )
    said = refusal(capfd, run_export, "pmt", "--format", "onnx")
    assert said.endswith("needs onnxruntime: pip install -e '.[export]'")

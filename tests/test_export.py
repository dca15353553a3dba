"""`export.py`: files that compute what the checkpoint does, what is stored in them, and what is refused."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import cache
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
from ms_vireid.data.layout import read_layout
from ms_vireid.engine.checkpoint import save_checkpoint
from ms_vireid.exports import mindir, onnx_graph
from ms_vireid.exports.onnx_graph import Graph, emit
from ms_vireid.exports.verification import (
    BOTH,
    TOLERANCE,
    Request,
    export_verified,
    largest_error,
    probe_images,
    reference,
)
from ms_vireid.inference import load_trained
from ms_vireid.models import build_model

from .checkpoints import tiny_config
from .data.tree import write_folder
from .test_train import refusal

FAMILIES = ("pmt", "agw", "mun")
FORMATS = {"onnx": onnx_graph, "mindir": mindir}


def stored_in(path):
    """What was stored with the graph (`ms_vireid.exports.verification.describe`)."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    return dict(model.user_info)


def write_trained(path, family):
    """A checkpoint of a tiny model none of whose weights and statistics is as it was initialised."""
    config = tiny_config(family, path.parent / "nowhere")
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
    return {family: write_trained(folder / f"{family}.safetensors", family) for family in FAMILIES}


@pytest.fixture(scope="module")
def trained(checkpoints):
    return dict(zip(FAMILIES, load_trained(list(checkpoints.values())), strict=True))


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
    paths = sorted(exported(family, kind).iterdir())
    ends = [""] if family == "pmt" else ["-infrared", "-visible"]
    assert [path.name for path in paths] == [f"out{end}.{kind}" for end in ends]
    for path in paths:
        modality = stored_in(path)["modality"]
        images = reference(Request(trained[family], modality)).images[[2, 0, 1, 1, 0]]
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
    for path in exported(family, kind).iterdir():
        info = stored_in(path)
        for modality, decoding in json.loads(info["decoding"]).items():
            chosen = sorted((pictures / modality).rglob("*.jpg"))
            images = np.stack([prepare(picture, info, decoding) for picture in chosen])
            found = FORMATS[kind].load(path)(images)
            rows, _ = read_layout(pictures, [picture.relative_to(pictures) for picture in chosen])
            expected = trained[family].extractor.extract(rows)
            assert found == pytest.approx(expected, abs=1e-5)
            assert found.shape[1] == int(info["feature_width"])


def prepare(path, info, decoding):
    assert (info["channel_order"], info["layout"]) == ("RGB", "NCHW")
    height, width = json.loads(info["image_size"])
    picture = Image.open(path).convert(decoding)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    mean, std = (np.array(json.loads(info[key]), np.float32) for key in ("mean", "std"))
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)


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
    assert [path.name for path in tmp_path.iterdir()] == ["night.onnx"]
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


def baked_in(path):
    graph, always = onnx_graph.load(path), probe_images((48, 24), ["infrared"])[:1]
    return lambda images: np.repeat(graph(always), len(images), axis=0)


@pytest.mark.parametrize(
    ("write", "load", "says"),
    [
        (wrong_modality, onnx_graph.load, "off in batches of 1, and the limit is"),
        (another_power, onnx_graph.load, "off in batches of 1, and the limit is"),
        (onnx_graph.write, first_of_the_batch, "same vector for each picture in batches of 3"),
        (onnx_graph.write, baked_in, "same vector for each picture in batches of 1"),
        (onnx_graph.write, lambda path: lambda images: onnx_graph.load(path)(images)[:1], "not [3, 128]"),
        (onnx_graph.write, lambda path: lambda images: onnx_graph.load(path)(images) * np.nan, "not finite"),
    ],
    ids=["modality", "power", "first of the batch", "baked in", "shape", "nan"],
)
def test_a_wrong_graph_does_not_get_its_name(trained, tmp_path, write, load, says):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    bad.write_bytes(b"earlier")
    agw = trained["agw"]
    requests = {good: Request(agw, "visible"), bad: Request(agw, "infrared")}
    with pytest.raises(InputError, match=r"\.onnx: not written, as the graph") as error:
        export_verified(requests, SimpleNamespace(write=write, load=load))
    assert says in str(error.value)
    assert bad.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]
    export_verified(requests, onnx_graph)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.onnx", "good.onnx"]
    onnx.checker.check_model(onnx.load(bad))


def test_the_limit_grows_only_with_the_checkpoints_own_rounding(trained):
    """A BNNeck whose statistics have a small deviation around a large mean amplifies rounding."""
    pmt = trained["pmt"]
    assert reference(Request(pmt, BOTH)).limit == TOLERANCE
    neck = pmt.model.bottleneck
    kept = [p.asnumpy() for p in (neck.moving_mean, neck.moving_variance)]
    images = ms.Tensor(reference(Request(pmt, BOTH)).images)
    raw = pmt.model.base(images).asnumpy()
    try:
        neck.moving_mean.set_data(ms.Tensor(raw.mean(axis=0)))
        neck.moving_variance.set_data(ms.Tensor(np.full(16, 1e-6, np.float32)))
        expected = reference(Request(pmt, BOTH))
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
        reference(Request(dead, BOTH))


def test_exporting_leaves_the_model_as_it_was(trained, tmp_path):
    stage = trained["mun"].model.visible_stage
    pool, parameters = stage.maxpool, [p.name for p in trained["mun"].model.get_parameters()]
    mindir.write(Request(trained["mun"], "visible"), tmp_path / "out.mindir")
    assert stage.maxpool is pool
    assert [p.name for p in trained["mun"].model.get_parameters()] == parameters


def test_an_unknown_layer_is_named():
    with pytest.raises(InputError, match=r"Tanh: .* does not know how to write this layer.*register it there"):
        emit(nn.Tanh(), Graph(), "x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format", "tensorrt"), "argument --format: invalid choice: 'tensorrt'"),
        (("--format", "onnx", "--output", "out.mindir"), "--output out.mindir: the file's name must end in .onnx"),
        (("--format", "onnx", "--output", "no/out.onnx"), "--output no/out.onnx: its folder does not exist"),
        (("--format", "onnx", "--modality", "visible"), "--modality visible: a PMT has one graph for both modalities"),
        (("--format", "mindir", "--checkpoint", ""), "an argument is empty"),
        (("--format", "mindir", "--checkpoint", "no/m.safetensors"), "no/m.safetensors: no such checkpoint file"),
        (("--format", "onnx", "--checkpoint", "foreign.ckpt"), "foreign.ckpt: holds no configuration"),
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

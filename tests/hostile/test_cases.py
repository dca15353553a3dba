"""Input that lies in ways that the fuzzer (test_fuzz.py) does not find: exit code 2, one line, and nothing left."""

import json
import os
import shutil
import struct
import zipfile
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from ms_vireid.checkpoints.mindspore_checkpoint import RECORD
from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.names import MINDSPORE
from ms_vireid.files.checks import sealed, unsealed
from tests.checkpoints.test_weights import LIES

from .commands import assert_refused
from .good import DEVICE, TRAIN, rewrite_record

EVALUATE = ("ms_vireid.evaluate", *DEVICE, "--data-root", "sysu", "--checkpoint")
EXTRACT = ("ms_vireid.extract", *DEVICE, "--images", "pictures", "--output", "out.npz", "--checkpoint")
EXPORT = ("ms_vireid.export", "--format", "onnx", "--output", "out.onnx", "--checkpoint")
CONVERT = ("parity.convert",)
RESUME = (*TRAIN, "--output", "run", "--resume", "auto")
CASES = {}


def case(kind, name, command, change=None, says=""):
    """`change` spoils the folder, from within it; `says` is part of the line."""
    assert (kind, name) not in CASES, (kind, name)
    CASES[kind, name] = (command, change, says)


def cases(kind, changes, commands, says=""):
    """Each change before each command, by its name."""
    for (name, change), (reader, command) in product(changes.items(), commands.items()):
        case(kind, f"{name}-{reader}", command, change, says)


def write(path, content):
    return lambda: Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


# A .ckpt whose sizes, types and names do not agree; tests/files has them all. MindSpore's own reader crashes.
READERS = {"evaluate": (*EVALUATE, "bad.ckpt"), "convert": (*CONVERT, "bad.ckpt", "out.safetensors")}
LYING = ("negative-twice", "overflowing", "another-type")
cases("ckpt", {lie: write("bad.ckpt", LIES[lie]) for lie in LYING}, READERS, "bad.ckpt: ")


# A checkpoint's own configuration.
def configured(change):
    def changed(tree):
        return tree | {"config": change(tree["config"])}

    return lambda: rewrite_record(Path("run/model.safetensors"), Path("bad.safetensors"), changed)


def setting(dotted, value):
    def change(tree):
        node = tree
        *parents, last = dotted.split(".")
        for parent in parents:
            node = node[int(parent) if parent.isdecimal() else parent]
        node[last] = value
        return tree

    return configured(change)


CONFIGURATIONS = {
    "null": configured(lambda tree: None),
    "deep": configured(lambda tree: tree | {"model": deep(900)}),
    "many-classes": setting("model.num_classes", 10**11),
    "more-classes-than-the-file": setting("model.num_classes", 10**6),
    "deeper-model-than-the-file": setting("model.depth", 1000),
    "wider-model-than-the-file": setting("model.embed_dim", 8192),
    "many-workers": setting("data.workers", 10**9),
    "large-batch": setting("evaluation.batch_size", 10**9),
    "unknown-key": setting("data.command", "rm -rf /"),
    "unknown-model": setting("model.name", "\x1b[2Jx"),
    "nan": setting("optimizer.lr", float("nan")),
}


def deep(levels):
    tree = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


BAD = "bad.safetensors: "
RESUMED = {"resume": (*TRAIN, "--output", "new", "--resume", "bad.safetensors")}
EVALUATED = {"evaluate": (*EVALUATE, "bad.safetensors")}
CONVERTED = {"convert": (*CONVERT, "bad.safetensors", "out.safetensors")}
cases("configuration", CONFIGURATIONS, EVALUATED | {"export": (*EXPORT, "bad.safetensors")}, BAD)
cases("configuration", CONFIGURATIONS, CONVERTED)
READ = ("many-workers", "large-batch")
cases("configuration", {name: CONFIGURATIONS[name] for name in READ}, {"extract": (*EXTRACT, "bad.safetensors")}, BAD)


# The record (the JSON beside the weights).
def recorded(change):
    return lambda: rewrite_record(Path("run/last.safetensors"), Path("bad.safetensors"), change)


RECORD_TEXTS = {"not-json": "{", "null": "null", "a-number": "3", "a-list": "[1]", "empty": "", "deep": "[" * 100_000}
RECORD_TEXTS |= {"a-large-number": '{"step": ' + "9" * 5000 + "}"}
RECORD_VALUES = {
    "step-a-text": {"step": "x"},
    "step-negative": {"step": -1},
    "best-not-a-number": {"best": {"epoch": 1, "map": float("nan")}},
    "another-format": {"format": 99},
    "loss-scale-nothing": {"loss_scale": [0.0, 0.0]},
}
RECORDS = {name: recorded(lambda _, text=text: text) for name, text in RECORD_TEXTS.items()}
RECORDS |= {name: recorded(lambda tree, values=values: tree | values) for name, values in RECORD_VALUES.items()}
RECORDS["step-without-configuration"] = recorded(lambda tree: {"step": 1})
cases("record", RECORDS, EVALUATED | CONVERTED | RESUMED, BAD)


# A state that is none of this run's, or not whole: for both frameworks.
def state(change, path="run/last.safetensors"):
    """`change` gets the record and the arrays, and spoils them in place."""

    def changed():
        held = read_checkpoint(Path(path))
        record, arrays = held.meta, dict(held.arrays)
        change(record, arrays)
        write_checkpoint(Path("bad.safetensors"), arrays, record, held.framework)

    return changed


def without(*prefixes):
    def change(_, arrays):
        for name in [name for name in arrays if name.startswith(prefixes)]:
            del arrays[name]

    return change


def filled(prefix, value):
    def change(_, arrays):
        name = next(name for name in arrays if name.startswith(prefix))
        arrays[name] = np.full_like(arrays[name], value)

    return change


def negated(*suffixes):
    def change(_, arrays):
        arrays.update({name: -array for name, array in arrays.items() if name.endswith(suffixes)})

    return change


STATES = {
    "step-beyond-the-end": lambda record, _: record.update(step=3),
    "without-best": lambda record, _: record.pop("best"),
    "two-devices": lambda record, _: record.update(devices=2),
    "other-pictures": lambda record, _: record.update(data_checksum="0" * 64),
    "without-moments": without("exp_avg"),
    "second-moments-negative": filled("exp_avg_sq", -1e-9),
    "moments-nan": filled("exp_avg.", np.nan),
    "variances-negative": negated("moving_variance", "running_var"),
}
TORCH = ("torch_ref.train", "--config", "tiny.yaml", "--output", "new.safetensors", "--resume", "bad.safetensors")
cases("state", {name: state(change) for name, change in STATES.items()}, RESUMED, BAD)
for name in ("step-beyond-the-end", "without-moments", "second-moments-negative", "variances-negative"):
    case("state", f"{name}-torch", TORCH, state(STATES[name], "torch.safetensors"), BAD)

for name, held in (("empty", {}), ("list", []), ("text", "x"), ("of-lists", {"state": [], "param_groups": 3})):
    case("state", f"optimiser-{name}-torch", (*TORCH[:-1], "bad.pth"),
         lambda held=held: torch.save({"model": {}, "optimizer": held, "step": 1}, "bad.pth"), "bad.pth: ")  # fmt: skip


# What a run folder holds, on --resume and on a page.
def in_the_place_of(path, make):
    os.remove(path)
    make(path)


def to_a_device(path):
    os.symlink("/dev/zero", path)


def logged(**values):
    """A line more in the log."""

    def change():
        with Path("run/metrics.jsonl").open("a") as file:
            file.write(json.dumps({"epoch": 1, "step": 1} | values) + "\n")

    return change


def of_another_run():
    """The model of a run of another seed, and no result yet."""
    os.remove("run/result.json")
    held = read_checkpoint(Path("run/model.safetensors"))
    held.meta["config"]["seed"] = 7
    write_checkpoint(Path("run/model.safetensors"), held.arrays, held.meta, MINDSPORE)


FOLDERS = {
    "run-json-lacks-all": write("run/run.json", "{}"),
    "run-json-deep": write("run/run.json", '{"a":' * 100_000),
    "run-json-cores": lambda: spoil_json("run/run.json", cores=10**4000),
    "run-json-a-pipe": lambda: in_the_place_of("run/run.json", os.mkfifo),
    "run-json-large": lambda: os.truncate("run/run.json", 1 << 40),
}
METRICS = {
    "metrics-lists": write("run/metrics.jsonl", "[1]\n[2]\n[3]\n"),
    "metrics-step-of-4000-digits": logged(step=10**4000),
    "metrics-huge": logged(loss=1e308),
    "metrics-nan": logged(loss=float("nan")),
    "metrics-evaluation-huge": logged(evaluation={"map": 1e308}),
    "metrics-of-60-terms": lambda: [logged(**{f"term{number}": 1.0})() for number in range(60)],
    "metrics-large": lambda: os.truncate("run/metrics.jsonl", 1 << 40),
    "metrics-a-pipe": lambda: in_the_place_of("run/metrics.jsonl", os.mkfifo),
    "metrics-a-folder": lambda: in_the_place_of("run/metrics.jsonl", os.mkdir),
}


def spoil_json(path, **values):
    Path(path).write_text(json.dumps(sealed(unsealed(json.loads(Path(path).read_text())) | values)))


CURVES, PNG = ("ms_vireid.visualize", "curves"), ("--output", "a.png")
WHOLE_REPORT = ("ms_vireid.report", "run", *DEVICE)
REPORT = (*WHOLE_REPORT, "--queries", "0")
cases("folder", FOLDERS, {"resume": RESUME, "report": REPORT}, "run/run.json")
cases("folder", METRICS, {"resume": RESUME, "curves": (*CURVES, "run", *PNG)}, "metrics.jsonl")
case("folder", "result-a-list", WHOLE_REPORT, write("run/result.json", "[]"), "result.json")
RESULTS = {"nan": float("nan"), "huge": 1e308, "4000-digits": 10**4000, "negative": -1.0, "of-texts": "x"}
for name, value in RESULTS.items():
    change = lambda value=value: spoil_json("run/result.json", trained={"map": value})  # noqa: E731
    case("folder", f"result-{name}", WHOLE_REPORT, change, "result.json")
case("folder", "curves-of-a-pipe", (*CURVES, "pipe", *PNG), lambda: os.mkfifo("pipe"), "pipe: is not a regular file;")
of_a_step = lambda: shutil.copy("run/last.safetensors", "run/model.safetensors")  # noqa: E731
case("folder", "model-of-another-run", REPORT, of_a_step, "its SHA-256 is not that of the model in result.json")
case("folder", "model-of-another-run-by-its-record", REPORT, of_another_run, "belongs to a run with another seed")

# YAML.
CONFIGURED = (*TRAIN[:1], "--config", "bad.yaml", *DEVICE, "--output", "new")
ALIASES = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
TEXTS = {
    "brackets": "a: " + "[" * 3000,
    "alias-bomb": ALIASES,
    "many-values": "a: [" + "1," * 49_000 + "1]",
    "large": "#" * 10_000_000,
    "digits": "seed: " + "9" * 5000,
    "exponent": "optimizer: {lr: 1e999999}",
    "tag": "a: !!python/object/apply:os.system ['touch pwned']",
    "nul": "seed: \x00",
    "two-documents": "seed: 1\n---\nseed: 2",
    "long-key": "k" * 100_000 + ": 1",
    "escape-in-a-key": '"\\x1b[2J": 1',
    "bases": "base: " + "x/../" * 2000 + "bad.yaml",
    "base-nul": 'base: "a\\0b"',
}
for name, text in TEXTS.items():
    case("yaml", name, CONFIGURED, write("bad.yaml", text), "bad.yaml" if name not in ("bases", "base-nul") else "")


def chain():
    for number in range(60):
        Path(f"b{number}.yaml").write_text(f"base: b{number + 1}.yaml\n")


case("yaml", "chain-of-bases", (TRAIN[0], "--config", "b0.yaml", *DEVICE), chain, "more than 20 files")
zero = lambda: to_a_device("zero.yaml")  # noqa: E731
case("yaml", "a-device", (TRAIN[0], "--config", "zero.yaml", *DEVICE), zero, "zero.yaml: is not a regular file")
case("yaml", "pipe", (TRAIN[0], "--config", "pipe", *DEVICE), lambda: os.mkfifo("pipe"), "pipe: ")
for number, option in enumerate(("--output", "--config", "--resume", "--data-root")):
    case(
        "yaml", f"empty-option-{number}", (*TRAIN, f"{option}={('--', '')[number % 2]}"), None, f"{option} has no value"
    )
case("yaml", "override-deep", (*TRAIN, ".".join("a" * 3000) + "=1"))
case("yaml", "override-brackets", (*TRAIN, "seed=" + "[" * 3000))
case("yaml", "override-index", (*TRAIN, f"stages.{'9' * 5000}.epochs=1"))

# Sizes that no limit of a single number refuses (tests/test_bounds.py: each has one), and one that a limit does.
for override in (
    "data.image_size=[4096,4096] & model.stride=1",
    "model.depth=1000 & model.embed_dim=10000",
    "model={name: mun, width: 6400} & data.image_size=[240,144]",
    "model={name: agw, width: 6400}",
    "data.synthetic={train_identities: 9999, images_per_camera: 9999}",
    "train.num_identities=10000 & train.num_instances=1000",
):
    case("sizes", override, (*TRAIN, "--output", "new", *override.split(" & ")))

# Names of files.
LONG = "x" * 5000
MODEL = (*EXTRACT, "run/model.safetensors", "--output")
NAMES = {
    "long-checkpoint": ((*EVALUATE, f"{LONG}.safetensors"), None),
    "long-output": ((*MODEL, f"{LONG}.npz"), None),
    "long-run": ((*TRAIN, "--output", LONG), None),
    "long-weights": ((*TRAIN, "--output", "new", f"model.pretrained={LONG}.safetensors"), None),
    "bytes": ((TRAIN[0], "--config", os.fsdecode(b"\xff\xfe.yaml"), *DEVICE), None),
    "output-a-pipe": ((*MODEL, "pipe.npz"), lambda: os.mkfifo("pipe.npz")),
    "output-the-null-device": ((*EVALUATE, "run/model.safetensors", "--json", "/dev/null"), None),
    "checkpoint-a-pipe": ((*EVALUATE, "pipe.safetensors"), lambda: os.mkfifo("pipe.safetensors")),
    "checkpoint-a-device": ((*CONVERT, "zero.pth", "out.safetensors"), lambda: to_a_device("zero.pth")),
    "link-to-itself": ((*EVALUATE, "loop.safetensors"), lambda: os.symlink("loop.safetensors", "loop.safetensors")),
}
for name, (command, change) in NAMES.items():
    case("names", name, command, change)


# PyTorch's files, .safetensors, and weights that are not numbers.
def bomb():
    with zipfile.ZipFile("model.pth") as whole, zipfile.ZipFile("bad.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name) if not name.endswith("/0") else bytes(2**26))


def saved(content, **options):
    return lambda: torch.save(content, "bad.pth", **options)


class Program:
    def __reduce__(self):
        return os.system, ("touch pwned",)


PICKLES = {
    "bomb": bomb,
    "program": saved({"w": Program()}),
    "program-legacy": saved({"w": Program()}, _use_new_zipfile_serialization=False),
    "megabyte-name": saved({"x" * 2**20: torch.zeros(1)}),
    "deep": saved(deep(200)),
    "half": lambda: Path("bad.pth").write_bytes(Path("model.pth").read_bytes()[:3000]),
}
for name, change in PICKLES.items():
    case(
        "weights", f"pth-{name}", (*CONVERT, "bad.pth", "out.safetensors", "--config", "tiny.yaml"), change, "bad.pth: "
    )
HEADERS = {
    "huge": struct.pack("<Q", 2**62) + b"{}",
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "not-agreeing": struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}      ' + bytes(4),
}
PRETRAINED = {"pretrained": (*TRAIN, "--output", "new", "model.pretrained=bad.safetensors")}
BY_A_RECIPE = {"safetensors": (*CONVERTED["convert"], "--config", "tiny.yaml")}
headers = {name: write("bad.safetensors", content) for name, content in HEADERS.items()}
cases("weights", headers, BY_A_RECIPE | PRETRAINED, BAD)


# Weights that nobody can mean, in a stranger's file: what the checks of an own checkpoint refuse as well.
def stranger(change, config=None):
    def changed():
        arrays = dict(read_checkpoint(Path("foreign.safetensors")).arrays)
        change(arrays)
        record = None if config is None else {RECORD: json.dumps({"format": 1, "config": config})}
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, "bad.safetensors", record)

    return changed


def of_shape(name, *shape):
    return lambda arrays: arrays.update({name: np.zeros(shape, np.float32)})


STRANGERS = {
    "variances-below-0": lambda arrays: negated("moving_variance")(None, arrays),
    "two-names-of-one": lambda arrays: arrays.update({"bottleneck.weight": arrays["bottleneck.gamma"]}),
    "no-dimensions": of_shape("base.cls_token"),
    "no-rows": of_shape("classifier.weight", 0, 8),
}
strangers = {name: stranger(change) for name, change in STRANGERS.items()}
cases("weights", strangers, BY_A_RECIPE | PRETRAINED, "bad.safetensors: holds weights ")
OF_NOTHING = {"no-numbers": lambda arrays: arrays.clear() or arrays.update(a=np.zeros(3, np.float32))}
nothing = {name: stranger(change, {}) for name, change in OF_NOTHING.items()}
cases("weights", nothing, PRETRAINED, "its configuration names no model, nor do its weights")
odd = {f"a-record-of-{number}": stranger(lambda _: None, config) for number, config in enumerate((
    {"model": {"name": ["x"]}, "data": 3}, {"model": [1]}, {"data": {"image_size": "x"}}))}  # fmt: skip
cases("weights", odd, {"safetensors": CONVERTED["convert"]}, BAD)  # a file with a record takes no --config
escapes = lambda: save_file({"\x1b[2J": np.zeros(1, np.float32)}, "bad.safetensors")  # noqa: E731
cases("weights", {"escapes": escapes}, CONVERTED, BAD)


def not_numbers(value):
    def change():
        held = read_checkpoint(Path("run/model.safetensors"))
        arrays = {name: np.full_like(array, value) for name, array in held.arrays.items()}
        write_checkpoint(Path("bad.safetensors"), arrays, held.meta, MINDSPORE)

    return change


SEARCH = ("ms_vireid.retrieve", *DEVICE, "--query", "visible/one.png", "--gallery", "pictures", "--checkpoint")
SHOWN = {"ranking": ("--data-root", "sysu"), "similarity": ("--data-root", "sysu")}
SHOWN |= {"gradcam": ("--images", "visible/one.png")}
SEARCHED = {
    kind: ("ms_vireid.visualize", kind, *DEVICE, *PNG, *shown, "--checkpoint", "bad.safetensors")
    for kind, shown in SHOWN.items()
}
SEARCHED |= {"retrieve": (*SEARCH, "bad.safetensors")} | EVALUATED
case("weights", "zeros-extract", (*EXTRACT, "bad.safetensors"), not_numbers(0), "its feature has norm 0 instead of 1")
cases("weights", {name: not_numbers(float(name)) for name in ("nan", "inf", "3e38")}, SEARCHED)


# Features and indices.
def features(**changed):
    def change():
        with np.load("a.npz") as archive:
            held = {name: archive[name] for name in archive.files}
        np.savez("bad.npz", **{name: value for name, value in (held | changed).items() if value is not None})

    return change


FEATURES = {
    "no-archive": write("bad.npz", b"PK\x03\x04garbage"),
    "objects": features(features=np.array([{}], object)),
    "program": features(features=np.array([Program()], object)),
    "nan": features(features=np.full((8, 8), np.nan, np.float32)),
    "not-normalised": features(features=np.ones((8, 8), np.float32)),
    "no-paths": features(paths=None),
    "info-deep": features(info=np.array("[" * 100_000)),
    "info-images-nul": features(info=np.array(json.dumps(
        {"format": 2, "version": "", "checkpoint": {"file": "", "sha256": ""}, "config": {}, "images": "a\0b",
         "skipped": {}}))),
    "names-of-escapes": features(paths=np.array(["\x1b[2J"] * 8)),
    "pipe": lambda: os.mkfifo("bad.npz"),
}  # fmt: skip


def compressed():
    with zipfile.ZipFile("bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("features", "paths", "modality", "identities", "cameras", "info"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 8)}
                )
                for _ in range(3 if name != "features" else 200):
                    member.write(bytes(2**20))


FEATURES["bomb"] = compressed
NIGHT = ("ms_vireid.retrieve", "--query", "a.npz", "--gallery")
cases("features", FEATURES, {"gallery": (*NIGHT, "bad.npz")}, "bad.npz: ")
INDICES = {"empty": b"", "garbage": bytes(range(256)), "zip-of-nothing": b"PK\x05\x06" + bytes(18)}
indices = {name: write("bad.index", content) for name, content in INDICES.items()}
cases("features", indices, {"index": (*NIGHT, "bad.index")}, "bad.index: ")

# Pictures.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(pwned) (w) file closefile\nshowpage\n"


def picture(name, format, mode="RGB", size=(8, 8)):
    return lambda: Image.new(mode, size).save(f"pictures/visible/0001/{name}", format)


def raw_picture(content):
    return write("pictures/visible/0001/0.jpg", content)


def many_pixels():
    """A PNG of 40,000 x 40,000 pixels in a few bytes."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    raw_picture(head + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(12))()


PICTURES = {
    "eps": raw_picture(EPS),
    "empty": raw_picture(b""),
    "large": lambda: os.truncate("pictures/visible/0001/0.jpg", 1 << 40),
    "cut": lambda: raw_picture(Path("pictures/visible/0001/0.jpg").read_bytes()[:200])(),
    "pipe": lambda: in_the_place_of("pictures/visible/0001/0.jpg", os.mkfifo),
    "dangling-link": lambda: Path("pictures/visible/0001/z.jpg").symlink_to("gone.jpg"),
    "link-to-a-device": lambda: Path("pictures/visible/0001/z.jpg").symlink_to("/dev/zero"),
    "many-pixels": many_pixels,
    "floats": picture("0.jpg", "TIFF", "F"),
    "name-of-bytes": lambda: shutil.copy("pictures/visible/0001/0.jpg", b"pictures/visible/0001/\xff.jpg"),
    "name-of-escapes": lambda: shutil.copy("pictures/visible/0001/0.jpg", "pictures/visible/0001/\x1b[2J.jpg"),
}
NEW = (*TRAIN, "--output", "new")
TRAINED = (*NEW, "data.name=folder", "--data-root", "pictures", "train.num_identities=1", "data.sixteen_bit=full")
EXTRACTED = (*EXTRACT, "run/model.safetensors", "--workers", "0")
cases("pictures", PICTURES, {"extract": EXTRACTED, "train": TRAINED}, "pictures")
LIST = "sysu/exp/train_id.txt"
LISTS = {"identity-of-5000-digits": write(LIST, "9" * 5000), "list-large": lambda: os.truncate(LIST, 1 << 40)}
cases("pictures", LISTS, {"train": NEW}, "train_id.txt")
MAY_BEGIN = {"cut-train", "floats-train"}  # what only decoding finds is found in training


@pytest.mark.parametrize(("kind", "name"), CASES, ids=["-".join(key) for key in CASES])
def test_input_that_lies_is_refused_in_one_line(kind, name, good, commands, tmp_path, monkeypatch):
    command, change, says = CASES[kind, name]
    folder = shutil.copytree(good, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(folder)
    if change:
        change()
    before = listing(folder)
    line = assert_refused(commands.run(folder, *command))
    assert says in line
    if name not in MAY_BEGIN:
        assert listing(folder) == before


def listing(folder):
    """Every file with its size and time, so that one that was made, changed or removed is seen."""
    found = {}
    for place, folders, names in os.walk(os.fsencode(folder)):
        if b"out.npz.partial" in folders:
            folders.remove(b"out.npz.partial")  # what the same command goes on from, when the picture is repaired
        for name in set(names) - {b"lock"}:
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = status.st_size, status.st_mtime_ns
    return found

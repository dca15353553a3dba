"""One generator for each kind of input that a user gives: options, environments, keys of a configuration, weights,
pictures, and calls from Python. What there is of each is found in the code, so that what is added joins by itself; the
files that are mutated bit by bit are in test_fuzz.py, and moments of a stop in tests/test_interrupt.py.

A generator draws from a `random.Random`, spoils the folder that it is in, and returns what to run.
"""

import argparse
import importlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel
from safetensors.numpy import save_file

from ms_vireid.checkpoints.mindspore_checkpoint import RECORD
from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.command.running import Parser
from ms_vireid.config import Config

from .good import DEVICE, TRAIN
from .test_writing import COMMANDS, TABLE

LONG = "x" * 5000
# Of an option, a variable, or a key: absurd, hostile, and merely unusual. None names a place beyond the folder.
TEXTS = (
    *("", "--", "-", "=", "key=", "=value", "data.x=1", "nan", "inf", "-inf", "-1", "0", "1e999", "0x10", "1_0", "٣"),
    *("9" * 400, "-" + "9" * 400, LONG, "\x1b[2J", "a\nb", "\u202e", "ü", "a b", "%s%n", "{}", "[", "[1,2", "{a: b}"),
    *("true", "None", "null", "~", "*", "&a", "!!python/object:os.system", "../x", "./", "x/y/z", "x.npz", "x.png"),
    *("/dev/null", "/dev/zero", "/proc/self/mem", "pipe", "loop", "dangling", "run", "sysu", "pictures", "a.npz"),
    *("a.index", "model.pth", "model.ckpt", "tiny.yaml", "run/run.json", "visible/one.png", os.fsdecode(b"\xff.npz")),
)
VALUES = (
    *(None, True, False, -1, 0, 1, 2.5, 2**31, 2**63, 10**30, -(10**30), 1e308, 5e-324, float("nan"), float("inf")),
    *("", "x", "auto", "\x1b[2J", LONG, "none", "run", [], [[]], [1], [1, 2], [2, 1], [0.5, float("inf")], ["x"] * 3),
    *({}, {"name": "x"}, {"name": ["x"]}, {"a": {"b": 1}}, {"": 1}, {"id": {}}, {"id": None}),
)


ODD = (None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), "", "x", "\x1b[2J", "a" * 5000, [], [[]], {})
PLACES = 10**6  # of a file


def edits(rng):
    """Places of a file, and what is done there, with a few bytes."""
    kinds = "flip", "set", "insert", "remove", "cut", "repeat"
    count = rng.randint(1, 6)
    return [(rng.randrange(PLACES), rng.choice(kinds), rng.randbytes(rng.randrange(10))) for _ in range(count)]


def changes(rng):
    """Places of a tree, and odd values for them."""
    return [(rng.randrange(PLACES), rng.choice(ODD)) for _ in range(rng.randint(1, 4))]


def edited(content, edits):
    content = bytearray(content)
    for place, kind, new in edits:
        at = place * len(content) // PLACES
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << len(new) % 8
        elif kind == "set":
            content[at : at + len(new)] = new
        elif kind == "insert":
            content[at:at] = new
        elif kind == "remove":
            del content[at : at + len(new)]
        elif kind == "cut":
            del content[at:]
        else:
            content[at:at] = content[at : at + 50]
    return bytes(content)


def changed(tree, at):
    """A JSON tree with values at some of its places replaced."""
    for place, value in at:
        nodes = [(tree, key) for key in (tree if isinstance(tree, dict) else range(len(tree)))]
        for node, key in nodes:
            if isinstance(node[key], dict | list):
                nodes += [(node[key], k) for k in (node[key] if isinstance(node[key], dict) else range(len(node[key])))]
        if nodes:
            node, key = nodes[place % len(nodes)]
            node[key] = value
    return tree


def options_of(module: str, *kind: str) -> dict[str, argparse.Action]:
    """A command's options and positional arguments, by their names. kind: of visualize."""
    caught = []

    def stop(parser, *_):
        caught.append(parser)
        raise SystemExit

    with patch.object(Parser, "parse_known_args", stop), suppress(SystemExit):
        importlib.import_module(module).main()
    (parser,) = caught
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            (name,) = kind
            parser = action.choices[name]
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    return {(action.option_strings or [action.dest])[-1]: action for action in actions}


def _kind(command: tuple[str, ...]) -> tuple[str, ...]:
    return (command[0], command[1]) if command[0] == "ms_vireid.visualize" else (command[0],)


LADDER = ("parity.report", "--rung", "3", "--match", "hct", "--backend", "eager")
GOOD = {_kind(command): command for command in (*(command for command, _ in COMMANDS.values()), TABLE, LADDER)}


# Reserves the addresses of a device's memory, more than `commands.MEMORY` lets a command have; tests/device has it.
STAND_IN = "--stand-in"


def planted() -> None:
    """Odd things that a text may name."""
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("gone", "dangling")


def options(rng):
    """A good command with one option, or a positional argument, more or otherwise."""
    planted()
    kind = rng.choice(sorted(GOOD))
    actions = {name: action for name, action in options_of(*kind).items() if name != STAND_IN}
    name, value = rng.choice(sorted(actions)), rng.choice(TEXTS)
    action = actions[name]
    if not action.option_strings:
        return (*GOOD[kind], value)
    if action.nargs == 0:
        return (*GOOD[kind], rng.choice([name, f"{name}={value}", name[:-1]]))
    given = rng.choice([(name, value), (f"{name}={value}",), (name,), (name, value, value)])
    return (*GOOD[kind], *given)


def keys_of(section=Config, prefix: str = "") -> set[str]:
    """All keys that a configuration may have, dotted; those of lists and of losses by one place of each."""
    found = set()
    for name, field in section.model_fields.items():
        found.add(f"{prefix}{name}")
        for inner in _models(field.annotation):
            found |= keys_of(inner, f"{prefix}{name}.")
    return found


def _models(kind: object) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for inner in get_args(kind) for model in _models(inner)]


def keys(rng):
    """One key of the configuration with another value, in its file or on the command line."""
    key, value = rng.choice(sorted(keys_of())), rng.choice(VALUES)
    key = key.replace("stages.", "stages.0.")
    quick = ("train.iterations=1", "--output", "new")
    if rng.random() < 0.5:
        (text, *_) = yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()
        return (*TRAIN, *quick, f"{key}={text}")
    tree = yaml.safe_load(Path("tiny.yaml").read_text())
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        held = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        node = held if isinstance(held, dict | list) else {}
    if isinstance(node, dict):
        node[last] = value
    Path("odd.yaml").write_text(yaml.safe_dump(tree))
    return ("ms_vireid.train", "--config", "odd.yaml", *DEVICE, *quick)


TYPES = ("float16", "float32", "float64", "int8", "int64", "uint16", "bool")
SHAPES = ((), (0,), (1,), (1, 0, 8), (8,), (1, 1, 1, 1, 1), (8, 8), (3, 8, 8, 8))
NUMBERS = (0.0, -1.0, 1.0, 1e-30, 3e38, float("inf"), float("nan"))
CONFIGS = (None, {}, {"model": []}, {"model": {"name": ["x"]}}, {"model": {"name": "mun"}}, {"data": 3}, [1], "x")


def weights(rng):
    """A stranger's weights with other types, shapes, numbers, names and records."""
    arrays = dict(read_checkpoint(Path("foreign.safetensors")).arrays)
    for _ in range(rng.randrange(4)):
        name = rng.choice(sorted(arrays))
        kind = rng.choice(["type", "shape", "numbers", "less", "more", "twin"])
        if kind == "type":
            arrays[name] = arrays[name].astype(rng.choice(TYPES))
        elif kind == "shape":
            arrays[name] = np.zeros(rng.choice(SHAPES), np.float32)
        elif kind == "numbers":
            arrays[name] = np.full_like(arrays[name], rng.choice(NUMBERS))
        elif kind == "less":
            del arrays[name]
        elif kind == "more":
            arrays[rng.choice(["x", "a.b", "module.x", "step", "num_batches_tracked", LONG[:600]])] = arrays[name]
        else:
            arrays[name.replace("gamma", "weight").replace("beta", "bias")] = arrays[name]
    config = rng.choice(CONFIGS)
    record = None if rng.random() < 0.5 else {RECORD: json.dumps({"format": 1, "config": config})}
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, "odd.safetensors", record)
    return rng.choice(
            [
                (*TRAIN, "--output", "new", "model.pretrained=odd.safetensors"),
                ("parity.convert", "odd.safetensors", "new.pth", "--config", "tiny.yaml"),
                ("parity.convert", "odd.safetensors", "new.ckpt"),
                ("ms_vireid.evaluate", *DEVICE, "--data-root", "sysu", "--checkpoint", "odd.safetensors"),
                ("torch_ref.train", "--config", "tiny.yaml", "--device", "cpu", "--steps", "1", "--output",
                 "new.safetensors", "model.pretrained=odd.safetensors"),
            ]
        )  # fmt: skip


MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "PA")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "ICO", "TGA", "JPEG2000", "MPO", "PDF")
SIDES = (1, 2, 7, 64, 300)


def pictures(rng):
    """A picture of another mode, format and size, whose name may promise another format, with spoiled bytes."""
    folder = Path("pictures/visible/0001")
    name = f"0{rng.choice(['.jpg', '.png', '.tif', '.bmp', '.webp', '.JPG', '.jpeg.png', ''])}"
    mode, format = rng.choice(MODES), rng.choice(FORMATS)
    size = rng.choice(SIDES), rng.choice(SIDES)
    try:
        Image.new(mode, size, 1).save(folder / name, format)
    except (OSError, ValueError, KeyError):  # the format has no such mode
        Image.new("RGB", size).save(folder / name, "PNG")
    if rng.random() < 0.5:
        (folder / name).write_bytes(edited((folder / name).read_bytes(), edits(rng)))
    given = ("--checkpoint", "run", *DEVICE)
    return rng.choice(
        [
            ("ms_vireid.extract", *given, "--images", "pictures", "--output", "new.npz", "--workers", "0"),
            ("ms_vireid.retrieve", *given, "--query", str(folder / name), "--gallery", "a.npz"),
            ("ms_vireid.check_data", "data.name=folder", "--data-root", "pictures"),
            ("ms_vireid.visualize", "gradcam", *given, "--images", str(folder / name), "--output", "new.png"),
        ]
    )


VARIABLES = (  # but for those whose values Python itself refuses
    *("HOME", "TMPDIR", "XDG_CACHE_HOME", "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LANGUAGE", "TZ", "TERM"),
    *("COLUMNS", "NO_COLOR", "OMP_NUM_THREADS", "NUMBA_CACHE_DIR", "GLOG_v", "VLOG_v"),
    *("GLOG_stderrthreshold", "GLOG_log_prefix", "logger_maxBytes", "logger_backupCount"),
    *("GLOG_log_dir", "GLOG_logtostderr", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "MPLBACKEND"),
    *("MPLCONFIGDIR", "RANK_ID", "RANK_SIZE", "DEVICE_ID", "MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID", "MS_DEV_SIMD"),
    *("ASCEND_HOME_PATH", "MS_VIREID_TRACEBACK", "MS_VIREID_X", "SOURCE_DATE_EPOCH", "GIT_DIR", "USER", "LOGNAME"),
)


def environment(rng) -> dict[str, str]:
    """One or two variables of the environment with another value."""
    return {name: rng.choice(TEXTS) for name in rng.sample(VARIABLES, rng.randint(1, 2))}


FRESH = (  # each imports another part
    ("ms_vireid.check_data", "--config", "tiny.yaml"),
    ("ms_vireid.evaluate", "--checkpoint", "run", "--device", "CPU"),
    ("ms_vireid.visualize", "curves", "run", "--output", "new.png"),
    ("ms_vireid.retrieve", "--query", "a.npz", "--gallery", "a.npz"),
)

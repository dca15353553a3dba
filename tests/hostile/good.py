"""A folder in which all is right: what the cases spoil."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ms_vireid.files.checks import FORMAT, META_KEY
from ms_vireid.files.ckpt import read_ckpt, write_ckpt
from tests.data.tree import write_folder, write_picture, write_sysu_mm01

CONFIG = """
data: {name: sysu_mm01, root: sysu, image_size: [16, 16], workers: 0}
model: {embed_dim: 8, num_heads: 2, depth: 1, patch_size: 8, stride: 8, dropout: 0.0, drop_path: 0.0}
stages:
  - epochs: 1
    visible: rgb
    losses: {id: {}, pht: {stage: 2}}
train: {num_identities: 2, num_instances: 2, iterations: 2, log_steps: 1}
evaluation: {trials: 1, batch_size: 8}
"""
TRAIN = ("ms_vireid.train", "--config", "tiny.yaml", "--device", "CPU")
DEVICE = ("--device", "CPU")


def write_good(folder: Path, commands) -> Path:
    """tiny.yaml, the data sets sysu and pictures, a finished run, features, an index, and weights of every format."""
    (folder / "tiny.yaml").write_text(CONFIG)
    write_sysu_mm01(folder / "sysu")
    write_folder(folder / "pictures", ("0001", "0002"))
    write_picture(folder / "visible" / "one.png")
    steps = [
        (*TRAIN, "--output", "run"),
        ("ms_vireid.extract", "--checkpoint", "run/model.ckpt", "--images", "pictures", "--output", "a.npz", *DEVICE),
        ("ms_vireid.retrieve", "--gallery", "a.npz", "--index", "flat", "--save-index", "a.index"),
        ("parity.convert", "run/last.ckpt", "last.pth"),
        ("parity.convert", "run/model.ckpt", "model.pth"),
        ("parity.convert", "run/model.ckpt", "model.safetensors"),
    ]
    for step in steps:
        done = commands.run(folder, *step, patient=True)
        assert done.code == 0, done
    arrays, _ = read_ckpt(folder / "run/model.ckpt")
    save_file({name: np.asarray(value) for name, value in arrays.items()}, folder / "foreign.safetensors")
    return folder


def rewrite_record(source: Path, target: Path, change) -> None:
    """The checkpoint `source` with another record: `change` gets its JSON's tree, and returns it or a text."""
    arrays, text = read_ckpt(source)
    changed = change(json.loads(text))
    write_ckpt(target, arrays, changed if isinstance(changed, str) else json.dumps(changed))


__all__ = ["CONFIG", "DEVICE", "FORMAT", "META_KEY", "TRAIN", "rewrite_record", "write_good"]

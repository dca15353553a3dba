"""A folder in which all is right: what the cases spoil."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from ms_vireid.checkpoints.mindspore_checkpoint import RECORD
from ms_vireid.checkpoints.weights import read_checkpoint
from tests.data.tree import write_folder, write_picture, write_sysu_mm01

CONFIG = """
data: {name: sysu_mm01, root: sysu, image_size: [16, 16], workers: 0}
model: {embed_dim: 8, num_heads: 2, depth: 1, patch_size: 8, stride: 8, dropout: 0.0, drop_path: 0.0}
stages:
  - epochs: 1
    visible: rgb
    losses: {id: {}, pht: {stage: 2}}
train: {num_identities: 2, num_instances: 2, iterations: 2, log_steps: 1, backend: eager}
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
    images = ("--images", "pictures", "--output", "a.npz", *DEVICE)
    steps = [
        (*TRAIN, "--output", "run"),
        ("ms_vireid.extract", "--checkpoint", "run/model.safetensors", *images),
        ("ms_vireid.retrieve", "--gallery", "a.npz", "--index", "flat", "--save-index", "a.index"),
        ("parity.convert", "run/last.safetensors", "torch.safetensors"),
        ("parity.convert", "run/model.safetensors", "model.pth"),
        ("parity.convert", "model.pth", "model.ckpt"),
    ]
    for step in steps:
        done = commands.run(folder, *step, patient=True)
        assert done.code == 0, done
    save_file(read_checkpoint(folder / "run/model.safetensors").arrays, folder / "foreign.safetensors")
    return folder


def rewrite_record(source: Path, target: Path, change) -> None:
    """The checkpoint `source` with another record: `change` gets its JSON's tree, and returns it or a text."""
    with safe_open(source, framework="np") as file:
        tree = json.loads(file.metadata()[RECORD])
    changed = change({key: value for key, value in tree.items() if key != "checksum"})
    text = changed if isinstance(changed, str) else json.dumps(changed)
    save_file(read_checkpoint(source).arrays, target, {RECORD: text})

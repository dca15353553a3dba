"""A folder with all that the commands read: data sets, runs, features, an index, and other weights."""

import sys
from pathlib import Path

import pytest

from ms_vireid.command.running import run
from tests.data.tree import write_folder, write_picture
from tests.hostile import good

CONFIG = good.CONFIG.replace("trials: 1", "trials: 2")
AGW = "{name: agw, layers: [1, 1, 1, 1], width: 4, non_local: [0, 0, 0, 0]}"


def write_sysu(root: Path, seed: int) -> None:
    people = {"train": (1, 2), "val": (3,), "test": (4, 5, 6)}
    (root / "exp").mkdir(parents=True)
    for split, identities in people.items():
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, identities)) + "\n")
    for identity in range(1, 7):
        for camera in range(1, 7):
            for number in range(2):
                path = root / f"cam{camera}" / f"{identity:04d}" / f"{number:04d}.jpg"
                write_picture(path, seed + 100 * identity + 10 * camera + number, gray=camera in (3, 6))


def write_all(folder: Path) -> Path:
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "other.yaml").write_text(CONFIG.replace("root: sysu", "root: moved").replace("depth: 1", "depth: 2"))
    write_sysu(folder / "sysu", 0)
    write_sysu(folder / "moved", 0)
    write_sysu(folder / "sysu2", 10_000)
    write_folder(folder / "people", ("0001", "0002", "0003", "0004"), 3)
    write_folder(folder / "night", ("0007", "0008", "0009"), 2)
    write_picture(folder / "frost" / "one.png", 77, (64, 64))
    (folder / "listed.txt").write_text("visible/0001/0.jpg\ninfrared/0002/1.jpg\n")
    train = ("ms_vireid.train", "--config", "tiny.yaml", "--device", "CPU", "--output")
    features = ("ms_vireid.extract", "--checkpoint", "run", "--device", "CPU", "--images")
    steps = (
        (*train, "run"),
        (*train, "other", "seed=1"),
        (*train, "own", "data.name=folder", "data.root=people"),
        (*train, "agw", f"model={AGW}"),
        (*features, "people", "--output", "people.npz"),
        (*features, "night", "--output", "night.npz"),
        (*features, "sysu", "--output", "sysu.npz"),
        ("ms_vireid.retrieve", "--gallery", "sysu.npz", "--index", "ivf", "--save-index", "ivf.index"),
        ("ms_vireid.retrieve", "--gallery", "sysu.npz", "--index", "flat", "--save-index", "flat.index"),
        ("ms_vireid.evaluate", "--checkpoint", "run", "--device", "CPU", "--json", "first.json"),
        ("ms_vireid.evaluate", "--checkpoint", "other", "--device", "CPU", "--json", "second.json"),
        ("parity.convert", "run/last.safetensors", "torch.safetensors"),
    )
    for module, *words in steps:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [module, *words])
            run(__import__(module, fromlist=["main"]).main)
    return folder

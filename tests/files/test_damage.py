"""What a command leaves for itself to read back, damaged: refused in one line, and never taken for something else."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MINDSPORE
from ms_vireid.config import SyntheticConfig
from ms_vireid.data.synthetic import MARKER, generate_sysu_mm01
from ms_vireid.engine.run_folder import Result, read_metrics
from ms_vireid.files.checks import read_json, sealed
from ms_vireid.files.writing import append_line, write_json
from ms_vireid.search.faiss_index import build_index, load_index, save_index
from ms_vireid.search.feature_files import load_features, save_features
from tests.search.galleries import gallery

METRICS = {"rank1": 0.1 + 0.2, "map": 1 / 3}
RESULT = {"trained": METRICS, "protocol": {"mean": METRICS, "std": dict.fromkeys(METRICS, 0.0), "trials": [METRICS],
    "num_queries": 3, "num_gallery": 4, "sha256": "0" * 64}}  # fmt: skip
ROWS = [{"epoch": 1, "step": step, "loss": 1 / step} for step in range(1, 6)]
ARRAYS = {"a": np.arange(60, dtype=np.float32), "exp_avg.a": np.ones(60, np.float32)}
META = {"config": {}, "epoch": 1}
SET = SyntheticConfig(train_identities=1, val_identities=1, test_identities=1, images_per_camera=1, image_size=(32, 16))


def write_checkpoint_at(path):
    write_checkpoint(path, ARRAYS, META, MINDSPORE)


def write_log(path):
    for row in ROWS:
        append_line(path, json.dumps(sealed(row)))


def held_by_checkpoint(path):
    held = read_checkpoint(path)
    arrays = {name: array.tobytes() for name, array in held.arrays.items()}
    return arrays, held.meta or META  # a file without a record is no state to resume from


def held_by_log(path):
    return [{key: row.get(key) for key in ROWS[0]} for row in read_metrics(path)]


def held_by_features(path):
    held = load_features(path)
    return held.features.tobytes(), held.paths.tolist(), held.identities.tolist(), held.cameras.tolist(), held.info


def held_by_index(path):
    index, held = load_index(path)
    similarity, found = index.search(gallery().features, 3)
    return similarity.tobytes(), found.tobytes(), held.paths.tolist(), held.info


# By the file's name: how it is written and what is read of it.
KINDS = {
    "last.safetensors": (write_checkpoint_at, held_by_checkpoint),
    "last.ckpt": (write_checkpoint_at, held_by_checkpoint),
    "result.json": (lambda path: write_json(path, RESULT), lambda path: read_json(path, Result)),
    "metrics.jsonl": (write_log, held_by_log),
    "a.npz": (lambda path: save_features(path, gallery()), held_by_features),
    "a.index": (lambda path: save_index(path, build_index("flat", gallery().features), gallery()), held_by_index),
}
DAMAGES = {
    "cut in half": lambda content: content[: len(content) // 2],
    "half zeroed": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "empty": lambda content: b"",
    "of something else": lambda content: b'{"rank1": 1.0}\n',
}


def refused(read, path):
    with pytest.raises(InputError) as error:
        read(path)
    assert path.name in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_one_line(name, damage, tmp_path):
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if name == "metrics.jsonl" and (damage.startswith("cut") or damage == "empty"):  # as a killed run leaves it
        rows = read(path)
        assert rows == ROWS[: len(rows)]
    else:
        refused(read, path)


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_anywhere_changes_nothing_or_is_one_line(name, tmp_path):
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    content, whole = path.read_bytes(), read(path)
    found = 0
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 120).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert read(path) == whole, place
        except InputError:
            found += 1
    assert found > 40


@pytest.mark.parametrize("name", ["a.npz", "a.index", "a.pth"])
def test_the_members_of_an_archive_are_counted_before_one_is_read(name, tmp_path):
    read = {"a.npz": load_features, "a.index": load_index, "a.pth": read_checkpoint}[name]
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for number in range(80):
            entry = zipfile.ZipInfo(f"a/{number}")
            entry.comment = bytes(60_000)  # a list of members as long as that of many
            archive.writestr(entry, b"")
    with pytest.raises(InputError, match=rf"{name}: .*it has too many members"):
        read(tmp_path / name)
    if name != "a.pth":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for number in range(101):
                archive.writestr(f"{number}.npy", b"")
        with pytest.raises(InputError, match=rf"{name}: .*it has 101 members"):
            read(tmp_path / name)


@pytest.mark.parametrize("spoilt", [MARKER, "exp/train_id.txt", "cam3/0001/0001.jpg"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_synthetic_set_that_is_damaged_is_not_trained_on(tmp_path, damage, spoilt):
    generate_sysu_mm01(tmp_path / "set", SET)
    path = tmp_path / "set" / spoilt
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InputError, match=r"set(/| is not| holds|: its pictures are damaged or changed; remove)"):
        generate_sysu_mm01(tmp_path / "set", SET)
    path.unlink()
    with pytest.raises(InputError, match=r"set( is not|: its pictures are damaged or changed; remove)"):
        generate_sysu_mm01(tmp_path / "set", SET)
    shutil.rmtree(tmp_path / "set")
    generate_sysu_mm01(tmp_path / "set", SET)

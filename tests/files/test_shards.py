"""Shards with an index: every weight once, from its own file, and nothing from elsewhere."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.files.shards import require_weight_file, weight_file
from ms_vireid.files.state_dict import read_state_dict
from ms_vireid.files.weights import has_checksum, read_checkpoint

WEIGHTS = {f"blocks.{i}.weight": torch.arange(6.0).reshape(2, 3) + i for i in range(5)}
SAVE = {".safetensors": save_file, ".bin": torch.save}
STEMS = {".safetensors": "model", ".bin": "pytorch_model"}


def write(folder, suffix=".safetensors", count=2):
    """Shards as the Hugging Face libraries save them; returns the index."""
    folder.mkdir(exist_ok=True)
    names = sorted(WEIGHTS)
    places = {}
    for number in range(count):
        file = f"{STEMS[suffix]}-{number + 1:05d}-of-{count:05d}{suffix}"
        SAVE[suffix]({name: WEIGHTS[name] for name in names[number::count]}, folder / file)
        places |= dict.fromkeys(names[number::count], file)
    index = folder / f"{STEMS[suffix]}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 120}, "weight_map": places}))
    return index


def change(index, **places):
    """The index with other places of weights; None takes one out."""
    tree = json.loads(index.read_text())
    tree["weight_map"] = {k: v for k, v in (tree["weight_map"] | places).items() if v is not None}
    index.write_text(json.dumps(tree))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("suffix", SAVE)
def test_a_folder_and_its_index_are_read_whole(tmp_path, suffix, count):
    index = write(tmp_path / "a", suffix, count)
    for path in (tmp_path / "a", index):
        read = read_checkpoint(require_weight_file(path))
        assert read.arrays.keys() == WEIGHTS.keys()
        assert all(np.array_equal(read.arrays[name], value.numpy()) for name, value in WEIGHTS.items())
    assert read_state_dict(index).names.keys() == {name.removeprefix("blocks.") for name in WEIGHTS}
    assert has_checksum(index) is (suffix == ".bin")


def test_links_to_files_elsewhere_are_shards_as_a_hub_s_cache_has_them(tmp_path):
    index = write(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in index.parent.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert read_checkpoint(weight_file(tmp_path / "snapshot")).arrays.keys() == WEIGHTS.keys()


def test_a_folder_s_one_file_or_its_safetensors_come_first(tmp_path):
    write(tmp_path, ".bin")
    assert weight_file(tmp_path).name == "pytorch_model.bin.index.json"
    write(tmp_path)
    assert weight_file(tmp_path).name == "model.safetensors.index.json"
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert weight_file(tmp_path).name == "model.safetensors"
    (tmp_path / "b").mkdir()
    torch.save(WEIGHTS, tmp_path / "b/pytorch_model.bin")
    assert read_checkpoint(weight_file(tmp_path / "b")).arrays.keys() == WEIGHTS.keys()


def test_a_shard_alone_is_refused_and_the_only_one_is_whole(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"00002.safetensors: is shard 2 of 2; give its folder or the .index.json in"):
        read_checkpoint(tmp_path / "model-00002-of-00002.safetensors")
    save_file(WEIGHTS, tmp_path / "b-00001-of-00001.safetensors")
    assert read_checkpoint(tmp_path / "b-00001-of-00001.safetensors").arrays.keys() == WEIGHTS.keys()


POINTER = "version https://git-lfs.github.com/spec/v1\noid a:b\nsize 3\n"
SECOND = "model-00002-of-00002.safetensors"
SPOILED = {
    "missing": (lambda index: (index.parent / SECOND).unlink(), r"that it names are missing: 1 \(model-00002"),
    "extra": (
        lambda index: save_file(WEIGHTS, index.parent / "model-00003-of-00003.safetensors"),
        r"beside it that it does not name: 1 \(model-00003",
    ),
    "twice": (
        lambda index: save_file(WEIGHTS, index.parent / SECOND),
        r"00002.safetensors: does not hold what model.safetensors.index.json says: 3 \(blocks.0.weight",
    ),
    "not there": (lambda index: change(index, extra=SECOND), r"does not hold what .* says: 1 \(extra\)"),
    "not named": (lambda index: change(index, **{"blocks.0.weight": None}), r"does not hold what .* 1 \(blocks.0.we"),
    "elsewhere": (lambda index: change(index, **{"blocks.0.weight": SECOND}), "does not hold what"),
    "above": (lambda index: change(index, a="../model.safetensors"), "names a shard '../model.safetensors', which"),
    "absolute": (lambda index: change(index, a="/etc/passwd"), "names a shard '/etc/passwd'"),
    "of Windows": (lambda index: change(index, a="..\\a.safetensors"), "names a shard"),
    "folder": (lambda index: change(index, a=".."), r"names a shard '\.\.'"),
    "nameless": (lambda index: change(index, a=""), "names a shard ''"),
    "zero": (lambda index: change(index, a="a\0b"), "names a shard"),
    "itself": (lambda index: change(index, a=index.name), "names a shard 'model.safetensors.index.json'"),
    "number": (lambda index: change(index, a=3), "is no index of shards"),
    "text": (lambda index: index.write_text("{"), "is no index of shards"),
    "list": (lambda index: index.write_text("[]"), "is no index of shards"),
    "deep": (lambda index: index.write_text("[" * 10**5), "is no index of shards"),
    "no map": (lambda index: index.write_text('{"weight_map": {}}'), "is no index of shards"),
    "map of lists": (lambda index: index.write_text('{"weight_map": ["a"]}'), "is no index of shards"),
    "many": (
        lambda index: change(index, **{f"w{i}": f"s{i}" for i in range(2000)}),
        "names 2,002 shards, more than 1,000",
    ),
    "pointer": (
        lambda index: (index.parent / SECOND).write_text(
            "version https://git-lfs.github.com/spec/v1\noid a:b\nsize 3\n"
        ),
        "00002.safetensors: is a Git LFS pointer",
    ),
    "cut off": (
        lambda index: (index.parent / SECOND).write_bytes(b"\x10"),
        "00002.safetensors: not a whole weight file",
    ),
    "a pipe": (lambda index: in_a_pipe(index.parent / SECOND), "are missing: 1"),
}


def in_a_pipe(path):

    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("kind", SPOILED)
def test_what_index_and_shards_do_not_agree_on_is_refused(tmp_path, kind):
    index = write(tmp_path)
    spoil, line = SPOILED[kind]
    spoil(index)
    with pytest.raises(InputError, match=line):
        read_checkpoint(weight_file(tmp_path))


def test_a_folder_in_parts_or_without_weights_says_what_to_do(tmp_path):
    folders = {
        ".metadata": rf"is of a distributed checkpoint .*dcp_to_torch {tmp_path}/.metadata-folder OUT.pth",
        "zero_to_fp32.py": r"is DeepSpeed's checkpoint, in parts; .*python zero_to_fp32.py . OUT",
        "zero_pp_rank_0_mp_rank_00_model_states.pt": "is DeepSpeed's checkpoint",
        "readme": "is a folder without weights",
    }
    for name, line in folders.items():
        folder = tmp_path / f"{name}-folder"
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(InputError, match=line):
            require_weight_file(folder)

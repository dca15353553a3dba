"""Weights in several files, with an index that says which lies where, as the Hugging Face libraries save them."""

import json
import re
from pathlib import Path

from ms_vireid.command.errors import InputError, first_few, shown
from ms_vireid.files.checks import MAX_JSON_BYTES, read_bytes
from ms_vireid.files.containers import DISTRIBUTED, GATHER_ZERO

INDEX = ".index.json"
MODEL = "model.safetensors"  # of a run, in its folder
_SINGLE = (MODEL, "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
_MAX_SHARDS = 1000
_NUMBER = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


def weight_file(path: Path) -> Path:
    """The file of weights at `path`: a file, or what a folder holds of a run, of the Hugging Face libraries, or the
    index of its shards. Raises InputError for a folder with the parts of several processes."""
    if not path.is_dir():
        return path
    indices = sorted(path.glob(f"*{INDEX}"), key=lambda index: (".safetensors." not in index.name, index.name))
    for candidate in (*(path / name for name in _SINGLE[:1]), *indices, *(path / name for name in _SINGLE[1:])):
        if candidate.exists():
            return candidate
    if (path / ".metadata").exists():
        raise InputError(f"{path}: {DISTRIBUTED.format(path)}")
    if (path / "zero_to_fp32.py").exists() or any(path.glob("*zero_pp_rank_*")):
        raise InputError(f"{path}: is DeepSpeed's checkpoint, in parts; {GATHER_ZERO}")
    return path / MODEL


def require_weight_file(path: Path) -> Path:
    """The file of weights at `path`; raises InputError for a folder without one."""
    file = weight_file(path)
    if path.is_dir() and not file.exists():
        raise InputError(f"{path}: is a folder without weights: neither {MODEL} nor an {INDEX} lies in it; give a file")
    return file


def read_index(path: Path) -> dict[Path, list[str]]:
    """Read an index: the names of the weights by shard.

    Raises InputError if it is no index, or if a shard lies outside its folder, is missing, or is there without being
    named.
    """
    try:
        tree = json.loads(read_bytes(path, "file", MAX_JSON_BYTES))
        places = tree["weight_map"]
        if not places or not all(isinstance(place, str) for place in places.values()):
            raise ValueError("no names of files")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: is no index of shards ({shown(error)}); use another copy") from None
    files = sorted(set(places.values()))
    if len(files) > _MAX_SHARDS:
        raise InputError(f"{path}: names {len(files):,} shards, more than {_MAX_SHARDS:,}; use another copy")
    for file in files:
        if file in ("", ".", "..") or set(file) & set("/\\\0") or file.endswith(INDEX):
            raise InputError(f"{path}: names a shard {shown(file)}, which is no file of its folder; use another copy")
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise InputError(f"{path}: shards that it names are missing: {len(missing)} ({first_few(missing)}); get them")
    shapes = {_NUMBER.sub("", file) for file in files if _NUMBER.search(file)}
    beside = sorted(file.name for file in path.parent.iterdir() if _NUMBER.search(file.name))
    if extra := [name for name in beside if name not in files and _NUMBER.sub("", name) in shapes]:
        problem = f"shards beside it that it does not name: {len(extra)} ({first_few(extra)})"
        raise InputError(f"{path}: {problem}; keep those of one saving")
    return {path.parent / file: [name for name, place in places.items() if place == file] for file in files}

"""What a weight file is, told by its first bytes, whatever its name says."""

import re
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import require_file
from ms_vireid.files.pointers import pointer

SAFETENSORS, CKPT, ARCHIVE, SEQUENCE = "safetensors", "ckpt", "archive", "sequence"  # the last two are PyTorch's
MODEL = "model.safetensors"  # of a run, in its folder
# In the name of one of several files, as the Hugging Face libraries save them.
_SHARD = re.compile(r"-\d{5}-of-(?!00001\b)\d{5}\.|\.index\.json$")
_JOIN_SHARDS = "save a sharded model as one file: save_pretrained(FOLDER, max_shard_size='1TB')"
_KINDS = "neither .safetensors nor MindSpore's .ckpt nor a file of torch.save"


def weight_file(path: Path) -> Path:
    """The file of weights at `path`: a file, or the model of a run folder. Raises InputError for another folder."""
    if not path.is_dir():
        return path
    if not (path / MODEL).exists():
        raise InputError(f"{path}: is a folder without {MODEL}; give one file of weights ({_JOIN_SHARDS})")
    return path / MODEL


def container(path: Path) -> str:
    """Return which of the constants above a file is; raises InputError for any other file, and for one of several
    shards."""
    require_file(path, "checkpoint file")
    if _SHARD.search(path.name):
        raise InputError(f"{path}: is one part of a sharded model; {_JOIN_SHARDS}")
    with path.open("rb") as file:
        start = file.read(64)
    if start[4:9] == b"\0\0\0\0{":  # after a header's length of less than 4 GiB, which may be any bytes
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        return ARCHIVE
    if re.match(rb"\x80[\x02-\x05]", start):  # a pickle and its protocol
        return SEQUENCE
    if re.match(rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x0a", start):  # protobuf: a field, its length, its first field
        return CKPT
    if found := pointer(start):
        raise InputError(f"{path}: {'; '.join(found)}")
    advice = "unpack it if it is packed, or use another copy"
    raise InputError(f"{path}: not a whole weight file: {_KINDS}, as it begins with {start[:8]!r}; {advice}")

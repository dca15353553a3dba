"""Weight files: `.safetensors` (this project's and others'), MindSpore's `.ckpt` and PyTorch's `.pth`, told by their
content.

The header of this project's `.safetensors` contains the record, a JSON string: the framework that the tensors' names
follow, a checksum and more. The optimizer's state is stored among the weights, as STATE.WEIGHT.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from ms_vireid.checkpoints.containers import ARCHIVE, CKPT, SAFETENSORS, container
from ms_vireid.checkpoints.mindspore_checkpoint import RECORD, read_ckpt, write_ckpt
from ms_vireid.checkpoints.pytorch_checkpoint import kind_of, read_pth, widened
from ms_vireid.checkpoints.weight_sets import Pickled, choose_set
from ms_vireid.command.errors import InputError, refuse, refuse_unfit
from ms_vireid.command.memory import require_memory
from ms_vireid.command.names import FRAMEWORKS, MINDSPORE, TORCH
from ms_vireid.files.checks import MAX_JSON_BYTES, check_count, check_names, parse_json
from ms_vireid.files.writing import atomic_write

FORMAT = 1  # version of the record
_PIECE = 16  # bytes that a piece of JSON counts for besides its own
STATES = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}  # torch.optim's names
PER_DEVICE = "devices"  # prefix of per-device buffers, stacked by rank
TRAINING = ("step", "best", "devices", "loss_scale")  # of the record of a state to resume from
# PyTorch's count of the batches that a BatchNorm has processed. MindSpore has none, but a converted file may keep it.
COUNTER = "num_batches_tracked"
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Scale = Annotated[float, Field(ge=0, le=2.0**127)]
_Digests = Annotated[str, Field(pattern=r"^([A-Za-z0-9+/]{8})*$")]  # of `data.digests.training_record`
Fraction = Annotated[float, Field(ge=0, le=1 + 1e-6, allow_inf_nan=False)]  # the mean may round up


class _Best(BaseModel):
    epoch: _Count
    map: Fraction


class Record(BaseModel):
    """The JSON saved with weights. It is data alone: nothing in it names a place to write to."""

    model_config = ConfigDict(strict=True, extra="ignore")

    format: Literal[1] = FORMAT
    framework: Literal["mindspore", "pytorch"] | None = None
    config: dict[str, Any] | None = None
    epoch: _Count | None = None
    parts: list[str] | None = None  # of a backbone's file
    data_checksum: str | None = None  # of the pictures that the model was trained on
    seen: _Digests | None = None
    seen_before: _Digests | None = None
    shared: _Digests | None = None
    # Only in a state to resume from:
    step: _Count | None = None
    best: _Best | None = None
    devices: Annotated[int, Field(ge=1, lt=2**16)] | None = None
    loss_scale: Annotated[list[_Scale], Field(min_length=2, max_length=2)] | None = None  # and good steps since

    @model_validator(mode="after")
    def _state_is_whole(self) -> "Record":
        if self.step is not None and (self.config is None or self.data_checksum is None):
            raise ValueError("a training state without its configuration or its data's checksum")
        if self.loss_scale is not None and not self.loss_scale[0]:
            raise ValueError("a loss scale of 0")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A file's arrays by name, the record saved with them ({} in a foreign file), and the framework that the names
    follow (None if the file does not say). beside: what else a `.pth` holds, with its type. sets: as of `Pickled`."""

    path: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any] = field(default_factory=dict)
    framework: str | None = None
    beside: dict[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ("",)

    def require(self, targets: Mapping[str, tuple[tuple[int, ...], np.dtype]], extra: Iterable[str] = ()) -> None:
        """Check that every target is present with its shape and type and is finite, that no variance or second moment
        is negative, and that there are no `extra` names. Raises one InputError for all problems."""
        present = [(name, self.arrays[name], *target) for name, target in targets.items() if name in self.arrays]
        differing = [
            f"{name} is {array.shape} {array.dtype}, the model's {shape} {dtype}"
            for name, array, shape, dtype in present
            if (array.shape, array.dtype) != (shape, dtype)
        ]
        kinds = {"missing": [name for name in targets if name not in self.arrays], "differing": differing}
        kinds |= {"not finite": [name for name, array, *_ in present if not np.isfinite(array).all()]}
        kinds |= {"negative": [name for name, array, *_ in present if is_square(name) and (array < 0).any()]}
        refuse_unfit(self.path, kinds | {"not in the model": list(extra)})


def is_square(name: str) -> bool:
    """Whether a weight is a variance or a second moment, which cannot be negative."""
    return name.startswith(f"{STATES['adamw'][1]}.") or name.endswith(("moving_variance", "running_var"))


def read_checkpoint(path: Path | str, framework: str | None = None, choice: str | None = None) -> Checkpoint:
    """Read a file of weights; bfloat16 becomes float32.

    framework: whose names it must have; None accepts either's. choice: the set of weights, as `choose_set` takes it.

    Raises InputError if the file is missing, damaged or has another format; if memory does not suffice; for types that
    NumPy lacks, names that cannot be printed, a record of another version, or the other framework's names.
    """
    path, pickled, whose = Path(path), None, None
    try:
        kind, size = container(path), path.stat().st_size
        needed = size if kind == SAFETENSORS else 3 * size
        require_memory(needed, f"{path}: reading it", "use another copy, or a machine with more memory")
        if kind == SAFETENSORS:
            arrays, text = _read_safetensors(path)
        elif kind == CKPT:
            (arrays, text), whose = read_ckpt(path), MINDSPORE
        else:
            pickled, whose = choose_set(path, read_pth(path, kind == ARCHIVE), choice), TORCH
            arrays, text = pickled.arrays, _pickled_record(pickled)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); copy it to a disk of this machine") from None
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        what = "MindSpore checkpoint" if kind == CKPT else "weight file"
        raise InputError(f"{path}: not a whole {what} ({size} bytes; {error}); use another copy") from None
    others = pickled.others if pickled else {}
    check_names(path, (*arrays, *others))
    meta = {} if text is None else _read_record(path, text, arrays)
    whose = meta.pop("framework", whose)
    if framework is not None and whose not in (framework, None):
        problem = f"has {FRAMEWORKS[whose]}'s names, not {FRAMEWORKS[framework]}'s"
        raise InputError(f"{path}: {problem}; convert it: python parity/convert.py {path} NEW.safetensors")
    beside = {name: kind_of(value) for name, value in others.items() if name not in ("format", *meta)}
    return Checkpoint(path, arrays, meta, whose, beside, pickled.sets if pickled else ("",))


def _pickled_record(pickled: Pickled) -> str | None:
    """The record of a `.pth` that convert.py wrote, as JSON."""
    if "config" not in pickled.others or not isinstance(pickled.others.get("format"), int):
        return None
    record = {k: v for k, v in pickled.others.items() if k in Record.model_fields and k not in TRAINING}
    pieces, left = [], MAX_JSON_BYTES
    try:
        for piece in json.JSONEncoder().iterencode(record):
            left -= len(piece) + _PIECE
            if left < 0:  # a pickle can use one value many times, at every depth
                return ""
            pieces.append(piece)
    except (TypeError, ValueError, RecursionError):
        return ""
    return "".join(pieces)


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    with safe_open(path, framework="np") as file:
        check_count(len(file.keys()))
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        foreign = [f"{name} is {kind}" for name, kind in types.items() if kind.startswith(("F8_", "F6_", "F4"))]
        refuse(foreign, f"{path}: types that NumPy lacks", "save them as float32")
        arrays = {name: file.get_tensor(name) for name, kind in types.items() if kind != "BF16"}
        record = (file.metadata() or {}).get(RECORD)
    if len(arrays) < len(types):
        require_memory(4 * path.stat().st_size, f"{path}: its bfloat16", "use a machine with more memory")
        for name, held in deserialize(path.read_bytes()):
            if name not in arrays:
                arrays[name] = widened(np.frombuffer(held["data"], "<u2")).reshape(held["shape"])
    return arrays, record


def _read_record(path: Path, text: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parse the record saved with `arrays` into a dictionary of the keys that are set. Raises InputError if it is not
    this project's or of another version, or if its checksum does not match the arrays."""
    try:
        tree = parse_json(text)
        if isinstance(tree, dict):
            if tree.get("format", FORMAT) != FORMAT:
                raise InputError(f"{path}: its checkpoint format is not version {FORMAT}; update ms_vireid")
            if (checksum := tree.pop("checksum", None)) is not None and checksum != _checksum(arrays, tree):
                raise InputError(f"{path}: not a whole weight file: its checksum differs; use another copy")
        record = Record.model_validate(tree)
        values = record.model_dump(exclude={"format"})
        explicit = {"best"} & record.model_fields_set  # which a state sets even to None
        return {key: value for key, value in values.items() if value is not None or key in explicit}
    except ValidationError as error:
        why = f" ({error.errors()[0]['msg']})"
    except (ValueError, RecursionError):
        why = ""
    raise InputError(f"{path}: its metadata '{RECORD}' is not JSON of this project{why}; use another copy")


def _checksum(arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record and of the arrays' names, types, shapes and content."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, str(arrays[name].dtype), arrays[name].shape]).encode())
        digest.update(arrays[name])
    return digest.hexdigest()


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], framework: str) -> None:
    """Write a `.safetensors` or `.ckpt`, by the suffix; raises InputError as `atomic_write` does."""
    record = {"format": FORMAT, "framework": framework, **meta}
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_write(path) as temporary:
        if path.suffix == ".ckpt":
            write_ckpt(temporary, arrays, json.dumps(record))
            return
        # One key: safetensors writes several in any order.
        header = {RECORD: json.dumps(record | {"checksum": _checksum(arrays, record)})}
        try:
            save_file(arrays, temporary, header)
        except SafetensorError as error:  # safetensors wraps the OSErrors of writing
            raise OSError(str(error)) from None


def write_finite(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], framework: str) -> None:
    """Write as `write_checkpoint`, but raise InputError for values that are not finite, which no command would load,
    before they replace a file."""
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    refuse(wrong, f"{path}: not written, as values are not finite", "lower optimizer.lr or check the data")
    write_checkpoint(path, arrays, meta, framework)

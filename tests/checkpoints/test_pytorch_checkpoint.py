"""PyTorch's files without PyTorch: every bit as torch.load has it, and nothing that a file names is called."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import io
import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MINDSPORE, TORCH

CONTAINERS = {"archive": True, "sequence": False}
FLAT = torch.arange(24, dtype=torch.float32)
TENSORS = {
    "weight": FLAT.reshape(2, 3, 4).clone(),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "expanded": torch.tensor([0.5]).expand(3, 2),
    "slice": FLAT[5:17].reshape(3, 4)[:, 1:],
    "shares with slice": FLAT[3:],
    "one number": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "half": torch.tensor([0.1, -65504, float("inf")], dtype=torch.float16),
    "double": torch.tensor([0.1, 1e300], dtype=torch.float64),
    "count": torch.tensor(-(2**62)),
    **{str(kind): torch.tensor([3, 0, 1]).to(kind) for kind in (torch.int32, torch.int16, torch.int8, torch.uint8)},
    "flags": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.tensor([-0.0, float("nan")])),
    "brain": torch.tensor([0.1, float("nan"), -0.0, 3e38], dtype=torch.bfloat16),
    **{f"one {kind}": torch.tensor(3).to(kind) for kind in (torch.bfloat16, torch.float16, torch.bool, torch.uint8)},
}


class Calls:
    """Pickled as a call of something."""

    def __init__(self, called, *arguments):
        self.called = called, arguments

    def __reduce__(self):
        return self.called


class Early:
    """A parameter as PyTorch 0.2 and before wrote it."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return torch.nn.parameter.Parameter, (self.tensor,), (True, False, OrderedDict())


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    return str(caught.value)


def assert_same(held, tensors):
    assert list(held) == list(tensors)
    for name, tensor in tensors.items():
        wanted = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        assert (held[name].dtype, held[name].shape) == (wanted.dtype, wanted.shape), name
        assert held[name].tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".t"])
def test_every_bit_is_as_pytorch_reads_it(tmp_path, container, protocol, suffix):
    path = tmp_path / f"a{suffix}"
    torch.save(TENSORS, path, pickle_protocol=protocol, _use_new_zipfile_serialization=CONTAINERS[container])
    read = read_checkpoint(path)
    assert_same(read.arrays, torch.load(path, weights_only=True) if protocol == 2 else TENSORS)
    assert (read.meta, read.framework) == ({}, TORCH)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net"])
def test_a_state_dict_is_found_beside_other_values(tmp_path, container, wrapper):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    content = {"epoch": 3, "best": 0.5, "type": torch.float32, "optimizer": optimizer.state_dict()}
    content[wrapper] = module.state_dict()  # an OrderedDict with _metadata
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=CONTAINERS[container])
    assert_same(read_checkpoint(tmp_path / "a.pth").arrays, module.state_dict())


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_lies_beside_weights_is_passed_over_by_name_and_never_made(tmp_path, container):
    beside = {
        "args": argparse.Namespace(lr=1, output=Path("a")),
        "best": np.float64(3),
        "curve": np.array([{}, None], dtype=object),
        "milestones": Counter({20: 1}),
        "device": torch.device("cpu"),
        "scheduler": {"last_epoch": 3, "base": [0.1]},
        "epoch": 3,
    }
    names = "argparse.Namespace numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct collections.Counter"
    kinds = dict(zip(beside, (*names.split(), "torch.device", "dictionary", "int"), strict=True))
    for content in ({"model": {"a": FLAT}, **beside}, {"a": FLAT, **beside}):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=CONTAINERS[container])
        read = read_checkpoint(tmp_path / "a.pth")
        assert_same(read.arrays, {"a": FLAT})
        assert read.beside == kinds


def test_one_of_several_sets_is_the_plain_one_or_the_one_asked_for(tmp_path):
    sets = {"state_dict_ema": {"a": FLAT + 1}, "state_dict": {"a": FLAT}, "teacher": {"a": FLAT + 2}}
    optimizer = {"state": {0: {"exp_avg": FLAT}}, "param_groups": [{"params": [0]}]}
    torch.save({**sets, "optimizer": optimizer, "epoch": 3}, tmp_path / "a.pth")
    for choice, added in ((None, 0), ("state_dict", 0), ("state_dict_ema", 1), ("teacher", 2)):
        read = read_checkpoint(tmp_path / "a.pth", choice=choice)
        assert_same(read.arrays, {"a": FLAT + added})
        assert read.sets[0] == (choice or "state_dict")
        assert set(read.sets) == {"state_dict", "state_dict_ema", "teacher"}
    torch.save({"model_ema": {"a": FLAT}, "epoch": 3}, tmp_path / "a.pth")  # the only one
    assert_same(read_checkpoint(tmp_path / "a.pth").arrays, {"a": FLAT})


def test_tensors_beside_a_plain_set_are_no_weights(tmp_path):
    content = {"rng_state": torch.get_rng_state(), "epoch": torch.tensor(3), "state_dict": {"a": FLAT}, "centers": FLAT}
    torch.save(content, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert_same(read.arrays, {"a": FLAT})
    assert read.sets == ("state_dict", "")
    assert read.beside == {"rng_state": "tensor", "epoch": "tensor", "centers": "tensor"}


def test_parameters_of_the_earliest_files_are_read(tmp_path):
    held = OrderedDict((name, Early(FLAT[first:])) for first, name in enumerate("ab"))
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(tmp_path / "a.pth").arrays, torch.load(tmp_path / "a.pth", weights_only=True))


def test_the_other_byte_order_is_read(tmp_path):
    torch.save({"a": FLAT, "b": TENSORS["brain"]}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = np.frombuffer(content, "u4" if len(content) == 96 else "u2").byteswap().tobytes()
            target.writestr(name, content)
    assert_same(read_checkpoint(tmp_path / "b.pth").arrays, {"a": FLAT, "b": TENSORS["brain"]})


def named(name, kind=None):
    """A class of any full name, which need not be there to be pickled: a subclass of `kind`."""
    module, _, last = name.rpartition(".")
    for end in range(len(module.split("."))):
        parent = ".".join(module.split(".")[: end + 1])
        sys.modules.setdefault(parent, types.ModuleType(parent))
    if hasattr(sys.modules[module], last):
        return getattr(sys.modules[module], last)
    made = type(last, (kind or object,), {"__module__": module})
    setattr(sys.modules[module], last, made)
    return made


PROGRAMS = {
    "posix.system": Calls(os.system, "touch ran"),
    "__builtin__.eval": Calls(eval, "open('ran', 'w')"),
    "__builtin__.exec": Calls(exec, "open('ran', 'w')"),
    "commands.Popen": Calls(subprocess.Popen, ["touch", "ran"]),  # as Python 2 named it
    "importlib.import_module": Calls(importlib.import_module, "antigravity"),
    "torch.serialization.load": Calls(torch.load, "other.pth"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_named_and_not_run(tmp_path, monkeypatch, container, program):
    monkeypatch.chdir(tmp_path)
    value = PROGRAMS[program]
    for content in ({"a": FLAT, "b": value}, {"model": {"a": FLAT}, "beside": [value]}, value):
        torch.save(content, "a.pth", _use_new_zipfile_serialization=CONTAINERS[container])
        line = refusal(Path("a.pth"))
        start = f"a.pth: refers to '{program}', which no weights need; it was not run; save a plain state"
        assert line.startswith(start)
    assert os.listdir() == ["a.pth"]


ODD_TENSORS = {
    "sparse": (torch.ones(2).to_sparse(), "has a tensor of torch._utils._rebuild_sparse_tensor, which is not plain"),
    "complex": (torch.ones(2, dtype=torch.complex64), "has a storage of torch.ComplexFloatStorage, which is not plain"),
    "meta": (torch.ones(2, device="meta"), "has a tensor of torch._utils._rebuild_meta_tensor_no_storage, which is no"),
    "float8": (torch.ones(2).to(torch.float8_e4m3fn), "has a (storage|tensor) of torch.*, which is not plain"),
    "quantised": (
        torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8),
        "has a tensor of torch._utils._rebuild_qtensor, which is not plain",
    ),
    "nested": (Calls(torch._utils._rebuild_nested_tensor, 1), "has a tensor of torch._utils._rebuild_nested_tensor"),
    "of another device": (
        Calls(named("torch_other.storage._rebuild_other_tensor"), FLAT),
        "has a tensor of torch_other.storage._rebuild_other_tensor, which is not plain",
    ),
    "of XLA": (
        Calls(named("torch._utils._rebuild_device_tensor_from_numpy"), FLAT.numpy(), torch.float32, "xla:0", False),
        "has a tensor of torch._utils._rebuild_device_tensor_from_numpy, which is not plain",
    ),
    "of one process": (
        Calls(named("torch.distributed.sharded.ShardedTensor"), 1),
        "has a tensor of torch.distributed.sharded.ShardedTensor, which is not plain",
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_a_tensor_that_is_no_plain_one_is_refused_wherever_it_is(tmp_path, container, kind):
    value, line = ODD_TENSORS[kind]
    for content in ({"a": FLAT, "b": value}, {"model": {"a": FLAT}, "b": [value]}, {"b": value}):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=CONTAINERS[container])
        said = refusal(tmp_path / "a.pth")
        assert re.search(line, said)
        assert said.endswith("; save plain tensors: .cpu(), .float(), .to_dense(), .dequantize(), .full_tensor()")


def test_a_tensor_that_is_negated_when_it_is_read_is_refused(tmp_path):
    torch.save({"a": FLAT, "b": torch.tensor([1 + 2j]).conj().imag}, tmp_path / "a.pth")
    assert "a tensor that is conjugated or negated when it is read: save its resolve_neg()" in refusal(
        tmp_path / "a.pth"
    )


def test_a_file_that_calls_a_whole_module_its_model_is_refused(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    kind = "torch.nn.modules.container.Sequential"
    remedy = "save a plain state dict: torch.save(model.state_dict(), path)"
    torch.save(module, tmp_path / "a.pth")
    assert f"holds a {kind}, not a state dict (tensors by name); {remedy}" in refusal(tmp_path / "a.pth")
    for content in ({"model": module}, {"model": module, "ema": {"a": FLAT}}, {"net": module, "epoch": 3}):
        torch.save(content, tmp_path / "a.pth")
        assert re.search(rf"no plain state dict .*: (model|net) is a {kind}.*state_dict", refusal(tmp_path / "a.pth"))
    torch.save({"model": module, "ema": {"a": FLAT}}, tmp_path / "a.pth")
    assert_same(read_checkpoint(tmp_path / "a.pth", choice="ema").arrays, {"a": FLAT})
    for name in ("net", ""):  # beside weights it is named, and no number of it is taken
        content = {"net": {"a": FLAT}} if name else {"a": FLAT}
        torch.save(content | {"whole": module}, tmp_path / "a.pth")
        read = read_checkpoint(tmp_path / "a.pth")
        assert_same(read.arrays, {"a": FLAT})
        assert read.beside == {"whole": kind}


class Level(enum.Enum):
    HIGH = 3


def settings(kind):
    """An object with values of its own, as configurations are."""
    value = kind()
    value.__dict__.update(lr=0.1, path="C:\\runs")
    return value


BESIDE = {
    "dictionary": named("easydict.EasyDict", dict)(lr=0.1),
    "list": named("omegaconf.listconfig.ListConfig", list)([1, 2]),
    "settings": settings(named("yacs.config.CfgNode")),
    "slots": settings(named("mmengine.logging.history_buffer.HistoryBuffer")),
    "windows": Calls(named("pathlib.WindowsPath"), "C:\\", "runs"),
    "newer": Calls(named("pathlib._local.PosixPath"), "runs"),
    "version": torch.torch_version.TorchVersion("2.4.0"),
    "namespace": types.SimpleNamespace(lr=0.1),
    "default": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2]),
    "sets": [{1, 2}, frozenset({(1, 2)})],
    "date": datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
    "complex": 1 + 2j,
    "numbers": [2**70, -(2**4000), 1e300, float("nan"), decimal.Decimal("0.1"), fractions.Fraction(1, 3)],
    "bytes": [b"a", bytearray(b"b"), "\u00e9"],
    "range": range(3),
    "enum": Level.HIGH,
    "partial": functools.partial(np.mean, axis=0),
    "class": InputError,
    "function": np.mean,
    "keys": {(1, 2): 3, None: 4, 0.5: 5, b"x": 6, 2**70: 7},
    "structured": np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "dates": np.array(["2024-05-01"], "datetime64[D]"),
    "generator": np.random.default_rng(0),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_lies_beside_weights_is_dropped_whatever_it_is(tmp_path, container, protocol):
    for name, value in BESIDE.items():
        for content in ({"state_dict": {"a": FLAT}, "args": value}, {"a": FLAT, "args": value}):
            options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": CONTAINERS[container]}
            torch.save(content, tmp_path / "a.pth", **options)
            read = read_checkpoint(tmp_path / "a.pth")
            assert_same(read.arrays, {"a": FLAT})
            assert list(read.beside) == ["args"], name


def test_tensors_inside_of_other_objects_are_never_taken_for_weights(tmp_path):
    hidden = {
        "dictionary": named("easydict.EasyDict", dict)(a=FLAT),
        "settings": types.SimpleNamespace(inside=[{"a": FLAT}]),
        "default": collections.defaultdict(list, {"a": FLAT}),
    }
    torch.save({"state_dict": {"a": FLAT + 1}, **hidden, "list": [hidden]}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert_same(read.arrays, {"a": FLAT + 1})
    assert read.beside.keys() == {*hidden, "list"}
    for value in hidden.values():
        for other in ({}, {"other": {"a": FLAT}}):
            torch.save({"state_dict": value, "epoch": 3, **other}, tmp_path / "a.pth")
            assert "(tensors by name): state_dict is a " in refusal(tmp_path / "a.pth")


def of_device(name, arguments):
    """A tensor that is pickled as a call of `name` with `arguments` of it."""
    function = named(name)

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor

        def __reduce__(self):
            return function, arguments(self.tensor)

    return Held


def plainly(tensor, *further):
    """The arguments of PyTorch's own tensors, then others."""
    places = tensor._typed_storage(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
    return (*places, False, OrderedDict(), *further)


FORMAT = Calls(named("torch_npu.npu._format.Format"), 29)
DEVICES = {
    "Ascend": ("torch_npu.utils.storage._rebuild_npu_tensor", lambda t: plainly(t, FORMAT)),
    "Ascend, earlier": ("torch_npu.utils.storage._rebuild_npu_tensor", lambda t: plainly(t, True)),
    "no storage": ("torch._utils._rebuild_device_tensor_from_cpu_tensor", lambda t: (t, t.dtype, "hpu", False)),
    "attributes": (
        "torch._tensor._rebuild_from_type_v2",
        lambda t: (torch._utils._rebuild_tensor_v2, torch.Tensor, plainly(t), {"is_norm": True}),
    ),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("device", DEVICES)
def test_tensors_of_other_devices_are_read_bit_for_bit(tmp_path, device, container, protocol):
    tensors = {name: value.detach() for name, value in TENSORS.items() if value.dtype != torch.bfloat16}
    held = of_device(*DEVICES[device])
    parameter = Calls(torch._utils._rebuild_parameter, held(FLAT), True, OrderedDict())
    content = {name: held(value) for name, value in tensors.items()} | {"wrapped": parameter}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": CONTAINERS[container]}
    torch.save({"state_dict": content, "epoch": 1}, tmp_path / "a.pth", **options)
    read = read_checkpoint(tmp_path / "a.pth")
    assert_same(read.arrays, tensors | {"wrapped": FLAT})


def test_storages_of_a_device_s_library_are_read(tmp_path):
    storage = StateDict("storage", named("torch_npu.npu.FloatStorage"), "0", "npu:0", 24)
    write_archive(tmp_path / "a.pth", tensor(storage=storage), FLAT.numpy().tobytes())
    assert_same(read_checkpoint(tmp_path / "a.pth").arrays, {"a": FLAT})


def test_a_file_without_checksums_or_numbers_is_refused(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"state_dict": TENSORS, "epoch": 3}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with torch.serialization.skip_data():
        torch.save({"a": FLAT, "b": FLAT.clone()}, tmp_path / "b.pth")
    for name in "ab":
        line = "has no checksums, as set_crc32_options(False) and skip_data of torch.serialization save; save it again"
        assert line in refusal(tmp_path / f"{name}.pth")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "holds no plain state dict (tensors by name): nothing"),
        ([1, 2], "holds a list, not a state dict"),
        ({"a": 1}, "a is a int"),
        ({"model": {"a": torch.tensor(1.0), "b": None}}, "model is a dictionary"),
        ({"a": torch.tensor(1.0), "b": None}, "a is a tensor, b is a nonetype"),
        ({"student": {"a": FLAT}, "teacher": {"a": FLAT}}, "several sets of weights (student, teacher); name one"),
        ({1: FLAT}, "int is a tensor"),
        ({"a": torch.ones(1).expand(10**12)}, "far more than the file has; save a clone"),
        ({"a\n": FLAT}, "contains a name of 2 characters, "),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, line):
    for container in CONTAINERS.values():
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=container)
        assert line in refusal(tmp_path / "a.pth")


class StateDict:
    """Pickled as a reference to a storage."""

    def __init__(self, *about):
        self.about = about


def write_archive(path, held, storage=b"\0" * 96):
    """An archive as PyTorch's, of any values; `held` may be a pickle's bytes."""
    file = io.BytesIO()
    pickler = pickle._Pickler(file, 2)
    pickler.persistent_id = lambda value: getattr(value, "about", None)
    if not isinstance(held, bytes):
        pickler.dump(held)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", held if isinstance(held, bytes) else file.getvalue())
        archive.writestr("a/data/0", storage)


def tensor(offset=0, shape=(24,), strides=(1,), storage=None):
    saved = storage or StateDict("storage", torch.FloatStorage, "0", "cpu", 24)
    return {"a": Calls(torch._utils._rebuild_tensor_v2, saved, offset, shape, strides, False, OrderedDict())}


def test_an_archive_by_hand_is_read(tmp_path):
    write_archive(tmp_path / "a.pth", tensor(3, (2, 3), (4, 2)), FLAT.numpy().tobytes())
    assert_same(read_checkpoint(tmp_path / "a.pth").arrays, {"a": FLAT.as_strided((2, 3), (4, 2), 3)})
    write_archive(tmp_path / "most.pth", tensor(3, (1,) * 32, (1,) * 32), FLAT.numpy().tobytes())
    assert read_checkpoint(tmp_path / "most.pth").arrays["a"].shape == (1,) * 32


def _long(number: int) -> bytes:
    """The instruction that makes a whole number."""
    content = number.to_bytes(12, "little")
    return b"\x8a" + bytes([len(content)]) + content


LIES = {
    "beyond": tensor(offset=1),
    "far beyond": tensor(offset=2**61),
    "before": tensor(offset=-1, shape=(3,)),
    "long": tensor(shape=(25,)),
    "long stride": tensor(shape=(3, 2), strides=(12, 1)),
    "negative": tensor(shape=(-1,)),
    "negative stride": tensor(23, (3,), (-1,)),
    "huge": tensor(shape=(2**40, 2**40), strides=(0, 0)),
    "huge in no memory": tensor(shape=(0, 2**61), strides=(2**61, 1)),
    "a truth": tensor(shape=(True,)),
    "a half": tensor(shape=(0.5,)),
    "texts": tensor(shape="24"),
    "no strides": tensor(strides=()),
    "many dimensions": tensor(shape=(1,) * 40, strides=(1,) * 40),
    "no storage": tensor(storage=[1]),
    "another reference": tensor(storage=StateDict("module", torch.FloatStorage, "0", "cpu", 24)),
    "a storage of no type": tensor(storage=StateDict("storage", "FloatStorage", "0", "cpu", 24)),
    "a longer storage": tensor(storage=StateDict("storage", torch.FloatStorage, "0", "cpu", 25)),
    "a shorter storage": tensor(shape=(1,), storage=StateDict("storage", torch.FloatStorage, "0", "cpu", 23)),
    "another type": tensor(storage=StateDict("storage", torch.DoubleStorage, "0", "cpu", 24)),
    "no such storage": tensor(storage=StateDict("storage", torch.FloatStorage, "1", "cpu", 24)),
    "a folder above": tensor(storage=StateDict("storage", torch.FloatStorage, "../data.pkl", "cpu", 24)),
    "a view": tensor(storage=StateDict("storage", torch.FloatStorage, "0", "cpu", 24, ("1", 0, 24))),
    "two sizes": {**tensor(), "b": tensor(storage=StateDict("storage", torch.FloatStorage, "0", "cpu", 12))["a"]},
    "too few arguments": {"a": Calls(torch._utils._rebuild_tensor_v2, 1)},
    "a parameter of text": {"a": Calls(torch._utils._rebuild_parameter, "text", True, OrderedDict())},
    "a call of a storage": {"a": Calls(torch.FloatStorage, 2**40)},
    "a size of a number": {"a": Calls(torch.Size, 3)},
    "a dictionary of numbers": Calls(OrderedDict, [1, 2]),
    "keys of pairs": {(1, 2): 3},
    "nothing": b"",
    "no end": b"\x80\x02}",
    "nothing to end with": b"\x80\x02.",
    "two values": b"\x80\x02}}.",
    "no mark": b"\x80\x02}(u.",
    "marks": b"\x80\x02((((t.",
    "a memo of nothing": b"\x80\x02h\x07.",
    "a number without end": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a text without end": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "an extension": b"\x80\x02\x82\x01.",
    "a class of the start": b"(ios\nsystem\n.",
    "a changed function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__code__K\x01sb.",
    "a changed list": b"\x80\x02]}b.",
    "a changed storage": b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n("
    + b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x18tQ}U\x04sizeKcsb"
    + b"K\x00Kc\x85K\x01\x85\x89}tRs.",
    "an array of bytes without end": b"\x80\x05\x96" + b"\xff" * 5 + b"\0\0\0.",
    "a call with a long list": b"\x80\x02(]("
    + b"N" * 10**5
    + b"eq\x00ctorch._utils\nf\nq\x01"
    + b"h\x01h\0R" * 10**5
    + b"t.",
    "tuples of tuples as a key": b"\x80\x04})" + b"2\x86" * 100 + b"K\x01s.",
    "a name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "numbers as a name": b"\x80\x04K\x01K\x02\x93.",
    "a list as its own item": b"\x80\x02]q\x00h\x00a.",
    "a long pickle": b"\x80\x02" + b"N" * 2**22 + b".",
    "a place of 2^31 in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a key of a million tuples": b"\x80\x04})" + b"\x85" * 10**6 + b"K\x01s.",
    "a set of a million tuples": b"\x80\x04\x8f()" + b"\x85" * 10**6 + b"\x90.",
    "numbers of one hash": b"\x80\x02}(" + b"".join(_long(k * (2**61 - 1)) + b"N" for k in range(10**5)) + b"u.",
    "a program of a program": {"a": Calls(torch._tensor._rebuild_from_type_v2, torch._tensor._rebuild_from_type_v2, 1)},
    "a dictionary made often": b"\x80\x02]("
    + b"](K\x01K\x01e" * 10**4
    + b"eq\x01ccollections\nOrderedDict\nq\x02"
    + b"h\x02h\x01\x85R" * 10**4
    + b".",
}


@pytest.mark.parametrize("lie", LIES)
def test_what_does_not_agree_is_refused_in_one_line(tmp_path, lie):
    write_archive(tmp_path / "a.pth", LIES[lie])
    line = refusal(tmp_path / "a.pth")
    assert line.startswith(f"{tmp_path}/a.pth: ")
    assert len(line) < len(str(tmp_path)) + 300


def test_a_storage_that_a_sequence_does_not_hold_is_refused(tmp_path):
    with (tmp_path / "a.pth").open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensor(), []):
            pickler = pickle._Pickler(file, 2)
            pickler.persistent_id = lambda value: getattr(value, "about", None)
            pickler.dump(value)
        file.write(bytes(200))
    assert "storages without numbers" in refusal(tmp_path / "a.pth")


def test_an_archive_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert "is a zip archive, but no file of torch.save (TorchScript is a program)" in refusal(path)
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert "compressed" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    assert "no file of torch.save (TorchScript is a program); save a plain state dict" in refusal(path)


def small(container) -> bytes:
    file = io.BytesIO()
    torch.save({"a": FLAT[:4].clone(), "b": FLAT.half()}, file, _use_new_zipfile_serialization=CONTAINERS[container])
    return file.getvalue()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_cut_off_anywhere_is_refused(tmp_path, container):
    path, whole = tmp_path / "a.pth", small(container)
    for size in range(0, len(whole), 5):
        path.write_bytes(whole[:size])
        # Where it ends within a name, that is another one.
        assert re.search("not a whole weight file|_rebuild_tensor?, which is not plain", refusal(path)), size


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_changed_byte_is_refused_or_does_no_harm(tmp_path, container):
    path, whole = tmp_path / "a.pth", small(container)
    drawn = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= int(drawn.integers(1, 256))
        path.write_bytes(changed)
        with suppress(InputError):  # and nothing else
            read_checkpoint(path)


def test_refusals_that_are_kept_and_collected_end_no_process(tmp_path):
    (tmp_path / "a.pth").write_bytes(small("sequence")[:-5])
    code = """
import gc, sys
from ms_vireid.checkpoints.weights import read_checkpoint
for _ in range(200):
    try:
        read_checkpoint(sys.argv[1])
    except Exception as error:
        error.itself = error  # it and its frames are garbage that refers to itself
gc.collect()
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pth"], check=True)


def test_torch_is_not_needed_and_mindspore_names_are_asked_for(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pth")
    code = (
        "import sys; sys.modules['torch'] = None; from ms_vireid.checkpoints.weights import read_checkpoint;"
        "print(len(read_checkpoint(sys.argv[1]).arrays))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.pth"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(TENSORS)}\n"
    with pytest.raises(InputError, match="has PyTorch's names, not MindSpore's; convert it"):
        read_checkpoint(tmp_path / "a.pth", MINDSPORE)

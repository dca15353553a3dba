"""Files mutated at random (by a fixed seed; --fuzz N for more): a command ends well or in one line, and never crashes.

Checksums are put right after a mutation where that is what lets it through to the next check.
"""

import json
import os
import shutil
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ms_vireid.files.checks import sealed, unsealed

from .commands import assert_no_crash
from .good import DEVICE, TRAIN, rewrite_record

SEED = 18
EVALUATE = ("ms_vireid.evaluate", *DEVICE, "--data-root", "sysu", "--checkpoint")
CHECK_DATA = ("ms_vireid.check_data", "--config", "tiny.yaml", "--json", "new.json")  # exit code 1: not as published
RETRIEVE = ("ms_vireid.retrieve", "--query", "a.npz", "--gallery")
ODD = st.sampled_from(
    [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), "", "x", "\x1b[2J", "a" * 5000, [], [[]], {}]
)
PLACES = st.integers(0, 10**6)  # of a millionth of a file
EDITS = st.lists(
    st.tuples(PLACES, st.sampled_from(["flip", "set", "insert", "remove", "cut", "repeat"]), st.binary(max_size=9)),
    min_size=1,
    max_size=6,
)


def edited(content, edits):
    content = bytearray(content)
    for place, kind, new in edits:
        at = place * len(content) // 10**6
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


def changed(tree, changes):
    """A JSON tree with values at some of its places replaced."""
    for place, value in changes:
        nodes = [(tree, key) for key in (tree if isinstance(tree, dict) else range(len(tree)))]
        for node, key in nodes:
            if isinstance(node[key], dict | list):
                nodes += [(node[key], k) for k in (node[key] if isinstance(node[key], dict) else range(len(node[key])))]
        if nodes:
            node, key = nodes[place % len(nodes)]
            node[key] = value
    return tree


CHANGES = st.lists(st.tuples(PLACES, ODD), min_size=1, max_size=4)


def ckpt(draw):
    content = Path("model.ckpt").read_bytes()[:-17]
    content = edited(content, draw(EDITS))
    Path("fuzzed.ckpt").write_bytes(content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big"))
    return (*EVALUATE, "fuzzed.ckpt")


def record(draw):
    fuzzed = Path("fuzzed.safetensors")
    rewrite_record(Path("run/last.safetensors"), fuzzed, lambda tree: changed(tree, draw(CHANGES)))
    if draw(st.booleans()):
        return (*EVALUATE, fuzzed)
    return (*TRAIN, "--output", "new", "--resume", fuzzed)


def configuration(draw):
    text = Path("tiny.yaml").read_text()
    if draw(st.booleans()):
        text = yaml.safe_dump(changed(yaml.safe_load(text), draw(CHANGES)))
    else:
        text = edited(text.encode(), draw(EDITS)).decode(errors="replace")
    Path("fuzzed.yaml").write_text(text)
    return ("ms_vireid.train", "--config", "fuzzed.yaml", *DEVICE, "--output", "new", "data.root=sysu")


def torch_file(draw):
    name = "model.pth"
    content = Path(name).read_bytes()
    if draw(st.booleans()):  # the pickle itself, in an archive with right CRCs
        packed = BytesIO()
        with zipfile.ZipFile(name) as archive, zipfile.ZipFile(packed, "w") as other:
            for member in archive.namelist():
                held = archive.read(member)
                other.writestr(member, edited(held, draw(EDITS)) if member.endswith("data.pkl") else held)
        content = packed.getvalue()
    else:
        content = edited(content, draw(EDITS))
    Path("fuzzed.pth").write_bytes(content)
    if draw(st.booleans()):  # read without PyTorch
        return (*TRAIN, "--output", "new", "model.pretrained=fuzzed.pth")
    return ("parity.convert", "fuzzed.pth", "new.safetensors", "--config", "tiny.yaml")


def safetensors(draw):
    name = draw(st.sampled_from(["run/last.safetensors", "torch.safetensors", "foreign.safetensors"]))
    content = Path(name).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = edited(content[8 : 8 + size], draw(EDITS))
    length = draw(st.sampled_from([len(header), size, 2**40]))
    Path("fuzzed.safetensors").write_bytes(length.to_bytes(8, "little") + header + content[8 + size :])
    return ("parity.convert", "fuzzed.safetensors", "new.safetensors", "--config", "tiny.yaml")


def arrays(draw):
    name = draw(st.sampled_from(["a.npz", "a.index"]))
    fuzzed = f"fuzzed{Path(name).suffix}"
    if draw(st.booleans()):
        with zipfile.ZipFile(name) as archive, zipfile.ZipFile(fuzzed, "w") as other:
            for member in archive.namelist():
                held = archive.read(member)  # not FAISS's own part, which only its CRC protects
                is_ours = member.endswith(".npy") and draw(st.booleans())
                other.writestr(member, edited(held, draw(EDITS)) if is_ours else held)
    else:
        Path(fuzzed).write_bytes(edited(Path(name).read_bytes(), draw(EDITS)))
    return (*RETRIEVE, fuzzed)


def run_folder(draw):
    name = draw(st.sampled_from(["run.json", "metrics.jsonl", "result.json"]))
    path = Path("run", name)
    if name == "metrics.jsonl" or draw(st.booleans()):
        path.write_bytes(edited(path.read_bytes(), draw(EDITS)))
    else:
        path.write_text(json.dumps(sealed(changed(unsealed(json.loads(path.read_text())), draw(CHANGES)))))
    return draw(
        st.sampled_from(
            [
                ("ms_vireid.report", "run", *DEVICE, "--queries", "0", "--data-root", "sysu"),
                ("ms_vireid.visualize", "curves", "run", "--output", "new.png"),
                (*TRAIN, "--output", "run", "--resume", "auto"),
            ]
        )
    )


def data_tree(draw):
    pictures = sorted(path for path in Path("sysu").rglob("*") if path.is_file())
    for place, kind, new in draw(EDITS):
        path = pictures[place % len(pictures)]
        if kind == "remove":
            path.unlink(missing_ok=True)
        elif kind == "repeat" and path.parent.is_dir() and not path.is_dir():
            path.unlink(missing_ok=True)
            path.symlink_to(draw(st.sampled_from(["..", path.name, "/dev/null", "../../.."])))
        elif kind == "insert" and not path.is_symlink():
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        elif path.is_file() and not path.is_symlink():
            path.write_bytes(edited(path.read_bytes(), [(place, kind, new)]))
    extract = ("ms_vireid.extract", *DEVICE, "--images", "sysu", "--output", "new.npz", "--workers", "0")
    extract += ("--checkpoint", "run/model.safetensors")
    return draw(st.sampled_from([(*TRAIN, "--output", "new"), CHECK_DATA, extract]))


KINDS = (ckpt, record, configuration, torch_file, safetensors, arrays, run_folder, data_tree)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_mutated_file_ends_well_or_in_one_line(kind, good, commands, tmp_path, monkeypatch, pytestconfig, capsys):
    count = 0

    @seed(SEED)
    @settings(
        max_examples=pytestconfig.getoption("--fuzz"),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data):
        nonlocal count
        folder = shutil.copytree(good, tmp_path / str(count), symlinks=True)
        count += 1
        monkeypatch.chdir(folder)
        try:
            command = kind(data.draw)
            done = commands.run(folder, *command)
            if command is not CHECK_DATA or done.code != 1 or done.stderr:
                assert_no_crash(done)
        finally:
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(folder)

    fuzz()
    with capsys.disabled():
        print(f"fuzzed {kind.__name__}: {count} examples, seed {SEED}")

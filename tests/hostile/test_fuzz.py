"""Input drawn at random (--fuzz N for more, --fuzz-seed for others): a command ends well or in one line, and never
crashes.

Checksums are put right after a mutation where that is what lets it through to the next check.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest
import yaml

import ms_vireid
from ms_vireid.command.names import CONFIG_ROOT
from ms_vireid.config import dump_config, flat, load_config
from ms_vireid.files.checks import sealed, unsealed

from .calls import called, drawn
from .commands import Outcome, assert_frugal, assert_no_crash
from .generators import (
    FRESH,
    GOOD,
    changed,
    changes,
    edited,
    edits,
    environment,
    keys,
    keys_of,
    options,
    options_of,
    pictures,
    weights,
)
from .good import DEVICE, TRAIN, rewrite_record
from .hungry import HUNGRY

ROOT = Path(__file__).parents[2]
DEMO = CONFIG_ROOT / "demo.yaml"
UNTRIED = {"parity.benchmark"}  # measures for minutes; its own tests have its options
EVALUATE = ("ms_vireid.evaluate", *DEVICE, "--data-root", "sysu", "--checkpoint")
CHECK_DATA = ("ms_vireid.check_data", "--config", "tiny.yaml", "--json", "new.json")  # exit code 1: not as published
RETRIEVE = ("ms_vireid.retrieve", "--query", "a.npz", "--gallery")


def ckpt(rng):
    content = Path("model.ckpt").read_bytes()[:-17]
    content = edited(content, edits(rng))
    Path("fuzzed.ckpt").write_bytes(content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big"))
    return (*EVALUATE, "fuzzed.ckpt")


def record(rng):
    fuzzed = Path("fuzzed.safetensors")
    rewrite_record(Path("run/last.safetensors"), fuzzed, lambda tree: changed(tree, changes(rng)))
    if rng.random() < 0.5:
        return (*EVALUATE, fuzzed)
    return (*TRAIN, "--output", "new", "--resume", fuzzed)


def configuration(rng):
    text = Path("tiny.yaml").read_text()
    if rng.random() < 0.5:
        text = yaml.safe_dump(changed(yaml.safe_load(text), changes(rng)))
    else:
        text = edited(text.encode(), edits(rng)).decode(errors="replace")
    Path("fuzzed.yaml").write_text(text)
    return ("ms_vireid.train", "--config", "fuzzed.yaml", *DEVICE, "--output", "new", "data.root=sysu")


def torch_file(rng):
    name = "model.pth"
    content = Path(name).read_bytes()
    if rng.random() < 0.5:  # the pickle itself, in an archive with right CRCs
        packed = BytesIO()
        with zipfile.ZipFile(name) as archive, zipfile.ZipFile(packed, "w") as other:
            for member in archive.namelist():
                held = archive.read(member)
                other.writestr(member, edited(held, edits(rng)) if member.endswith("data.pkl") else held)
        content = packed.getvalue()
    else:
        content = edited(content, edits(rng))
    Path("fuzzed.pth").write_bytes(content)
    if rng.random() < 0.5:  # read without PyTorch
        return (*TRAIN, "--output", "new", "model.pretrained=fuzzed.pth")
    return ("parity.convert", "fuzzed.pth", "new.safetensors", "--config", "tiny.yaml")


def safetensors(rng):
    name = rng.choice(["run/last.safetensors", "torch.safetensors", "foreign.safetensors"])
    content = Path(name).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = edited(content[8 : 8 + size], edits(rng))
    length = rng.choice([len(header), size, 2**40])
    Path("fuzzed.safetensors").write_bytes(length.to_bytes(8, "little") + header + content[8 + size :])
    return ("parity.convert", "fuzzed.safetensors", "new.safetensors", "--config", "tiny.yaml")


def arrays(rng):
    name = rng.choice(["a.npz", "a.index"])
    fuzzed = f"fuzzed{Path(name).suffix}"
    if rng.random() < 0.5:
        with zipfile.ZipFile(name) as archive, zipfile.ZipFile(fuzzed, "w") as other:
            for member in archive.namelist():
                held = archive.read(member)  # not FAISS's own part, which only its CRC protects
                is_ours = member.endswith(".npy") and rng.random() < 0.5
                other.writestr(member, edited(held, edits(rng)) if is_ours else held)
    else:
        Path(fuzzed).write_bytes(edited(Path(name).read_bytes(), edits(rng)))
    return (*RETRIEVE, fuzzed)


def run_folder(rng):
    name = rng.choice(["run.json", "metrics.jsonl", "result.json"])
    path = Path("run", name)
    if name == "metrics.jsonl" or rng.random() < 0.5:
        path.write_bytes(edited(path.read_bytes(), edits(rng)))
    else:
        path.write_text(json.dumps(sealed(changed(unsealed(json.loads(path.read_text())), changes(rng)))))
    return rng.choice(
        [
            ("ms_vireid.report", "run", *DEVICE, "--queries", "0", "--data-root", "sysu"),
            ("ms_vireid.visualize", "curves", "run", "--output", "new.png"),
            (*TRAIN, "--output", "run", "--resume", "auto"),
        ]
    )


def data_tree(rng):
    pictures = sorted(path for path in Path("sysu").rglob("*") if path.is_file())
    for place, kind, new in edits(rng):
        path = pictures[place % len(pictures)]
        if kind == "remove":
            path.unlink(missing_ok=True)
        elif kind == "repeat" and path.parent.is_dir() and not path.is_dir():
            path.unlink(missing_ok=True)
            path.symlink_to(rng.choice(["..", path.name, "/dev/null", "../../.."]))
        elif kind == "insert" and not path.is_symlink():
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        elif path.is_file() and not path.is_symlink():
            path.write_bytes(edited(path.read_bytes(), [(place, kind, new)]))
    extract = ("ms_vireid.extract", *DEVICE, "--images", "sysu", "--output", "new.npz", "--workers", "0")
    extract += ("--checkpoint", "run/model.safetensors")
    return rng.choice([(*TRAIN, "--output", "new"), CHECK_DATA, extract])


MUTATED = (ckpt, record, configuration, torch_file, safetensors, arrays, run_folder, data_tree)
GENERATED = (options, keys, weights, pictures, called)
NETWORK = 4 * 90_000_000  # bytes of a ViT-B, with which a file is compared that names no recipe
NOT_AS_ASKED = {"ms_vireid.check_data", "parity.report"}  # they may end with 1 and say why on standard output


@pytest.fixture
def tried(good, tmp_path, monkeypatch, pytestconfig, capsys):
    """Try a kind in copies of the good folder: `attempt` gets what it draws from and the folder, which it is in, and
    returns what was given. All that fail are named, by their numbers."""

    def run(name, attempt, share=1.0):
        count = pytestconfig.getoption("--fuzz") or (20 if pytestconfig.getoption("--all") else 8)
        first, count, failed = pytestconfig.getoption("--fuzz-seed"), max(1, int(count * share)), []
        for number in range(count):
            folder = shutil.copytree(good, tmp_path / str(number), symlinks=True)
            monkeypatch.chdir(folder)
            given, outcome = attempt(random.Random(f"{name} {first} {number}"), folder)
            try:
                asked = not NOT_AS_ASKED.isdisjoint(map(str, given))
                noted = all(line.startswith("note: ") for line in outcome.stderr.splitlines())
                if not (asked and outcome.code == 1 and noted):
                    assert_no_crash(outcome)
                assert_frugal(outcome, folder, NETWORK if "parity.convert" in map(str, given) else 0)
            except AssertionError:
                failed.append(f"{number}: {given}: {outcome.code}, {outcome.stderr[-1000:]}")
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(folder)
        with capsys.disabled():
            print(f"fuzzed {name}: {count} tried, {len(failed)} failing, seed {first}")
        assert not failed, "\n".join(failed)

    return run


@pytest.mark.parametrize("kind", [*MUTATED, *GENERATED], ids=lambda kind: kind.__name__)
def test_what_is_given_ends_well_or_in_one_line(kind, commands, tried):
    def attempt(rng, folder):
        command = kind(rng)
        return command, commands.run(folder, *command, patient=kind in GENERATED)

    tried(kind.__name__, attempt)


def test_what_asks_for_far_more_than_it_has_bytes_takes_no_time_and_no_memory(commands, tried, pytestconfig):
    def attempt(rng, folder):
        command = rng.choice(HUNGRY)(rng, rng.choice([1000, 30_000, 300_000]))
        return command, commands.run(folder, *command)

    tried("hungry", attempt, share=len(HUNGRY) if pytestconfig.getoption("--fuzz") else 1)


def test_an_environment_ends_well_or_in_one_line(tried):
    def attempt(rng, folder):
        variables, command = environment(rng), rng.choice(FRESH)
        given = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=600,
        )
        return (variables, *command), Outcome(done.returncode, done.stdout, done.stderr, 0.0)

    tried("environment", attempt, share=0.2)


def test_every_option_and_key_is_drawn():
    """By what the code has: a command without a good example here is none that options are tried of."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    commands = {name.replace("/", ".") for name in re.findall(r"^\| `python ([\w/]+)\.py", page, re.MULTILINE)}
    assert commands - {kind[0] for kind in GOOD} == UNTRIED
    found = {kind: set(options_of(*kind)) for kind in GOOD}
    assert {"--output", "--config", "overrides"} <= found["ms_vireid.train",]
    assert {"--images", "--output"} <= found["ms_vireid.visualize", "gradcam"]
    held = {re.sub(r"\.\d+", "", key) for key in flat(dump_config(load_config(DEMO)))}
    assert keys_of() >= {key for key in held if not key.startswith("stages.losses")}
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    imported = re.findall(r"^from ms_vireid\S* import (.*)", page, re.MULTILINE)
    public = {"features", "rank", *ms_vireid.__all__, *re.findall(r"\w+", " ".join(imported))}
    assert {name for name, _ in drawn()} >= public - {"InputError", "__version__", "list_models"}


# Which of these reach what is read; a new reader has its place here.
READERS = {
    "ckpt": ("read_ckpt", "load_checkpoint", "load_model", "load_parameters", "load_trained"),
    "record": ("read_checkpoint", "load_image"),
    "configuration": ("load_config", "read_yaml", "read_text", "read_bytes"),
    "torch_file": ("read_pth",),
    "weights": ("read_state_dict", "read_pretrained", "load_pretrained", "load_pretrained_vit", "load_backbone"),
    "arrays": ("load_features", "load_index", "read_archive"),
    "run_folder": ("read_json", "read_metrics", "read_curves"),
    "data_tree": ("read_data", "read_sysu_mm01", "read_layout", "read_lines", "read_test_set"),
    "pictures": ("read_pixels", "read_source"),
}
# Tried with lists of what is wrong.
BY_LISTS = {"read_photographs": "data/test_corruptions.py"}
BY_LISTS |= dict.fromkeys(("read_regdb", "read_llcm", "read_folder"), "data/test_readers.py")
BY_LISTS |= {"load_table": "ablations/test_own_table.py", "load_demo": "ablations/test_own_table.py"}


def test_every_reader_is_reached():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "ms_vireid").rglob("*.py")]
    readers = {name for text in texts for name in re.findall(r"^def ((?:read|load)_\w+)", text, re.MULTILINE)}
    assert readers == {name for names in READERS.values() for name in names} | BY_LISTS.keys()
    assert READERS.keys() <= {kind.__name__ for kind in (*MUTATED, *GENERATED)}
    assert all((ROOT / "tests" / file).is_file() for file in BY_LISTS.values())

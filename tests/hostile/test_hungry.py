"""Files that ask for far more than they have bytes for, of the kinds that took minutes or gigabytes: one line, at once.
The fuzzer (test_fuzz.py) draws others."""

import random
import struct
import time
import zlib
from pathlib import Path

import pytest

from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.command.errors import InputError, one_line
from ms_vireid.config import load_config
from ms_vireid.data.picture_paths import find_pictures
from ms_vireid.data.pictures import read_pixels
from ms_vireid.files.checks import parse_json

from . import hungry

RNG = random.Random(1)
ARRAY = b"\x0a\x10\x0a\1w\x12\x0b\x08\0\x12\x07Float32"  # of a .ckpt, empty
TEXTS = {"state_dict": {"w": hungry.Tensor((2, 2), (2, 1))}, "format": 1, "config": ["x" * 10**6] * 10**5}


def runs():
    header = struct.pack("<IiiHHIIIIII", 40, 5000, 5000, 1, 8, 1, 4, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 1082, 0, 0, 14 + len(header)) + header + b"\0\0\0\1"


def pages():
    one = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (279, 1)]
    tags = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in one)
    size = 6 + len(tags)
    ends = [8 + size * (i + 1) for i in range(20_000)]
    return b"II*\0\x08\0\0\0" + b"".join(struct.pack("<H", len(one)) + tags + struct.pack("<I", end) for end in ends)


def long_header():
    whole = hungry.saved(hungry.noise(RNG), "JPEG")
    return whole[:2] + hungry.segment(0xE1, b"Exif\0\0a") * 10**6 + whole[2:]


def of_generator(kind, name):
    def content():
        hungry.FOLDER.mkdir(parents=True, exist_ok=True)
        kind(random.Random(1), 300_000)
        return (hungry.FOLDER / name).read_bytes()

    return content


def ckpt(body):
    return body + b"crc_num" + zlib.crc32(body).to_bytes(10, "big")


CASES = {
    "scans": ("a.jpg", of_generator(hungry.jpeg_scans, "0.jpg"), read_pixels, "its 883 scans are more than 64"),
    "pages-of-a-jpeg": ("a.jpg", of_generator(hungry.mpo, "0.jpg"), read_pixels, "holds 32 or more pictures"),
    "pages-of-a-tiff": ("a.tif", pages, read_pixels, "holds 32 or more pictures"),
    "runs": ("a.bmp", runs, read_pixels, "is a BMP of runs with more than 16,777,216 pixels; save it"),
    "header": ("a.jpg", long_header, read_pixels, "it has far more parts than a picture"),
    "chunks": ("a.png", lambda: hungry.png(RNG, hungry.chunk(b"abCd") * 500_000), read_pixels, "far more parts"),
    "values": ("a.ckpt", lambda: ckpt(b"\x0a\0" * 10**6), read_checkpoint, "not a whole MindSpore checkpoint"),
    "arrays": ("a.ckpt", lambda: ckpt(ARRAY * 10**5), read_checkpoint, "more than 10,000 arrays"),
    "chain": ("a.yaml", lambda: b"base: b.yaml\n" + b"#" * 60_000, load_config, "files of more than 100,000 bytes"),
    "lines": ("a.txt", lambda: b"\n" * 3_000_000, lambda path: find_pictures(path.parent, path), "2,097,152 lines"),
}


@pytest.mark.parametrize("case", CASES)
def test_work_is_refused_before_it_is_done(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, content, read, line = CASES[case]
    Path("b.yaml").write_bytes(b"#" * 60_000)
    Path(name).write_bytes(content())
    began = time.process_time()
    with pytest.raises(InputError, match=line):
        read(tmp_path / name)
    assert time.process_time() - began < 5


def test_texts_that_a_pickle_uses_many_times_are_not_written_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hungry.pth(RNG, hungry.dumped(TEXTS))
    with pytest.raises(InputError, match="its metadata 'ms_vireid' is not JSON"):
        read_checkpoint(Path("hungry.pth"))


def test_json_may_have_many_values_only_if_they_are_long():
    assert len(parse_json(b"[" + b"0," * 100_000 + b"0]")) == 100_001
    with pytest.raises(ValueError, match="too many values"):
        parse_json("[" + "0," * 200_000 + "0]")
    long = "x" * 100
    assert len(parse_json(str([long] * 200_000).replace("'", '"'))) == 200_000


def test_a_section_of_very_many_keys_is_one_problem(tmp_path):
    (tmp_path / "a.yaml").write_text("".join(f"k{i}: 1\n" for i in range(2000)))
    with pytest.raises(InputError, match="configuration: has 2,000 keys; docs/configuration"):
        load_config(tmp_path / "a.yaml")


def test_a_line_of_any_length_is_cut_before_its_letters_are_looked_at():
    assert one_line("\x1b" * 200 + "a" * 10**7 + "z").endswith("az")
    assert len(one_line("\x1b" * 10**7)) == 300

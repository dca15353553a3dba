"""Files that ask for more work than they have bytes for: bombs, references to one value many times, sizes that are not
there. A generator writes one of about `size` bytes, in the folder that it is in, and returns the command that reads it.
"""

import json
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from safetensors.numpy import save_file

from ms_vireid.checkpoints.mindspore_checkpoint import RECORD
from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.files.checks import sealed, unsealed

from .good import DEVICE, TRAIN

FOLDER = Path("pictures/visible/0001")
EVALUATE = ("ms_vireid.evaluate", *DEVICE, "--data-root", "sysu", "--checkpoint")
REPORT = ("ms_vireid.report", "run", *DEVICE, "--queries", "0", "--data-root", "sysu")
RETRIEVE = ("ms_vireid.retrieve", "--query", "a.npz", "--gallery")
CHECK = ("ms_vireid.check_data", "data.name=folder", "--data-root", "pictures")


def picture(rng, name: str, content: bytes) -> tuple[str, ...]:
    path = FOLDER / name
    path.write_bytes(content)
    given = ("--checkpoint", "run", *DEVICE)
    return rng.choice(
        [
            CHECK,
            ("ms_vireid.retrieve", *given, "--query", str(path), "--gallery", "a.npz"),
            ("ms_vireid.extract", *given, "--images", "pictures", "--output", "new.npz", "--workers", "0"),
            ("ms_vireid.visualize", "gradcam", *given, "--images", str(path), "--output", "new.png"),
        ]
    )


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(rng, width: int = 32, height: int = 64, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), rng.randbytes(width * height * channels))


# PNG


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rng, chunks: bytes = b"", pixels: bytes = b"", width: int = 4, height: int = 4, interlaced: int = 0) -> bytes:
    """chunks: before or behind the pixels. pixels: those of another picture."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced))
    pixels = chunk(b"IDAT", pixels or zlib.compress(bytes((width + 1) * height)))
    parts = rng.choice([chunks + pixels, pixels + chunks])
    return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IEND")


def png_packed_text(rng, size):
    packed = zlib.compress(bytes(1000 * min(size, 1 << 16)), 9)
    kind = rng.choice([b"zTXt", b"iCCP", b"iTXt"])
    head = b"a\0\0" if kind != b"iTXt" else b"a\0\1\0\0\0"
    one = chunk(kind, head + packed)
    return picture(rng, "0.png", png(rng, one * (1 + size // len(one))))


def png_many_texts(rng, size):
    """Each of what Pillow takes at most, whose names differ."""
    packed = zlib.compress(bytes(1 << 20), 9)
    return picture(
        rng, "0.png", png(rng, b"".join(chunk(b"zTXt", b"%d\0\0" % i + packed) for i in range(1 + size // len(packed))))
    )


def png_pixels(rng, size):
    packed = zlib.compress(bytes(1000 * size), 9)
    return picture(rng, "0.png", png(rng, pixels=packed, interlaced=rng.randrange(2)))


def png_many_chunks(rng, size):
    kind = rng.choice([b"IDAT", b"abCd", b"tEXt", b"fcTL", b"tIME"])
    return picture(rng, "0.png", png(rng, chunk(kind, b"" if kind != b"tEXt" else b"a\0") * (size // 12)))


def png_exif(rng, size):
    return picture(rng, "0.png", png(rng, chunk(b"eXIf", tags(rng, size))))


# TIFF and EXIF


def tags(rng, size: int) -> bytes:
    """A directory of many tags, each of which refers to much of it, or directories that refer to each other."""
    kind = rng.choice(["overlapping", "chain", "cycle", "many"])
    count = min(size // 24, 65_000)
    if kind == "chain":
        return b"II*\0" + b"".join(struct.pack("<IH", 10 + 6 * i, 0) for i in range(size // 6)) + bytes(4)
    if kind == "cycle":
        return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, 6, 8)
    length = size // 2 if kind == "overlapping" else 1
    entries = b"".join(struct.pack("<HHII", 300 + i, 7, length, 8) for i in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4 + size // 2)


def tiff(rng, size):
    return picture(rng, "0.tif", tags(rng, size))


def tiff_pages(rng, size):
    """A picture, and pages without one behind it."""
    whole = bytearray(saved(noise(rng), "TIFF"))
    first = int.from_bytes(whole[4:8], "little")
    place = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little")
    whole[place : place + 4] = len(whole).to_bytes(4, "little")
    start = len(whole)
    for i in range(size // 6):
        whole += struct.pack("<HI", 0, start + 6 * i + 6)
    return picture(rng, "0.tif", bytes(whole) + bytes(6))


def tiff_strips(rng, size):
    """Very many strips, or one of very many pixels, packed."""
    compression = rng.choice([None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "group4"])
    mode, side = "1" if compression == "group4" else "L", 65_000
    made = Image.new(mode, (side, rng.choice([1, 100, 1000])))
    TiffImagePlugin.STRIP_SIZE = rng.choice([1, 1 << 16, 1 << 30])
    try:
        return picture(rng, "0.tif", saved(made, "TIFF", compression=compression))
    finally:
        TiffImagePlugin.STRIP_SIZE = 65536


def tiff_tiles(rng, size):
    """A tile far larger than the picture."""
    side = rng.choice([16, 4096, 65_520])
    compression = rng.choice([1, 5, 8, 32773])
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 200), (325, 4, 1, size)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return picture(rng, "0.tif", (b"II*\0" + struct.pack("<I", 8) + directory).ljust(200, b"\0") + rng.randbytes(size))


# JPEG


def segment(marker: int, content: bytes = b"") -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


def jpeg(rng, size):
    """A picture with very many segments, or bytes of none, before it."""
    whole = saved(noise(rng), "JPEG", quality=90, progressive=rng.random() < 0.5)
    one = rng.choice(
        [
            segment(0xE1, b"Exif\0\0" + b"a"),
            segment(0xE1, b"Exif\0\0" + bytes(60_000)),
            segment(0xE1, b"Exif\0\0" + tags(rng, 60_000)),
            segment(0xE2, b"ICC_PROFILE\0\1\1"),
            segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000),
            segment(0xFE),
            segment(0xE0),
            segment(0xDB, bytes(65)),
            segment(0xDD, bytes(2)),
            b"\xff",
            b"\0",
            b"\xff\0",
        ]
    )
    place = rng.choice([2, whole.index(b"\xff\xda"), whole.index(b"\xff\xda") + 14, len(whole) - 2, len(whole)])
    return picture(rng, "0.jpg", whole[:place] + one * (size // len(one)) + whole[place:])


def jpeg_scans(rng, size):
    """Scans of a large picture, each of which says in a few bytes that one bit of one coefficient is 0 everywhere."""
    side = rng.choice([64, 1000, 4000])
    blocks = (side // 8) ** 2

    def scan(first: int, last: int, bits: int, content: bytes) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, bits])) + content

    whole = b"\xff\xd8" + segment(0xDB, bytes([0]) + b"\1" * 64)
    whole += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    whole += segment(0xC4, bytes([0, 1, *[0] * 15, 0])) + segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))
    whole += scan(0, 0, 0, bytes(-(-blocks // 8)))
    runs = bytes(-(-15 * -(-blocks // (1 << 14)) // 8))  # of 16,384 blocks that end at once
    steps = [13, *(low + 1 << 4 | low for low in range(12, -1, -1))]
    scans = b"".join(scan(k, k, bits, runs) for k in range(1, 64) for bits in steps)
    return picture(rng, "0.jpg", whole + scans[: max(size // 63, 14) * 63] + b"\xff\xd9")


def jpeg_of_nothing(rng, size):
    """The header of a large picture, and little behind it, or many pages that are one."""
    whole = bytearray(saved(noise(rng, mode="L"), "JPEG", progressive=rng.random() < 0.5))
    frame = next(whole.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in whole)
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 4000, 4000)
    return picture(rng, "0.jpg", bytes(whole))


def mpo(rng, size):
    """Pages that are all one, with a long header."""
    count, page = min(size // 16, 4000), saved(noise(rng), "JPEG")
    page = page[:2] + segment(0xFE) * (size // 4) + page[2:]
    fields = [(0xB000, 7, 4, int.from_bytes(b"0100", "little")), (0xB001, 4, 1, count), (0xB002, 7, 16 * count, 50)]
    index = b"II*\0" + struct.pack("<IH", 8, 3) + b"".join(struct.pack("<HHII", *field) for field in fields) + bytes(4)
    first = saved(noise(rng), "JPEG")
    place = len(first) + len(index) + 16 * count - 2  # of the pages, behind the directory's beginning
    kind = rng.choice([0x030000, 0x020000, 0x010001])
    entries = b"".join(struct.pack("<IIIHH", kind, len(page), place, 0, 0) for _ in range(count))
    return picture(rng, "0.jpg", first[:2] + segment(0xE2, b"MPF\0" + index + entries) + first[2:] + page)


# BMP and WebP


def bmp_runs(rng, size):
    """Runs that fill whole rows or more with two bytes."""
    side = rng.choice([1000, 9999])
    run = rng.choice([b"\0\0\1a", b"\0\2\xff\xff", b"\0\2\0\1", b"\1a", b"\xffa"])
    runs = run * (size // len(run))
    header = struct.pack("<IiiHHIIIIII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024)
    start = 14 + len(header)
    return picture(rng, "0.bmp", b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + runs)


def webp(rng, size):
    """A canvas of any size, with a small picture or many."""
    side = rng.choice([100, 3000, 16_383])
    inner = saved(noise(rng, 4, 4), "WEBP")[12:]
    place = struct.pack("<I", side - 1)[:3] * 2
    frame = b"ANMF" + struct.pack("<I", 16 + len(inner)) + bytes(6) + b"\3\0\0\3\0\0" + b"\1\0\0\0" + inner
    frames = b"ANIM" + struct.pack("<IIH", 6, 0, 0) + frame * rng.choice([1, size // len(frame)])
    body = b"WEBPVP8X" + struct.pack("<II", 10, rng.choice([2, 2 + 8])) + place + frames
    if rng.random() < 0.3:
        body += b"EXIF" + struct.pack("<I", size) + tags(rng, size)[:size].ljust(size, b"\0")
    return picture(rng, "0.webp", b"RIFF" + struct.pack("<I", len(body)) + body)


# PyTorch's files


def pth(rng, pickled: bytes) -> tuple[str, ...]:
    with zipfile.ZipFile("hungry.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", bytes(16))
        archive.writestr("a/version", "3")
    return weights(rng, "hungry.pth")


def weights(rng, name: str) -> tuple[str, ...]:
    mirror = ("torch_ref.train", "--config", "tiny.yaml", "--device", "cpu", "--steps", "1", "--resume", name)
    return rng.choice(
        [
            (*TRAIN, "--output", "new", f"model.pretrained={name}"),
            ("parity.convert", name, "new.safetensors", "--config", "tiny.yaml"),
            (*EVALUATE, name),
            (*mirror, "--output", "new.safetensors"),
        ]
    )


def doubled(value, times: int):
    for _ in range(times):
        value = [value, value]
    return value


class Tensor:
    """Pickled as a tensor of its own or of one storage of four numbers, of any shape."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...]):
        self.shape, self.strides = shape, strides

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (STORAGE, 0, self.shape, self.strides, False, OrderedDict())


class Storage:
    pass


STORAGE = Storage()


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "0", "cpu", 4) if value is STORAGE else None


def dumped(value) -> bytes:
    file = BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def pth_shared(rng, size):
    """Values that are used many times, at one depth or at each."""
    kind = rng.choice(["doubled", "dictionaries", "cycle", "rows", "texts", "sets", "nested"])
    long = "x" * (size // 2)
    if kind == "doubled":
        value = doubled("x", 28)
    elif kind == "dictionaries":
        value = {"x": 1}
        for i in range(min(size // 40, 200)):
            value = {f"a{i}": value, f"b{i}": value}
    elif kind == "cycle":
        value = {"x": 1}
        value |= {f"a{i}": value for i in range(size // 20)}
    elif kind == "rows":
        row = [0] * (size // 4)
        value = {f"k{i}": row for i in range(size // 20)}
    elif kind == "texts":
        value = [long] * (size // 4)
    elif kind == "sets":
        row = {f"w{i}": Tensor((2,), (1,)) for i in range(10)} | dict.fromkeys(map(str, range(size // 16)), 0)
        value = {f"k{i}": row for i in range(size // 40)}
    else:
        value = []
        for _ in range(200):
            value = [value]
    held = {f"w{i}": Tensor((2, 2), (2, 1)) for i in range(3)}
    place = rng.choice(["config", "meta", "state_dict", "epoch", None])
    held = {"state_dict": held, "format": 1, "config": {}, place: value} if place else held | {"x": value}
    return pth(rng, dumped(held))


def pth_expanded(rng, size):
    """Tensors of few numbers and large shapes."""
    side = rng.choice([10**3, 10**4, 3 * 10**4, 10**9])
    count = rng.choice([1, 3, size // 100])
    held = {f"w{i}.weight": Tensor((side, side), (0, 0)) for i in range(count)}
    return pth(rng, dumped(held))


def pth_instructions(rng, size):
    """A pickle that is none of torch.save's."""
    kinds = [b"(l", b"2", b"]\x94", b"Kaq\0", b"h\0h\0a", b"U\1a", b"(K\1K\1d", b"N\x85", b"K\1\x85R"]
    one = rng.choice([*kinds, b"\x8a\xff" + b"\1" * 255])
    return pth(rng, b"\x80\2]q\0" + one * (size // len(one)) + b".")


def sequence(rng, size):
    """The earlier container, of very many pickles' values or keys."""
    begin = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    held = rng.choice([{"w": Tensor((2, 2), (2, 1))}, {"w": doubled("x", 28)}, doubled("x", 28)])
    keys = rng.choice([["0"] * (size // 2), doubled("x", 28), ["0"], [doubled("x", 20)], ["0"] * 1000])
    Path("hungry.pth").write_bytes(begin + dumped(held) + pickle.dumps(keys, 2) + bytes(size))
    return weights(rng, "hungry.pth")


# Other weights


def ckpt(rng, size):
    def field(number: int, content: bytes) -> bytes:
        length, text = len(content), b""
        while length > 127:
            text, length = text + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + text + bytes([length]) + content

    tensor = field(2, b"Float32")
    kind = rng.choice(["empty", "names", "dims", "one-name", "pieces", "text", "types"])
    if kind == "empty":
        body = b"\x0a\0" * (size // 2)
    elif kind == "names":
        body = b"".join(field(1, field(1, b"%d" % i) + field(2, b"\x08\0" + tensor)) for i in range(size // 24))
    elif kind == "dims":
        body = field(1, field(1, b"w") + field(2, field(1, bytes(size)) + tensor))
    elif kind == "one-name":
        body = field(1, field(1, b"w" * size) + field(2, b"\x08\1" + tensor + field(3, bytes(4))))
    elif kind == "pieces":
        one = field(1, field(1, b"w") + field(2, b"\x08\1" + tensor + field(3, bytes(4))))
        body = one * (size // len(one))
    elif kind == "types":
        body = field(1, field(1, b"w") + field(2, b"\x08\1" + field(2, b"x" * size)))
    else:
        text = ("[" + "[]," * (size // 16) + "1]").encode("utf-32-le")
        body = field(1, field(1, RECORD.encode()) + field(2, field(2, b"str") + field(3, text)))
    body = rng.choice([b"", field(1, field(1, b"v" * 8) + field(2, b"\x08\1" + tensor + field(3, bytes(4))))]) + body
    Path("hungry.ckpt").write_bytes(body + b"crc_num" + zlib.crc32(body).to_bytes(10, "big"))
    return weights(rng, "hungry.ckpt")


def tree(rng, size: int):
    """Text of JSON that becomes a far larger tree, or takes long to check."""
    one, whole = rng.choice(
        [
            ("[]", "[{}]"), ("{}", "[{}]"), ("0", "[{}]"), ("1e1", "[{}]"), ('"a"', "[{}]"), ('{{"a":[]}}', "[{}]"),
            ('"k{i}":0', "{{{}}}"), ('"k{i}":{{}}', "{{{}}}"), ('"data":{{"k{i}":0}}', "{{{}}}"), ("9" * 4000, "[{}]"),
        ]
    )  # fmt: skip
    one = one.replace("{{", "{").replace("}}", "}")
    count = size // (len(one) + 1)
    return whole.format(",".join(one.replace("{i}", str(i)) for i in range(count)))


def record(rng, size):
    """The JSON beside weights."""
    text = tree(rng, size)
    text = rng.choice(['{"format":1,"config":%s}', '{"format":1,"parts":%s}', "%s", '{"format":1,"x":%s}']) % text
    save_file(read_checkpoint(Path("foreign.safetensors")).arrays, "hungry.safetensors", {RECORD: text})
    return weights(rng, "hungry.safetensors")


def safetensors(rng, size):
    """A header of very many weights, of long names or of names in very many parts."""
    begin = rng.choice(["", "a." * 240, "module." * 60, "_orig_mod." * 45, "blocks.", "x" * 10**5])
    name = begin + "{}" + rng.choice(["", ".attn.qkv.weight"])
    one = '"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,0]}}'
    shape = rng.choice(["0", "0,0", ",".join(["0"] * 60)])
    count = max(2, size // len(one.format(name, shape)))
    text = "{" + ",".join(one.format(name.format(i), shape) for i in range(count)) + "}"
    if rng.random() < 0.2:
        text = rng.choice(["[" * size, '{"a":' * (size // 5), " " * size, "{" + '"a":"",' * (size // 8) + "}"])
        text = "{" + text
    Path("hungry.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode())
    return weights(rng, "hungry.safetensors")


# Features and indices


def packed(name: str, members: dict[str, bytes | np.ndarray]) -> None:
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in members.items():
            with archive.open(f"{member}.npy", "w") as file:
                file.write(array) if isinstance(array, bytes) else np.lib.format.write_array(file, array)


def archive(rng, size):
    """Arrays that are packed tightly, or say that they are larger than they are."""
    name = rng.choice(["a.npz", "a.index"])
    with np.load(name) as held:
        members = dict(held)
    rows = 12 * size
    kind = rng.choice(["rows", "wide", "info", "shape", "nothing", "header", "more"])
    if kind == "rows":
        rows //= 8
        members["features"] = np.ones((rows, 1), np.float32)
        members |= {"paths": np.full(rows, "a"), "modality": np.full(rows, "visible"), "identities": np.full(rows, "b")}
        members["cameras"] = np.zeros(rows, np.int32)
    elif kind == "wide":
        members["paths"] = members["paths"].astype(f"U{rows // len(members['paths'])}")
    elif kind == "info":
        members["info"] = np.array(tree(rng, rows // 4))
    elif kind in ("shape", "nothing", "header"):
        dtype = {"shape": "<f4", "nothing": "<U0", "header": "<f4"}[kind]
        shape = "(" + "1," * 2000 + ")" if kind == "header" else f"({rng.choice([2**30, 2**50])},)"
        text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        text = struct.pack("<H", len(text)) + text
        members[rng.choice(["features", "paths", "identities"])] = b"\x93NUMPY\1\0" + text
    else:
        members["more"] = np.zeros(rows * 8, np.uint8)
    fuzzed = f"hungry{Path(name).suffix}"
    packed(fuzzed, members)
    return (*RETRIEVE, fuzzed)


def faiss_sizes(rng, size):
    """An index whose numbers of rows, lists or bytes are not its own, with right checksums."""
    with np.load("a.index") as held:
        members = dict(held)
    place, number = rng.randrange(4, 60), rng.choice([2**20, 2**31 - 1, 2**33, 2**39, 2**60])
    key = next(name for name, held in members.items() if held.dtype == np.uint8)  # FAISS's own
    members[key][place : place + 8] = np.frombuffer(struct.pack("<Q", number), np.uint8)
    packed("hungry.index", members)
    return (*RETRIEVE, "hungry.index")


# A run's files, lists and configurations


def run_file(rng, size):
    name = rng.choice(["run.json", "result.json", "metrics.jsonl"])
    text = tree(rng, size)
    if name == "metrics.jsonl":
        row = rng.choice(['{"step":1,"epoch":1}', '{"step":1,"epoch":1,"loss":1}', "", tree(rng, 16_000)])
        text = (row + "\n") * (size // (len(row) + 1))
    elif rng.random() < 0.7:
        held = unsealed(json.loads(Path("run", name).read_text()))
        key = rng.choice(sorted(held))
        text = json.dumps(sealed(held | {key: json.loads(text)}))
    Path("run", name).write_text(text)
    curves = ("ms_vireid.visualize", "curves", "run", "--output", "new.png")
    return rng.choice([REPORT, curves, (*TRAIN, "--output", "run", "--resume", "auto")])


def listing(rng, size):
    line = rng.choice(["", "a", "visible/0001/01.png", "a/../" * 200 + "b", "x 1", "é", "\0"]) + "\n"
    line = rng.choice([line, "1,", "x", "\x1c"])
    text = line * (size // len(line))
    Path("hungry.txt").write_text(text)
    Path("sysu/exp/train_id.txt").write_text(text)
    extract = ("ms_vireid.extract", "--checkpoint", "run", *DEVICE, "--images", "pictures", "--output", "new.npz")
    extract += ("--list", "hungry.txt")
    return rng.choice([extract, (*TRAIN, "--output", "new"), ("ms_vireid.check_data", "--config", "tiny.yaml")])


def configuration(rng, size):
    """As much as YAML may be, in one file or in a chain of them."""
    size = min(size, 99_000)
    lists = ["a: [" + "1," * (size // 2) + "1]", "a: [" + ("[" * 150 + "]" * 150 + ",") * (size // 301) + "]"]
    lists += ["- \n" * (size // 3), "stages:\n" + "  - {epochs: 1}\n" * (size // 17)]
    keys = ["k: 1\n" * (size // 5), "".join(f"k{i}: 1\n" for i in range(size // 9)), "? a\n" * (size // 4)]
    keys += ["a:\n" + "".join(" " * (i + 1) + f"a{i}:\n" for i in range(200)), "{a: " * 200 + "}" * 200]
    texts = [
        "a: " + "x " * (size // 2),
        'a: "' + "\\u0041" * (size // 7) + '"',
        "#\n" * (size // 2),
        "a: " + "9" * size,
    ]
    text, chain = rng.choice(lists + keys + texts), rng.choice([1, 19])
    for i in range(chain):
        base = f"base: hungry{i + 1}.yaml\n" if i + 1 < chain else ""
        Path(f"hungry{i}.yaml").write_text(base + text)
    table = ("ms_vireid.ablate", "hungry0.yaml", "--output", "new", *DEVICE)
    return rng.choice([(TRAIN[0], "--config", "hungry0.yaml", *DEVICE, "--output", "new"), table])


HUNGRY = (png_packed_text, png_many_texts, png_pixels, png_many_chunks, png_exif, tiff, tiff_pages, tiff_strips)
HUNGRY += (tiff_tiles, jpeg, jpeg_scans, jpeg_of_nothing, mpo, bmp_runs, webp)
HUNGRY += (pth_shared, pth_expanded, pth_instructions, sequence, ckpt, record, safetensors)
HUNGRY += (archive, faiss_sizes, run_file, listing, configuration)

"""Which operators the installed MindSpore has kernels for on CPU, GPU and Ascend, read from the registries that its own
plugins fill when they are loaded.

The plugins of devices that are not there cannot be loaded as they are, because the vendors' libraries are missing. A
copy can, in which these libraries are optional: its initialisers are run, so that it registers its kernels, and what
they call of the missing libraries does nothing. No kernel is made or run. This depends on how MindSpore 2.10 is built
for Linux on x86-64, so each registry is counted, and too small a one is an error.
"""

import ctypes
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = Path(find_spec("mindspore").origin).parent / "lib"
GPU_PLUGIN = "plugin/libmindspore_gpu.so.11.6"
ASCEND_PLUGINS = (  # in this order
    "plugin/ascend/libmindspore_ascend_res_manager.so",
    "plugin/libmindspore_ops_ascend.so",
    "plugin/ascend/libmindspore_graph_ir.so",
)
# Libraries that only a machine with the device has, and how the names of what they define begin.
ABSENT_LIBRARIES = re.compile(
    r"lib(cu|nvrtc|hccl|shmem|d_collective|ge_runner|graph\.|ascendcl|mindspore_(ascend_res|ops_ascend))"
)
ABSENT_FUNCTIONS = re.compile(
    rb"cu|nvrtc|Hccl|acl|shmem|_ZNK?2ge|_ZNK?9mindspore6device6ascend23AscendCollectiveCommLib"
)
# Entries that a whole registry has at least.
LEAST = {"kernel": 400, "class": 1, "aclnn": 400, "CANN": 400, "AiCPU": 200, "rewritten": 50, "pass": 1}
# Operators that an optimisation pass replaces before kernels are selected: the pass's class, and the library it is in.
PASSES = {"Conv2DTranspose": ("ConvTransposeToConvBackpropInputPass", "libmindspore_backend_common.so")}
ASCEND_PASSES = {"AdamWeightDecay": ("AdamWeightDecayUnifyMindIR", "plugin/libmindspore_ascend.so.2")}
# Operators of the older registry for GPU whose kernels' classes are called otherwise.
CLASSES = {"AvgPool": "PoolingFwd", "Stack": "PackFwd", "Unstack": "UnpackFwd"}

NEEDED, INIT_ARRAYS, NOW, FLAGS, VERSIONS = 1, (25, 26, 27, 28), 24, 0x6FFFFFFB, (0x6FFFFFFE, 0x6FFFFFFF, 0x6FFFFFF0)
IGNORED = 0x6FFFFEF0  # a tag of a dynamic section that means nothing
RELOCATIONS, DYNAMIC, SYMBOLS, INITIALISERS = 4, 6, 11, 14  # types of sections
FUNCTION_SLOTS = (6, 7)  # GLOB_DAT and JUMP_SLOT
READ_ONLY_SLOTS = 0x6474E552  # GNU_RELRO


class Library:
    """An x86-64 ELF shared library as bytes that can be changed."""

    def __init__(self, path: Path):
        self.data = bytearray(path.read_bytes())
        offset, count = self._unpack("<Q", 40)[0], self._unpack("<H", 60)[0]
        headers = [self._unpack("<IIQQQQIIQQ", offset + 64 * i) for i in range(count)]
        self.sections = {kind: (address, start, start + size) for _, kind, _, address, start, size, *_ in headers[::-1]}
        self.relocations = [(start, start + size) for _, kind, _, _, start, size, *_ in headers if kind == RELOCATIONS]
        link = next(header[6] for header in headers if header[1] == DYNAMIC)
        self.strings = headers[link][4]

    def _unpack(self, form: str, offset: int) -> tuple:
        return struct.unpack_from(form, self.data, offset)

    def _string(self, offset: int) -> bytes:
        start = self.strings + offset
        return bytes(self.data[start : self.data.index(0, start)])

    def make_optional(self) -> None:
        """Let it be loaded without the libraries of a device, lazily, and without running its initialisers."""
        _, start, end = self.sections[DYNAMIC]
        for offset in range(start, end, 16):
            tag, value = self._unpack("<qQ", offset)
            absent = tag == NEEDED and ABSENT_LIBRARIES.match(self._string(value).decode())
            if absent or tag in (*INIT_ARRAYS, NOW, FLAGS, *VERSIONS):
                struct.pack_into("<qQ", self.data, offset, IGNORED, 0)
        headers, count = self._unpack("<Q", 32)[0], self._unpack("<H", 56)[0]
        for offset in range(headers, headers + 56 * count, 56):
            if self._unpack("<I", offset)[0] == READ_ONLY_SLOTS:
                struct.pack_into("<I", self.data, offset, 0)
        _, start, end = self.sections[SYMBOLS]
        for offset in range(start + 24, end, 24):
            _, info, _, section = self._unpack("<IBBH", offset)
            if section == 0:  # not defined here: weak, so that it may be missing
                self.data[offset + 4] = 2 << 4 | info & 15

    def slots(self) -> Iterator[int]:
        """Addresses, from the library's beginning, of pointers to functions that are missing."""
        _, symbols, _ = self.sections[SYMBOLS]
        for start, end in self.relocations:
            for offset in range(start, end, 24):
                slot, info = self._unpack("<QQ", offset)
                if info & 0xFFFFFFFF in FUNCTION_SLOTS:
                    name, _, _, section = self._unpack("<IBBH", symbols + 24 * (info >> 32))
                    if section == 0 and ABSENT_FUNCTIONS.match(self._string(name)):
                        yield slot

    def initialisers(self) -> range:
        """Addresses, from the library's beginning, of the pointers to its initialisers."""
        address, start, end = self.sections[INITIALISERS]
        return range(address, address + end - start, 8)


class Stub:
    """A function that does nothing and returns the address of an empty std::map, which some callers fill."""

    def __init__(self):
        self._map = ctypes.create_string_buffer(256)
        header = ctypes.addressof(self._map) + 8
        struct.pack_into("<QQQQQQ", self._map, 0, 0, 0, 0, header, header, 0)
        self._function = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: header - 8)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value


def load(name: str, folder: Path, stub: Stub) -> ctypes.CDLL:
    """Load a plugin of a device that is not there, and have it register its kernels."""
    library = Library(LIBRARIES / name)
    library.make_optional()
    copy = folder / Path(name).name
    copy.write_bytes(library.data)
    loaded = ctypes.CDLL(str(copy), mode=os.RTLD_LAZY | os.RTLD_GLOBAL)
    mapped = Path("/proc/self/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in mapped if line.endswith(str(copy)))
    for slot in library.slots():
        ctypes.c_uint64.from_address(base + slot).value = stub.address
    for pointer in library.initialisers():
        initialiser = _word(base + pointer)
        if initialiser not in (0, 2**64 - 1):
            ctypes.CFUNCTYPE(None)(initialiser)()
    return loaded


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _text(address: int) -> str:
    """A std::string of the ABI before C++11: a pointer to characters, with their number 24 bytes before them."""
    characters = _word(address)
    return ctypes.string_at(characters, _word(characters - 24)).decode()


def _tree(std_map: int) -> Iterator[tuple[str, int]]:
    """Keys of a std::map<std::string, ...> and the addresses of their values."""

    def visit(node: int) -> Iterator[tuple[str, int]]:
        if node:
            yield from visit(_word(node + 16))
            yield _text(node + 32), node + 40
            yield from visit(_word(node + 24))

    return visit(_word(std_map + 16))


def _hash_table(robin_hood_map: int) -> Iterator[str]:
    """Keys of a robin_hood::unordered_node_map<std::string, ...>: an array of pointers to pairs, of which a byte each
    says whether it is taken."""
    pairs, taken, count = (_word(robin_hood_map + offset) for offset in (0x18, 0x20, 0x28))
    index = 0
    while count:
        if ctypes.c_uint8.from_address(taken + index).value:
            yield _text(_word(pairs + 8 * index))
            count -= 1
        index += 1


def _factories() -> dict[str, set[str]]:
    """All of MindSpore's kernel factories in this process: the kernel's class, and the names of its operators."""
    library = ctypes.CDLL(str(LIBRARIES / "libmindspore_hardware_abstract.so"))
    get = library._ZN9mindspore6kernel11FactoryBase3MapEv
    get.restype = ctypes.c_uint64
    return {name: {key for key, _ in _tree(_word(value) + 8)} for name, value in _tree(get())}


def _factory(kernel: str) -> set[str]:
    return next(names for name, names in _factories().items() if name.endswith(f"{kernel}E"))


def read(device: str) -> dict[str, list[str]]:
    """The registries of a device, read in this process, which is good for nothing else afterwards: names by kind.

    kernel: MindSpore's own kernels. class: kernels for GPU in an older registry, which cannot be read, known by their
    classes' names. aclnn, CANN, AiCPU: on Ascend, kernels that call CANN's newer interface, operators that are handed
    to CANN by name, and kernels for the AI CPU beside the cores. rewritten: what MindSpore expresses by other operators
    if a device has no kernel. pass: what an optimisation pass replaces.

    Raises:
        RuntimeError: a registry has fewer entries than it has in MindSpore 2.10.
    """
    import mindspore  # loads the libraries that all plugins share

    mindspore.set_device("CPU")
    stub = Stub()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if device == "CPU":
            found = {"kernel": _factory("NativeCpuKernelMod")}
        elif device == "GPU":
            load(GPU_PLUGIN, folder, stub)
            kernels = _factory("NativeGpuKernelMod")
            found = {"kernel": kernels, "class": _gpu_classes() - kernels}
        elif device == "Ascend":
            manager, *_ = [load(plugin, folder, stub) for plugin in ASCEND_PLUGINS]
            get = manager._ZN9mindspore6device6ascend12OpAdapterMap3getEv
            get.restype = ctypes.c_uint64
            found = {"aclnn": _factory("AclnnKernelMod"), "CANN": set(_hash_table(get())), "AiCPU": _aicpu()}
        else:
            raise RuntimeError(f"no device {device!r}")
    passes = PASSES | (ASCEND_PASSES if device == "Ascend" else {})
    found["pass"] = {
        name for name, (own, library) in passes.items() if own.encode() in (LIBRARIES / library).read_bytes()
    }
    found["rewritten"] = _rewritten()
    check_whole(device, found)
    return {kind: sorted(names) for kind, names in found.items()}


def check_whole(device: str, found: dict[str, set[str]]) -> None:
    """Raise RuntimeError if a registry has fewer entries than it has in MindSpore 2.10."""
    for kind, names in found.items():
        if len(names) < LEAST[kind]:
            raise RuntimeError(
                f"{device}, {kind}: {len(names)} operators, fewer than {LEAST[kind]}; not MindSpore 2.10?"
            )


def _gpu_classes() -> set[str]:
    plugin = (LIBRARIES / GPU_PLUGIN).read_bytes()
    classes = {name.decode() for name in re.findall(rb"N9mindspore6kernel\d+(\w+?)GpuKernelModI\w+E\0", plugin)}
    return classes | {name for name, own in CLASSES.items() if own in classes}


def _rewritten() -> set[str]:
    library = ctypes.CDLL(str(LIBRARIES / "libmindspore_backend_common.so"))
    name = "_ZZN9mindspore8expander16IRBuilderFactory8InstanceEvE8instance"
    return set(_hash_table(ctypes.addressof(ctypes.c_uint64.in_dll(library, name))))


def _aicpu() -> set[str]:
    """Operators of the AI CPU beside an Ascend's cores, which MindSpore registers in Python."""
    folder = LIBRARIES.parent / "ops" / "_op_impl" / "aicpu"
    return {name for file in folder.glob("*.py") for name in re.findall(r'AiCPURegOp\("(\w+)"\)', file.read_text())}


def registries(device: str) -> dict[str, set[str]]:
    """`read` of "CPU", "GPU" or "Ascend" in a process of its own."""
    command = [sys.executable, "-m", "parity.registries", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"the registries of {device} cannot be read: {done.stderr[-2000:]}")
    return {kind: set(names) for kind, names in json.loads(done.stdout.splitlines()[-1]).items()}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1])), flush=True)
    os._exit(0)  # without the finalisers of libraries that were never whole

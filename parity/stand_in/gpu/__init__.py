"""The stand-in's libraries for MindSpore's GPU plugin: those of CUDA, cuDNN and NCCL, and MindSpore's own kernels."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from ms_vireid.devices.gpu import PACKAGES
from parity.stand_in.toolchain import SHARED, compile_all, demangled, generate, link, mindspore_folder, plain, symbols

SOURCES = Path(__file__).parent
PLUGIN = "libmindspore_gpu.so.11.6"
RELEASE = "11.8"  # of CUDA: one of those for which MindSpore loads that plugin
CUDA_OPS = "libcuda_ops.so.11"  # MindSpore's own kernels
DRIVER = "libcuda.so.1"
NCCL = "libnccl.so.2"
TORCH = "libtorch_on_cpu.so"
SONAMES = (DRIVER, *PACKAGES, CUDA_OPS, NCCL)
MEMORY = 80 * 2**30  # bytes

COPIES = {"cudaMemcpy", "cudaMemcpyAsync"}
WAITS = {"cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cudaStreamSynchronize", "cuStreamSynchronize"}
ALLOCATIONS = {"cudaHostAlloc", "cudaMalloc"}
# Functions that put no work on the device.
BOOKKEEPING = re.compile(
    r"cuda(?!Memset)|cu(Ctx|Device|Module|Stream)|cu[a-z]\w+(Create|Destroy|Get|Set|Restore|Plan|_bufferSize)|nvrtc"
    r"|nccl(Get|Comm|Group)"
    r"|\w*RoundUpPower2"
)

# Functions that make or end what a pointer stands for. (cuFFT's handles are numbers.)
_HANDLE = re.compile(r"(cuda(Stream|Event)|cublas|cudnn|curand|cusolverDn|cusparse)(Create|Destroy)")

_LIBRARY = re.compile(r"cu[a-z]+[A-Z]|nccl")
KINDS = {  # of functions that put work on the device
    "functions of CUDA and its libraries": lambda name: bool(_LIBRARY.match(name)),
    "MindSpore's own kernels": lambda name: not _LIBRARY.match(name),
}


def is_launch(function: str) -> bool:
    """Whether a function of that name puts a computation on the device."""
    return not BOOKKEEPING.match(function)


def plugin() -> Path:
    return mindspore_folder() / "lib" / "plugin" / PLUGIN


def collective() -> Path:
    """What asks NCCL for sums over several processes."""
    return plugin().parent / "gpu11.6" / "libnvidia_collective.so"


def users() -> list[Path]:
    """The libraries that ask the stand-in's for functions: MindSpore's, and PyTorch's where it is built for a GPU. Some
    libraries of its CUDA have the names of MindSpore's, and it wants all of their functions at its import."""
    return [library for library in (plugin(), collective(), torch_library("torch_cuda")) if library.is_file()]


def torch_library(name: str) -> Path:
    """A library of PyTorch, which need not be there."""
    torch = find_spec("torch")
    return Path(torch.origin if torch else "none").parent / "lib" / f"lib{name}.so"


def build(folder: Path) -> None:
    """lib/ with the libraries and the header for kernels on the host, and cuda/bin/nvcc, which names the release."""
    for part in ("lib", "objects", "cuda/bin"):
        (folder / part).mkdir(parents=True)
    compiler = folder / "cuda" / "bin" / "nvcc"
    compiler.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {RELEASE}, V{RELEASE}"\n')
    compiler.chmod(0o755)
    shutil.copy(SOURCES / "host.h", folder / "lib")

    asked = sorted({name for library in users() for name in symbols("--dynamic", "--undefined-only", library)})
    defined = symbols("--dynamic", "--defined-only", plugin().parent / "gpu" / CUDA_OPS)
    kernels = set(map(plain, defined))
    *common, meeting = compile_all(
        [SHARED / f"{name}.cc" for name in ("counters", "values", "meeting")], folder / "objects"
    )
    for soname in SONAMES:
        if soname == CUDA_OPS:
            names = [name for name in asked if plain(name) in kernels]
        elif soname == DRIVER:
            names = [name for name in asked if re.fullmatch(r"cu[A-Z]\w+", name)]
        elif soname == NCCL:
            names = [name for name in asked if name.startswith("nccl")]
        else:
            names = [name for name in asked if name.endswith(f"@{soname}")]
        _build_library(folder, soname, list(map(plain, names)), [*common, meeting] if soname == NCCL else common)
    if torch_library("c10_cuda").is_file():
        _keep_torch_on_the_cpu(folder)


def variables(folder: Path) -> dict[str, str]:
    """What has to be set, besides LD_LIBRARY_PATH."""
    # Else the plugin would find those that MindSpore brings, by its RPATH, or that PyTorch has loaded: its own, and all
    # that it finds in packages, such as the gpu extra's.
    first = [folder / "lib" / name for name in (CUDA_OPS, NCCL, *PACKAGES, TORCH)]
    return {
        "CUDA_HOME": str(folder / "cuda"),
        "LD_PRELOAD": ":".join(str(library) for library in first if library.is_file()),
    }


def library_folders(folder: Path) -> list[Path]:
    return [folder / "lib"]


def _keep_torch_on_the_cpu(folder: Path) -> None:
    objects = folder / "objects" / "torch"
    objects.mkdir()
    asked = symbols("--dynamic", "--undefined-only", torch_library("c10_cuda"))
    version = next(name for name in asked if plain(name) == "cudaGetDeviceCount").rpartition("@")[2]
    link(folder / "lib" / TORCH, compile_all([SOURCES / "torch.c"], objects), _versioned(version, objects))


def _build_library(folder: Path, soname: str, names: list[str], common: list[Path]) -> None:
    """Compile the sources of that name, if there are any, and a definition of every other function that is needed."""
    name = soname.split(".")[0].removeprefix("lib")
    objects = folder / "objects" / name
    objects.mkdir()
    sources = sorted([*SOURCES.glob(f"{name}.c*"), *SOURCES.glob(f"{name}/*.cc")])
    written = compile_all(sources, objects)
    known = set(symbols("--defined-only", *written)) if written else set()
    others = [other for other in names if other not in known]
    labels = demangled(others)
    definitions = [f'{_kind(label)}({other}, "{label}")' for other, label in zip(others, labels, strict=True)]
    generated = generate(definitions, objects / "others.c")
    versioned = [] if soname in (CUDA_OPS, DRIVER, NCCL) else [_versioned(soname, objects)]
    link(folder / "lib" / soname, [*written, generated, *common], *versioned)


def _versioned(version: str, folder: Path) -> str:
    """The linker's option that gives this version to all functions."""
    script = folder / "versions"
    script.write_text(f"{version} {{ global: *; }};\n")
    return f"-Wl,--version-script={script}"


def _kind(label: str) -> str:
    """The macro that defines a function which is not written out."""
    if handle := _HANDLE.match(label):
        return {"Create": "CREATES", "Destroy": "DESTROYS"}[handle[3]]
    return "SUCCEEDS" if BOOKKEEPING.match(label) else "UNKNOWN"

"""What MindSpore's GPU plugins need: a driver, a GPU that their kernels cover, and CUDA 11 with cuDNN 8."""

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path

from ms_vireid.command.errors import DeviceError, printable
from ms_vireid.command.printing import say
from ms_vireid.command.running import install_command

# CUDA 11's libraries of any minor release need a driver for 11.0, that is 450.80.02 or newer.
OLDEST_DRIVER, OLDEST_DRIVER_NAME = 11000, "450.80.02"
# Compute capabilities. MindSpore ships machine code for 6.0, 6.1, 7.0, 7.5 and 8.0, which also runs on 8.6 and 8.9, and
# PTX for 8.6, which the driver compiles for newer GPUs. CUDA 11 and cuDNN 8 support up to 9.0.
LOWEST, COMPILED, HIGHEST = 6.0, 8.9, 9.0
MODULES, TRANSLATION = 407, "3 to 4 minutes on an H100"  # of kernels in MindSpore 2.10; 188 to 226 s
# The libraries that the plugin links to, each after those that it depends on, with their Python packages.
PACKAGES = {
    "libcudart.so.11.0": "nvidia-cuda-runtime-cu11",
    "libnvrtc.so.11.2": "nvidia-cuda-nvrtc-cu11",
    "libcublasLt.so.11": "nvidia-cublas-cu11",
    "libcublas.so.11": "nvidia-cublas-cu11",
    "libcurand.so.10": "nvidia-curand-cu11",
    "libcufft.so.10": "nvidia-cufft-cu11",
    "libcusparse.so.11": "nvidia-cusparse-cu11",
    "libcusolver.so.11": "nvidia-cusolver-cu11",
    "libcudnn.so.8": "nvidia-cudnn-cu11",
}
SYSTEM_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/lib")

# What libcudnn.so.8 loads when it is used, by name: from LD_LIBRARY_PATH, where another cuDNN may be, rather than from
# beside itself.
_CUDNN_PARTS = [f"libcudnn_{part}.so.8" for part in ("ops_infer", "ops_train", "cnn_infer", "cnn_train")]
_SAME_IN_ALL = ("libcurand.so.10",)  # CUDA 11, 12 and 13 have the same interface under this name
RUNTIME = "libcudart.so.11.0"
COMPILERS = ("libnvrtc.so.11.2", "libnvrtc.so.11.1")  # of the plugins for CUDA from 11.6 and for 11.1
_COMPILER_S = 20.0  # for nvcc to tell its version
_LINK_MAP = 2  # dlfcn.h's RTLD_DI_LINKMAP

_NO_DEVICE, _MAJOR, _MINOR = 100, 75, 76  # cuda.h's CUDA_ERROR_NO_DEVICE and CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class _LinkMap(ctypes.Structure):
    """The beginning of link.h's `link_map`."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    capability: float

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability}"

    def announce_translation(self, environment: Mapping[str, str]) -> None:
        """Say that the start takes minutes if the driver has to compile MindSpore's kernels, unless as many files as
        they are lie in its cache, whoever left them there."""
        if self.capability > COMPILED:
            cache = environment.get("CUDA_CACHE_PATH") or os.path.expanduser("~/.nv/ComputeCache")
            if sum(len(files) for *_, files in os.walk(cache)) < MODULES:
                what = f"the driver first translates MindSpore's kernels for this GPU, for {TRANSLATION}"
                say(f"note: {what}; it keeps them in {printable(cache)}, if it can", error=True)


def find_gpu(environment: Mapping[str, str]) -> Gpu:
    """Return the driver's first GPU. Raises DeviceError if MindSpore cannot use it, or if there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise DeviceError("no NVIDIA driver (looked for libcuda.so.1)", "install it") from None
    version = _number(driver, "cuDriverGetVersion")
    if version < OLDEST_DRIVER:
        newest = f"{version // 1000}.{version % 1000 // 10}"
        raise DeviceError(
            f"the NVIDIA driver supports CUDA only up to {newest}", f"update it to {OLDEST_DRIVER_NAME} or newer"
        )
    if _call(driver, "cuInit", 0) == _NO_DEVICE or _number(driver, "cuDeviceGetCount") == 0:
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        because = "" if shown is None else f" with CUDA_VISIBLE_DEVICES='{shown}'"
        raise DeviceError(f"the NVIDIA driver shows no GPU{because}", "see what nvidia-smi lists")
    device = _number(driver, "cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    major, minor = (_number(driver, "cuDeviceGetAttribute", attribute, device) for attribute in (_MAJOR, _MINOR))
    gpu = Gpu(name.value.decode(), major + minor / 10)
    if not LOWEST <= gpu.capability <= HIGHEST:
        problem = f"{gpu}: MindSpore with CUDA 11 and cuDNN 8 covers {LOWEST} to {HIGHEST}"
        raise DeviceError(problem, "choose another GPU by CUDA_VISIBLE_DEVICES")
    return gpu


def loaded(*sonames: str) -> Path | None:
    """Return the path of the first of these libraries that is loaded, by its exact soname, as the linker gives it to
    MindSpore's plugin: the process may hold other versions, such as those of PyTorch's CUDA."""
    for soname in sonames:
        try:
            library = ctypes.CDLL(soname, mode=os.RTLD_NOLOAD)
        except OSError:
            continue
        entry = ctypes.POINTER(_LinkMap)()
        ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), _LINK_MAP, ctypes.byref(entry))
        return Path(os.fsdecode(entry.contents.name))
    return None


def symbol(library: ctypes.CDLL, function: str):
    """Return a library's function. Raises DeviceError if it lacks it, as a stub or another version does."""
    try:
        return getattr(library, function)
    except AttributeError as error:  # ctypes names the file
        raise DeviceError(f"a library lacks a function ({error})", "reinstall it") from None


def _number(driver: ctypes.CDLL, function: str, *arguments: int) -> int:
    """Call a driver function and return the integer that it writes to its first argument."""
    value = ctypes.c_int()
    _call(driver, function, ctypes.byref(value), *arguments)
    return value.value


def _call(driver: ctypes.CDLL, function: str, *arguments) -> int:
    """Call a driver function and return its status: 0 or `_NO_DEVICE`. Raises DeviceError for any other."""
    status = symbol(driver, function)(*arguments)
    if status not in (0, _NO_DEVICE):
        name = ctypes.c_char_p()
        symbol(driver, "cuGetErrorName")(status, ctypes.byref(name))
        reason = name.value.decode() if name.value else f"error {status}"
        raise DeviceError(f"the NVIDIA driver fails ({function}: {reason})", "see whether nvidia-smi works")
    return status


@dataclass(frozen=True)
class Toolkit:
    """CUDA 11 and cuDNN 8."""

    release: str  # such as "11.8"
    origin: str  # where it was found, in words
    libraries: tuple[Path, ...]  # in the order of `PACKAGES`
    home: Path | None = None  # the folder with bin/nvcc, if there is a compiler

    def __str__(self) -> str:
        return f"CUDA {self.release} from {self.origin}"

    def load(self) -> None:
        """Load the libraries, so that the plugin finds them by soname. Raises DeviceError if CUDA does not run, or if
        libraries of another CUDA would come before them."""
        for library in self.libraries:
            earlier = loaded(library.name)
            if earlier and library.name not in _SAME_IN_ALL and not earlier.samefile(library):
                problem = f"this process has loaded {earlier}, not that of {self}"
                raise DeviceError(problem, "choose the device before importing PyTorch or whatever else loads it")
        folder = self.libraries[-1].parent
        parts = [path for name in _CUDNN_PARTS if (path := folder / name).is_file()]
        try:
            runtime, *_, cudnn = [
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
                for library in (*self.libraries[:-1], *parts, self.libraries[-1])
            ]
        except OSError as error:
            raise DeviceError(f"{self} does not load ({error})", "reinstall it") from None
        cudnn_version = symbol(cudnn, "cudnnGetCudartVersion")
        cudnn_version.restype = ctypes.c_size_t
        if (major := cudnn_version() // 1000) != 11:
            problem = f"{self.libraries[-1]} is for CUDA {major}, not for {self}"
            raise DeviceError(problem, f"take its folder out of LD_LIBRARY_PATH: {install_command('gpu')} brings one")
        if status := symbol(runtime, "cudaGetDeviceCount")(ctypes.byref(ctypes.c_int())):
            error_text = symbol(runtime, "cudaGetErrorString")
            error_text.restype = ctypes.c_char_p
            reason = error_text(status).decode()
            raise DeviceError(f"{self} does not run with the NVIDIA driver ({reason})", "update the driver")

    @contextmanager
    def announced(self, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Yield the environment variables to set while mindspore is imported and its device is selected.

        MindSpore runs `$CUDA_HOME/bin/nvcc` to learn the release, which selects its plugin, and `ldd` to locate the
        runtime. If there is no compiler, a temporary script named nvcc prints the release. Raises DeviceError if that
        script cannot run.
        """
        folders = [str(library.parent) for library in self.libraries]
        paths = filter(None, dict.fromkeys([*folders, environment.get("LD_LIBRARY_PATH")]))
        with tempfile.TemporaryDirectory(prefix="ms_vireid-cuda-") as folder:
            home = self.home or _write_compiler(Path(folder), self.release)
            yield {"CUDA_HOME": str(home), "LD_LIBRARY_PATH": ":".join(paths)}


def _write_compiler(home: Path, release: str) -> Path:
    compiler = home / "bin" / "nvcc"
    compiler.parent.mkdir()
    compiler.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}"\n', encoding="utf-8")
    with suppress(OSError):  # a file system may set no permissions
        compiler.chmod(0o700)
    if _release(home) != release:
        raise DeviceError(f"programs in {tempfile.gettempdir()} cannot be run", "set TMPDIR to a folder where they can")
    return home


def find_toolkit(environment: Mapping[str, str]) -> Toolkit:
    """Find CUDA 11: `CUDA_HOME`'s if it is complete, else the `gpu` extra's. Raises DeviceError without either."""
    if not list(_plugin_folder().glob("libmindspore_gpu.so.*")):
        raise DeviceError("this MindSpore has no GPU plugin", "run on Linux on x86-64")
    problem = "CUDA_HOME is not set"
    if home := environment.get("CUDA_HOME"):
        chosen = _installed(Path(home), environment)
        if isinstance(chosen, Toolkit):
            return chosen
        problem = f"CUDA_HOME={home} {chosen}"
    try:
        toolkit = _packaged()
    except DeviceError as missing:
        remedy = f"{missing.remedy}, or set CUDA_HOME to one with cuDNN 8"
        raise DeviceError(f"no CUDA 11.1 or 11.6 to 11.8 ({problem}; {missing})", remedy) from None
    return replace(toolkit, origin=f"{toolkit.origin}, as {problem}") if home else toolkit


def _plugin_folder() -> Path:
    if (mindspore := util.find_spec("mindspore")) is None:
        raise DeviceError("MindSpore is not installed", "install this project with its dependencies")
    return Path(mindspore.submodule_search_locations[0]) / "lib" / "plugin"


def _installed(home: Path, environment: Mapping[str, str]) -> Toolkit | str:
    """Return the toolkit in `CUDA_HOME`, or the reason why MindSpore cannot use it."""
    release = _release(home)
    if release is None:
        return "has no bin/nvcc that names its release"
    major, minor = map(int, release.split("."))
    if major != 11 or not (minor == 1 or minor >= 6):  # MindSpore's plugins are for 11.1 and from 11.6
        return f"is release {release}"
    folders = [home / "lib64", home / "lib", home / "targets" / "x86_64-linux" / "lib"]
    folders += [*filter(None, environment.get("LD_LIBRARY_PATH", "").split(":")), *SYSTEM_LIBRARIES]
    sonames = [name.replace("nvrtc.so.11.2", "nvrtc.so.11.1") if minor == 1 else name for name in PACKAGES]
    libraries = [next((f for folder in folders if (f := Path(folder, name)).is_file()), None) for name in sonames]
    if missing := [name for name, library in zip(sonames, libraries, strict=True) if library is None]:
        return f"is release {release} without {', '.join(missing)}"
    return Toolkit(release, f"CUDA_HOME={home}", tuple(libraries), home)


def _release(home: Path) -> str | None:
    """Read the release, such as "11.8", from a folder's `nvcc --version`; None if that does not run."""
    try:
        command = [home / "bin" / "nvcc", "--version"]
        printed = subprocess.run(command, capture_output=True, timeout=_COMPILER_S).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    release = re.search(r"Cuda compilation tools, release (\d+\.\d+)", printed)
    return release and release[1]


def _packaged() -> Toolkit:
    """Find the libraries of the gpu extra's packages; raises DeviceError if one is missing or was overwritten."""
    remedy, libraries = f"{install_command('gpu')} brings it", []
    for soname, package in PACKAGES.items():
        try:
            file = next((file for file in metadata.files(package) or () if file.name == soname), None)
        except metadata.PackageNotFoundError:
            raise DeviceError(f"{package} is not installed", remedy) from None
        if file is None:
            raise DeviceError(f"{package} {metadata.version(package)} has no {soname}", remedy)
        path = Path(file.locate())
        if not path.is_file() or path.stat().st_size != file.size:
            # CUDA 12's packages install files with the same names in the same folder.
            elsewhere = f"use an environment without packages for another CUDA, and {install_command('gpu')} there"
            raise DeviceError(f"{path} is not the file that {package} installed", elsewhere)
        libraries.append(path)
    release = ".".join(metadata.version(PACKAGES["libcudart.so.11.0"]).split(".")[:2])
    return Toolkit(release, "the gpu extra", tuple(libraries))

"""The stand-in's libraries for MindSpore's Ascend plugin: all of CANN that it asks for, in one library.

Each source of this folder is a part of CANN, written from its public documentation:

    runtime.cc      AscendCL's runtime: the device, its memory, copies, streams and events
    tensors.cc      what operators are handed: aclTensor, aclScalar, arrays and lists
    aclnn.cc        operators that are functions of their own, such as aclnnMul
    by_name.cc      operators that are handed over by their name, such as "Conv2D"
    ge.cc           the classes of GE that put operators by name together
    hccl.cc         collective communication, between processes of one machine
    operators.cc    what all these operators compute

Environment: STAND_IN_MEMORY, STAND_IN_VALUES, STAND_IN_PLANT and STAND_IN_LOG as `StandIn.environment` says, and
STAND_IN_SOC, the chip, by default Ascend910B2.

GE's graphs, the default of the old Ascend 910A, are not stood in for, nor are DVM's kernels (`jit_level="O1"`).
"""

import os
import re
from pathlib import Path

from parity.stand_in.toolchain import SHARED, compile_all, demangled, generate, link, mindspore_folder, plain, symbols

SOURCES = Path(__file__).parent
LIBRARY = "libascend_stand_in.so"
SONAMES = (LIBRARY,)
MEMORY = 64 * 2**30  # bytes
VERSION = "9.0.0"  # of CANN, as runtime.cc tells it too

_WAITING_COPY = "aclrtMemcpyAsync, which waits for ordinary memory"
COPIES = {"aclrtMemcpy", "aclrtMemcpyAsync", _WAITING_COPY}
WAITS = {
    _WAITING_COPY,
    "aclrtMemcpy",
    "aclrtSynchronizeDeviceWithTimeout",
    "aclrtSynchronizeEvent",
    "aclrtSynchronizeStream",
    "aclrtSynchronizeStreamWithTimeout",
}
ALLOCATIONS = {"aclrtMalloc", "aclrtMallocAlign32", "aclrtMallocHost", "aclrtMallocPhysical"}

# CANN's libraries that the plugin loads. Each is empty and depends on LIBRARY, which dlsym then searches too.
_SONAMES_OF_CANN = [
    "acl_op_compiler",
    "acl_tdt_channel",
    "acl_tdt_queue",
    "ascend_hal",
    "ascend_ml",
    "ascendalog",
    "ascendcl",
    "c_sec",
    "drvdsmi_host",
    "error_manager",
    "exe_graph",
    "ge_runner",
    "gmem",
    "graph",
    "graph_base",
    "hccl",
    "mmpa",
    "msprofiler",
    "nnopbase",
    "opapi",
    "platform",
    "profapi",
    "register",
    "runtime",
    "unified_dlog",
]
# CANN's functions and classes, as the linker names them.
_CANN = re.compile(
    r"acl[A-Z_a-z]|Acl|Hccl|Hcom|hccl|rt[A-Z]|mm[A-Z]|hal[A-Z]|Msprof|Nnopbase|Alog"
    r"|(_Z\d+)?(Nnopbase|Dlog|CheckLogLevel)|_Z(T[ISV])?NK?(2ge|2fe|3ops|4gert|8optiling|9aclTensor|13error_message)"
)
# Those that the plugin asks for only when it runs (dlsym), among its strings.
_LOOKED_UP = re.compile(rb"(?<![A-Za-z0-9_])((?:acl|Hccl|Hcom|hccl)[A-Z_a-z][A-Za-z0-9_]{2,})\0")
_NO_FUNCTIONS = {"aclnn", "aclnnInner", "aclDataType"}
# Functions that put work on the device, by their names for a reader.
_WORK = re.compile(
    r"aclnn(?!Init$|Finalize$)(?!\w+GetWorkspaceSize$)|by name: |aclrtMemset|aclrtLaunchKernel|acl(mdl|mdlRI|op)Execute"
    r"|rt\w*Launch|Hccl(All|Batch|Broadcast|Barrier|Recv|Reduce|Scatter|Send)|Hcom(?!Get|Create|Destroy)\w"
)
_OLD_STRINGS = "-D_GLIBCXX_USE_CXX11_ABI=0"  # std::string of MindSpore and CANN

KINDS = {  # of functions that put work on the device
    "functions of aclnn, which CANN has ready": lambda name: name.startswith("aclnn"),
    "operators by name, which CANN compiles at their first use": lambda name: name.startswith("by name: "),
    "of the runtime": lambda name: not name.startswith(("aclnn", "by name: ")),
}


def is_launch(function: str) -> bool:
    """Whether a function of that name puts a computation on the device."""
    return bool(_WORK.match(function))


def plugin() -> Path:
    return mindspore_folder() / "lib" / "plugin" / "libmindspore_ascend.so.2"


def build(folder: Path) -> None:
    """cann/, which MindSpore takes for CANN only by that name."""
    objects = folder / "objects"
    cann = folder / "cann"
    for part in (objects, cann / "lib64"):
        part.mkdir(parents=True)
    _write_files(cann)

    sources = [*sorted(SHARED.glob("*.cc")), *sorted(SOURCES.glob("*.cc"))]
    compiled = compile_all(sources, objects, _OLD_STRINGS)
    written = set(symbols("--defined-only", *compiled))
    others = generate(_definitions(_asked() - written), objects / "others.c", f"-I{SOURCES}")
    link(cann / "lib64" / LIBRARY, [*compiled, others])

    empty = generate([], objects / "empty.c")
    depending = ("-Wl,--no-as-needed", f"-L{cann / 'lib64'}", f"-l:{LIBRARY}")
    for name in _SONAMES_OF_CANN:
        link(cann / "lib64" / f"lib{name}.so", [empty], *depending)


def variables(folder: Path) -> dict[str, str]:
    """What has to be set, besides LD_LIBRARY_PATH."""
    cann = folder / "cann"
    packages = [str(cann / "python"), os.environ.get("PYTHONPATH")]
    return {
        "ASCEND_HOME_PATH": str(cann),
        "ASCEND_OPP_PATH": str(cann / "opp"),
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }


def library_folders(folder: Path) -> list[Path]:
    return [folder / "cann" / "lib64"]


def _write_files(cann: Path) -> None:
    """What MindSpore reads of a toolkit. There is no package `te`: it would then import TBE's operators."""
    files = {
        "compiler/version.info": f"Version={VERSION}\n",
        "python/hccl/__init__.py": "",
        "python/hccl/sys_version.py": f'__sys_version__ = "{VERSION}"\n',
    }
    for name, text in files.items():
        (cann / name).parent.mkdir(parents=True, exist_ok=True)
        (cann / name).write_text(text)
    (cann / "opp/built-in/op_impl/ai_core/tbe").mkdir(parents=True)


def _asked() -> set[str]:
    """All of CANN that the plugin's libraries ask for."""
    lib = plugin().parent
    libraries = [plugin(), lib / "libmindspore_ops_ascend.so", *sorted((lib / "ascend").rglob("*.so"))]
    undefined = map(plain, symbols("--dynamic", "--undefined-only", *libraries))
    searching = [path for path in libraries if path.parent in (lib, lib / "ascend")]
    strings = {name.decode() for path in searching for name in _LOOKED_UP.findall(path.read_bytes())}
    return {name for name in undefined if _CANN.match(name)} | strings - _NO_FUNCTIONS


def _definitions(names: set[str]) -> list[str]:
    operators = sorted({name.removesuffix("GetWorkspaceSize") for name in names if name.startswith("aclnn")})
    others = sorted(name for name in names if not name.startswith("aclnn"))
    labels = demangled(others)
    kinds = ["UNKNOWN" if is_launch(label) else "SUCCEEDS" for label in labels]
    return [
        '#include "aclnn.h"',
        *(f"ACLNN({operator})" for operator in operators),
        *(f'{kind}({name}, "{label}")' for kind, name, label in zip(kinds, others, labels, strict=True)),
    ]

"""A process that hands modules of CUDA code to the driver, which translates them and keeps the result in its cache;
`translation.py` starts several. Imports nothing of the project, so that it starts at once."""

import ctypes
import mmap
import os
import sys
from pathlib import Path


def main() -> None:
    """Arguments: a library, and a device's number. Reads where modules begin in the library from standard input, 8
    bytes each, until there are no more, and writes a byte for each that the driver has taken."""
    library, device = Path(sys.argv[1]), int(sys.argv[2])
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    for function, *arguments in (
        ("cuInit", 0),
        ("cuDevicePrimaryCtxRetain", ctypes.byref(context), device),
        ("cuCtxSetCurrent", context),
    ):
        if getattr(driver, function)(*arguments):
            sys.exit(1)
    with library.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    while place := os.read(0, 8):
        module, code = ctypes.c_void_p(), ctypes.c_void_p(start + int.from_bytes(place, "little"))
        if not driver.cuModuleLoadFatBinary(ctypes.byref(module), code):
            driver.cuModuleUnload(module)
            os.write(1, b".")


if __name__ == "__main__":
    main()

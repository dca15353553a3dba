"""Memory given back between measurements and tests."""

import ctypes
import gc
import sys
from contextlib import suppress


def give_back() -> None:
    """Return unused memory to the system. The C library would keep it: gigabytes after models of full size."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)

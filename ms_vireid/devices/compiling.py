"""Numba's `njit`, with a folder for `cache=True`: beside the source, in the user's cache or, if neither can be written
(a read-only image without a home), a temporary one that this process shares with its children."""

import atexit
import logging
import shutil
import tempfile

import numba
from numba import njit

from ms_vireid.devices.runtime import set_for_children

__all__ = ["njit"]


try:
    njit(cache=True)(lambda: None)
except RuntimeError:  # Numba finds no folder
    # A new folder: whatever code lies in it is run.
    numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="ms_vireid-kernels-")
    set_for_children({"NUMBA_CACHE_DIR": numba.config.CACHE_DIR})
    atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)
    logging.getLogger(__name__).warning(
        "note: no folder can be written to keep compiled kernels in, so that each run compiles them: "
        "NUMBA_CACHE_DIR names one"
    )

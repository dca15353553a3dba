"""Numba's `njit`, whose `cache=True` always has a place: beside the source, in the user's cache, or, where neither can
be written (a read-only image without a home), a folder of this process and its children alone."""

import atexit
import logging
import shutil
import tempfile

import numba
from numba import njit

from ms_vireid.devices.runtime import set_for_children

__all__ = ["njit"]


def _probe() -> None:
    """Compiled as all kernels are, to see whether Numba finds a place."""


try:
    njit(cache=True)(_probe)
except RuntimeError:
    # Not a folder that others could fill: what lies in it is run.
    numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="ms_vireid-kernels-")
    set_for_children({"NUMBA_CACHE_DIR": numba.config.CACHE_DIR})
    atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)
    logging.getLogger(__name__).warning(
        "note: no folder can be written to keep compiled kernels in, so that each run compiles them: "
        "NUMBA_CACHE_DIR names one"
    )

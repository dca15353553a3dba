"""Figures and pages. Only modules of this package import Matplotlib, so that all of them use it as set up here.

Matplotlib uses Agg and never opens a window, whatever MPLBACKEND says. That variable may name a backend that is not
there, as in a notebook's shell, which would stop the import.
"""

from ms_vireid.devices import runtime

with runtime.environment({"MPLBACKEND": "agg"}):
    import matplotlib

"""Figures and pages. Only modules of this package import Matplotlib, so that they find it as it is set up here.

No window is ever drawn: Matplotlib takes Agg, whatever MPLBACKEND says. It may name what is not there, as in the shell
of a notebook, and would then stop the import.
"""

from ms_vireid.devices import runtime

with runtime.environment({"MPLBACKEND": "agg"}):
    import matplotlib

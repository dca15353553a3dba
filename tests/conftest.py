"""Every test runs on CPU, set up as the commands set it up."""

from ms_vireid import runtime

runtime.set_up("CPU", "pmt")

"""Every test runs on CPU, set up as the commands set it up."""

from ms_vireid import runtime

runtime.set_up("CPU", "agw")  # one process has one instruction set: the one that convolutions need

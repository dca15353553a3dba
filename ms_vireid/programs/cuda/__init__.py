"""This project's CUDA kernels within a compiled graph on a GPU: several operators of MindSpore's in one pass.

The kernels (`*.cu`) read as the equations that they compute, in float32, on float32 or float16. `launcher.c` launches
them for MindSpore; `build.py` compiles both; `operators.py` makes operators with gradients of them, and names the cells
that they compute.
"""

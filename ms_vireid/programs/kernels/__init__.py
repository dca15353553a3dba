"""Layers' functions on the CPU, with their derivatives, in one pass over memory each.

MindSpore's CPU operators take a pass for each step of a function, and some are scalar or run in one thread. These are
compiled by Numba when they are first called, and the machine code is kept on disk. They serve PyNative in float32;
graphs, mixed precision and other devices have MindSpore's operators.
"""

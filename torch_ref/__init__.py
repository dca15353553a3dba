"""The PyTorch mirror of ms_vireid: the same files, classes, functions and arguments; it never imports mindspore."""

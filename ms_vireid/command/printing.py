"""The one way to print: lines that are escaped where they would control a terminal."""

import sys

from ms_vireid.command.errors import printable


def say(*lines: str, error: bool = False) -> None:
    """Print each text as one line, above the progress bar if there is one. error: print to standard error."""
    from tqdm import tqdm  # not at the top: --help does without it

    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # closed by the shell's >&-
        for line in lines:
            tqdm.write(printable(line), file=stream)
        stream.flush()

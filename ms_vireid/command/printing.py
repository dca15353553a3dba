"""The one way to print: lines that show what they hold, whatever that would do to a terminal."""

import sys

from ms_vireid.command.errors import printable


def say(*lines: str, error: bool = False) -> None:
    """Print each text as one line, above a progress bar where there is one; error: to standard error."""
    from tqdm import tqdm  # only now: a command line is read without it

    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # closed by the shell's >&-
        for line in lines:
            tqdm.write(printable(line), file=stream)
        stream.flush()

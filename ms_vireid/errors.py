"""A user's mistake, as one line: what is wrong, where, and what to do."""

LONGEST = 300  # characters of a line
_END = 100  # of a longer one, which tell what to do


class InputError(Exception):
    """Raised for bad configurations, data, checkpoints and devices; commands print it and exit with 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def one_line(text: str) -> str:
    """A text made safe for a terminal: control characters escaped, the middle cut out if it is too long."""
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - _END - 5]} ... {text[-_END:]}"


class DeviceError(Exception):
    """A device that cannot be used. str() says why; `remedy` what to do."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem)
        self.remedy = remedy

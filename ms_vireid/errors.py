"""A user's mistake, as one line: what is wrong, where, and what to do."""


class InputError(Exception):
    """Raised for bad configurations, data, checkpoints and devices; commands print it and exit with 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class DeviceError(Exception):
    """A device that cannot be used. str() says why; `remedy` what to do."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem)
        self.remedy = remedy

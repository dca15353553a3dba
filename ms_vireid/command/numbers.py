"""The numbers that options take, each with its smallest and largest value. They are checked as the arguments are read,
before anything is imported, opened or allocated. config/schema.py has the numbers of a configuration."""

import re
from typing import NamedTuple

from ms_vireid.command.errors import InputError

_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_REAL = re.compile(r"[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")


class Bounds(NamedTuple):
    """The smallest and the largest value, and `why` that is the largest. They are floats if fractions are allowed."""

    least: float
    most: float
    why: str

    def read(self, option: str, text: str) -> float:
        """Read a number from a text; raise InputError, which names the option, unless it is one within the bounds."""
        fractions = isinstance(self.least, float)
        if not (_REAL if fractions else _WHOLE).fullmatch(text):
            kind = "number" if fractions else "whole number"
            raise InputError(f"{option} {text[:40]!r}: must be a {kind} from {self.least:,} to {self.most:,}")
        value = float(text) if fractions else int(text)
        self.check(option, value)
        return value

    def check(self, name: str, value: float) -> None:
        """Raise InputError unless the value is within the bounds."""
        if value < self.least:
            raise InputError(f"{name} {value}: must be at least {self.least:,}")
        if not value <= self.most:
            raise InputError(f"{name} {value}: must be at most {self.most:,} ({self.why})")


_SEED = Bounds(0, 2**31 - 1, "random numbers are drawn from 32 bits with a sign")
_TRAINED_BATCH = Bounds(1, 64, "a batch has twice their product of pictures, several times the papers' 8 x 4")
_SIMILARITY = Bounds(-1.0, 1.0, "similarities are cosines")
_REPEATS = Bounds(1, 1000, "each is measured anew, and beyond hundreds no median moves")
NUMBERS = {  # by command and option
    "ablate --seeds": Bounds(1, 100, "every row is trained as often"),
    "ablate --trials": Bounds(1, 10, "RegDB has as many splits"),
    "benchmark --identities": _TRAINED_BATCH,
    "benchmark --images": Bounds(1, 1024, "several times the largest batch of the papers"),
    "benchmark --instances": _TRAINED_BATCH,
    "benchmark --repeats": _REPEATS,
    "benchmark --steps": _REPEATS,
    "evaluate --fmr": Bounds(1e-9, 0.5, "a higher rate accepts most strangers"),
    "evaluate --threshold": _SIMILARITY,
    "evaluate --trials": Bounds(1, 1000, "as evaluation.trials; SYSU-MM01's protocol has 10"),
    "export --batch-size": Bounds(1, 256, "the file is tried on a batch of that size, in memory"),
    "extract --batch-size": Bounds(1, 10_000, "as evaluation.batch_size: more pictures at a time only take memory"),
    "extract --workers": Bounds(0, 256, "as data.workers: each is a process"),
    "parity --processes": Bounds(1, 256, "each holds both frameworks, a gigabyte and more"),
    "recipe --seed": _SEED,
    "report --queries": Bounds(0, 50, "a page holds the pictures of twice as many, and is to be opened by a browser"),
    "retrieve --breadth": Bounds(1, 100_000, "nearly all of a gallery that fits in memory: search it by flat"),
    "retrieve --camera": Bounds(0, 2**31 - 1, "feature files hold cameras in 32 bits with a sign"),
    "retrieve --threshold": _SIMILARITY,
    "retrieve --top-k": Bounds(1, 100_000, "nobody looks at more, and each query's are kept; extract.py gives all"),
    "stand-in --memory": Bounds(0.001, 1024.0, "GiB, several times any accelerator's"),
    "torch_ref --steps": Bounds(1, 10**9, "no recipe within the schema's bounds that ends has more"),
    "visualize --identities": Bounds(2, 10, "there are as many colours that can be told apart"),
    "visualize --pairs": Bounds(1, 1_000_000, "a histogram does not change with more"),
    "visualize --pictures": Bounds(1, 100, "more points than can be seen, and t-SNE takes minutes"),
    "visualize --queries": Bounds(1, 50, "of more, nothing can be seen in a figure: draw several"),
    "visualize --seed": _SEED,
}

"""Compare two tensors: how far apart they are, where, and whether that is too far."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Float32 rounds to 6e-8. A difference is relative to the tensor's scale, its largest absolute entry, because sums of
# many products round in proportion to the largest of them, not to a result that happens to be small. A GPU and an NPU,
# TF32 and HF32 off, have the same limits: an H100 kept them (docs/evidence/ladder.md).
EXACT = 0.0  # integers, names, masks: no rounding is involved
FORWARD = 1e-5  # twelve blocks of sums over up to 3072 products, taken in another order: 1e-6 seen
NORMALISED = 5e-5  # BatchNorm over a few pictures: pooled features are rounded as above, and spread less: 1.3e-5 seen
GRADIENT = 1e-4  # the same twice over, and differences of nearly equal distances in the losses: 1e-5 seen
UPDATE = 1e-6  # a few elementwise operations, in another order
TRAJECTORY = 1e-3  # 20 steps, in which AdamW divides by the square root of small second moments: 3e-4 seen
MARGIN = 4.0  # times PyTorch's own distance from float64, where float32 cannot hold the limits above
KINKS = 3e-2  # of a gradient's norm: a few of millions of activations are on another side of ReLU's kink, 1e-2 seen
ROUNDING = 1e-2  # of gradients that are exactly 0, relative to those beside them
HALF = 2.0**-11  # float16 rounds to 11 bits: each operand and each result of a product by up to this share
HALF_MARGIN = 2 * MARGIN  # the same from float32, beside PyTorch that rounds products alone: 4.0 seen
IN_HALF = {  # of loss terms and features through 20 steps beside PyTorch's autocast, which rounds to 11 bits or 8
    "float16": 32 * HALF,  # 6.3e-3 seen
    "bfloat16": 32 * 2.0**-8,  # 3.9e-2 seen, on the stand-in for an Ascend
}
REACH = 1.0  # of the distance that all steps together can cover: a bound, where values are free (`trajectory.FREE`)


@dataclass(frozen=True)
class Comparison:
    """A tensor of MindSpore beside its reference.

    tensor: its name. error: the largest difference over the scale; inf if shape or finiteness differ.
    tolerance: how large the error may be. detail: where the largest difference is, with both values.
    """

    tensor: str
    error: float
    tolerance: float
    detail: str

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    @property
    def closeness(self) -> float:
        """The error as a share of the tolerance; 0 for an exact comparison that holds."""
        return self.error / self.tolerance if self.tolerance else self.error

    @property
    def of_limit(self) -> str:
        """The error beside its limit, with a mark if it is over."""
        return f"{self.error:.1e} of {self.tolerance:.0e}{'' if self.passed else '!'}"

    def __str__(self) -> str:
        verdict = "within" if self.passed else "OVER"
        return f"{self.tensor}: error {self.error:.1e} {verdict} {self.tolerance:.0e} ({self.detail})"


def compare(
    tensor: str,
    actual: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    scale: float | None = None,
    norm: bool = False,
) -> Comparison:
    """Compare shape, then finiteness, then values.

    Args:
        tensor: the name to report. actual: MindSpore's. expected: the reference's.
        tolerance: of the largest difference over `scale`.
        scale: what differences are relative to; default: the largest absolute entry of `expected`, or 1 if all are 0.
        norm: the error is the Euclidean norm of the differences over that of `expected` instead.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return Comparison(tensor, np.inf, tolerance, f"shape {list(actual.shape)}, expected {list(expected.shape)}")
    if actual.size == 0:
        return Comparison(tensor, np.inf, tolerance, "empty")
    exact, reference = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(exact) & np.isfinite(reference)
    if not finite.all():
        return Comparison(tensor, np.inf, tolerance, _place(np.argmin(finite), actual, expected))
    scale = scale or float(np.abs(reference).max()) or 1.0
    difference = np.abs(exact - reference) / scale
    error = np.linalg.norm(difference) * scale / np.linalg.norm(reference) if norm else difference.max()
    return Comparison(tensor, float(error), tolerance, _place(np.argmax(difference), actual, expected))


def _place(flat: int, actual: np.ndarray, expected: np.ndarray) -> str:
    index = np.unravel_index(flat, actual.shape)
    place = f"at [{', '.join(map(str, index))}] " if index else ""
    return f"{place}{actual[index]:.9g}, expected {expected[index]:.9g}"


def compare_all(
    prefix: str, actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float
) -> list[Comparison]:
    """Compare the sets of names, then tensors by name; `prefix` says what they are."""
    common = [name for name in expected if name in actual]
    return [
        compare_names(f"{prefix}: names", actual, expected),
        *(compare(f"{prefix} {name}", actual[name], expected[name], tolerance) for name in common),
    ]


def compare_names(what: str, actual, expected) -> Comparison:
    """Compare two sets of names, which must be equal."""
    missing, extra = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
    wrong = [f"{name} is missing" for name in missing] + [f"{name} is extra" for name in extra]
    return Comparison(what, float(len(wrong)), EXACT, ", ".join(wrong) or f"all {len(set(expected))} the same")

"""The check that all features have to pass."""

import numpy as np


def first_fault(features: np.ndarray) -> tuple[int, str] | None:
    """Find the first row of float32 [N, C] that is not L2-normalised (also one that is zero or not finite). Returns its
    index and its norm in words, or None."""
    norms = np.sqrt(np.einsum("nc,nc->n", features, features))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))  # NaN too; float16's rounding is within
    return (int(wrong[0]), f"has norm {norms[wrong[0]]:.4g}, it must be 1") if len(wrong) else None

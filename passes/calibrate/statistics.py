"""Histograms of activation tensors, from which calibration finds their ranges.

:class:`Histogram` counts values in bins of width ``2**exponent`` anchored at zero. When a value
falls outside, neighbouring bins are merged in pairs and the width doubles, which is exact. So
memory is constant in the number of samples, and the counts do not depend on how the samples were
batched.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qcomp.quantization import TensorRange, TensorStatistics

__all__ = ["BINS", "Histogram", "TensorRange", "TensorStatistics"]

BINS = 4096
"""Bins on each side of zero; between half and all of them are in use on the longer side."""

_CHUNK = 1 << 16
"""Values at a time: their bins stay in a processor's cache."""


class Histogram:
    """Minimum, maximum and (optionally) a histogram of a stream of float values.

    Attributes:
        minimum: Smallest value so far (``inf`` before the first).
        maximum: Largest value so far (``-inf`` before the first).
        count: Number of values so far.
        exponent: Bin width is ``2.0 ** exponent``.
        counts: int64[2 * BINS]; bin i holds values in [(i - BINS) * width, (i - BINS + 1) * width).
    """

    __slots__ = ("count", "counts", "exponent", "maximum", "minimum")

    def __init__(self, bins: bool = True) -> None:
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.count = 0
        self.exponent = 0
        self.counts: npt.NDArray[np.int64] | None = (
            np.zeros(2 * BINS, dtype=np.int64) if bins else None
        )

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(2.0**self.exponent)

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Count the values of a tensor.

        Args:
            values: Float tensor of any shape.

        Raises:
            FloatingPointError: One of them is NaN or infinite.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())  # NaN wins both
        if not (math.isfinite(low) and math.isfinite(high)):
            raise FloatingPointError("a value is not finite")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if self.counts is not None:
            self._cover(max(abs(self.minimum), abs(self.maximum)))
            flat = values.reshape(-1)
            for start in range(0, flat.size, _CHUNK):
                # A product with a power of two is exact, so no value changes its bin. In float32
                # it could be too large or vanish for some powers.
                kind = np.float32 if -100 <= self.exponent <= 0 else np.float64
                part = flat[start : start + _CHUNK].astype(kind, copy=False)
                bins = np.multiply(part, 1.0 / self.width, dtype=kind)
                np.floor(bins, out=bins)
                bins += BINS
                self.counts += np.bincount(bins.astype(np.intp), minlength=2 * BINS)
        self.count += values.size

    def _cover(self, peak: float) -> None:
        """Make bins wide enough for |value| <= peak."""
        assert self.counts is not None
        if peak == 0.0:
            return
        needed = int(np.floor(np.log2(peak))) + 1 - int(np.log2(BINS))
        if not self.counts[:BINS].any() and not self.counts[BINS + 1 :].any():
            # Only zeros so far (bin BINS): any width describes them, the finest is best.
            self.exponent = needed
            return
        while self.exponent < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(2 * BINS, dtype=np.int64)
            self.counts[BINS // 2 : BINS // 2 + BINS] = pairs
            self.exponent += 1

    def edges(self) -> npt.NDArray[np.float64]:
        """float64[2 * BINS + 1]: left edges of the bins and the right end."""
        return (np.arange(2 * BINS + 1, dtype=np.float64) - BINS) * self.width

    def filled(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Counts of the bins from the first to the last used one, and their edges (one more)."""
        assert self.counts is not None
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1])) if used.size else (BINS, BINS)
        return self.counts[first : last + 1], self.edges()[first : last + 2]

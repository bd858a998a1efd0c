"""Range method ``percentile``: cut the tails of the distribution.

    low = F^-1((1 - p) / 2),   high = F^-1((1 + p) / 2)

where F is the empirical distribution and p the kept share. Inside a histogram bin the values are
taken as evenly spread. Source: Wu et al. 2020, arXiv:2004.09602, section 5.1.
"""

from __future__ import annotations

import numpy as np

from qcomp.passes.calibrate.statistics import Histogram

__all__ = ["percentile_range"]


def percentile_range(histogram: Histogram, percentile: float = 99.999) -> tuple[float, float]:
    """Return the range that keeps ``percentile`` percent of the values.

    Half of the rest is cut on each side.

    Args:
        histogram: With counts.
        percentile: In (0, 100]; 100 is min-max.

    Returns:
        (low, high), inside [minimum, maximum].
    """
    counts, edges = histogram.filled()
    share = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)]) / histogram.count
    tail = (1.0 - percentile / 100.0) / 2.0
    low = _quantile(share, edges, tail, histogram.minimum)
    high = _quantile(share, edges, 1.0 - tail, histogram.maximum)
    # A bin is wider than the values in it may be spread.
    low = min(max(low, histogram.minimum), histogram.maximum)
    return low, min(max(high, low), histogram.maximum)


def _quantile(
    share: np.ndarray[tuple[int], np.dtype[np.float64]],
    edges: np.ndarray[tuple[int], np.dtype[np.float64]],
    wanted: float,
    extreme: float,
) -> float:
    """Invert the piecewise linear distribution; the extreme itself when nothing is cut."""
    if wanted <= 0.0 or wanted >= 1.0:
        return extreme
    index = int(np.searchsorted(share, wanted, side="left"))
    index = min(max(index, 1), len(share) - 1)
    below, above = share[index - 1], share[index]
    part = (wanted - below) / (above - below) if above > below else 0.0
    return float(edges[index - 1] + part * (edges[index] - edges[index - 1]))

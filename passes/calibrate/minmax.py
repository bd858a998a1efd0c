"""Range method ``minmax``: the range of all values seen.

    low = min x,   high = max x

Nothing is clipped; one outlier widens the step for every other value. Source: Krishnamoorthi 2018,
arXiv:1806.08342, section 2.5 (activations by running minimum and maximum).
"""

from __future__ import annotations

from qcomp.passes.calibrate.statistics import Histogram

__all__ = ["minmax_range"]


def minmax_range(histogram: Histogram) -> tuple[float, float]:
    """Return the smallest and the largest value seen."""
    return histogram.minimum, histogram.maximum

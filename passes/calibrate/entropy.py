"""Range method ``entropy``: the clipping that loses the least information (Kullback-Leibler).

For a threshold T of |x| at bin i, with P the distribution of |x| where everything beyond T is
added to the last bin, and Q the part below T quantized to 2^(bits-1) levels and spread out again
over its filled bins:

    T = argmin_i  KL(P_i || Q_i) = argmin_i  sum_k P_i[k] log(P_i[k] / Q_i[k])

    low = max(min x, -T),   high = min(max x, T)

Source: S. Migacz, "8-bit Inference with TensorRT", GPU Technology Conference 2017, slides 27-36.
A tensor without negative values has 2^bits levels on its one side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.statistics import BINS, Histogram

__all__ = ["entropy_range"]

_THRESHOLDS = 256
"""Number of thresholds tried, evenly spaced over the bins in use."""


def _divergence(counts: npt.NDArray[np.float64], keep: int, levels: int) -> float:
    """KL(P || Q) when the first ``keep`` bins are kept and quantized to ``levels`` levels."""
    p = counts[:keep].copy()
    inner = p.copy()
    p[-1] += counts[keep:].sum()
    level = (np.arange(keep) * levels) // keep
    filled = p > 0
    total = np.bincount(level, weights=inner, minlength=levels)
    members = np.bincount(level, weights=filled.astype(np.float64), minlength=levels)
    spread = np.divide(total, members, out=np.zeros(levels), where=members > 0)
    q = np.where(filled, spread[level], 0.0)
    p_sum, q_sum = p.sum(), q.sum()
    if p_sum == 0.0 or q_sum == 0.0:
        return float("inf")
    p, q = p / p_sum, q / q_sum
    both = filled & (q > 0)
    # A bin that P fills and Q cannot is the loss of everything in it.
    if bool((filled & ~both).any()):
        return float("inf")
    return float(np.sum(p[both] * np.log(p[both] / q[both])))


def entropy_range(histogram: Histogram, bits: int = 8) -> tuple[float, float]:
    """Return the range of least Kullback-Leibler divergence.

    Cost: 256 passes over at most 4,096 bins.
    """
    assert histogram.counts is not None
    counts = histogram.counts
    magnitude = (counts[BINS:] + counts[:BINS][::-1]).astype(np.float64)
    magnitude[0] = 0.0 if magnitude[1:].any() else magnitude[0]
    used = int(np.flatnonzero(magnitude)[-1]) + 1 if magnitude.any() else 1
    levels = 1 << (bits - 1 if histogram.minimum < 0.0 else bits)
    if used <= levels:
        return histogram.minimum, histogram.maximum
    tries = np.unique(np.linspace(levels, used, _THRESHOLDS).astype(np.int64))
    scores = [(_divergence(magnitude[:used], int(keep), levels), -int(keep)) for keep in tries]
    threshold = -min(scores)[1] * histogram.width
    return max(histogram.minimum, -threshold), min(histogram.maximum, threshold)

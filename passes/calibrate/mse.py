"""Range method ``mse``: the range with the smallest mean squared quantization error.

    (low, high) = argmin  sum_i c_i (x_i - Q(x_i; low, high))^2

over the histogram's bins with centres x_i and counts c_i, Q being the affine quantizer of
``bits`` bits with its zero point. Source: Sung et al. 2015, arXiv:1511.06488, and Banner et al.
2019, arXiv:1810.05723 (clipping that minimises the squared error); the search is theirs made
numeric: first a common factor for both ends, then each end by itself, on grids that shrink.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qcomp.passes.calibrate.statistics import Histogram
from qcomp.passes.quantize.arithmetic import affine_parameters
from qcomp.passes.quantize.integer_types import IntegerType

__all__ = ["mse_range"]

_COMMON = np.linspace(0.02, 1.0, 99)
_SINGLE = np.linspace(0.8, 1.25, 37)


def _error(
    x: npt.NDArray[np.float64], c: npt.NDArray[np.float64], low: float, high: float, bits: int
) -> float:
    parameters = affine_parameters(low, high, IntegerType(bits, signed=False))
    levels = np.rint(x / parameters.scale) + parameters.zero_point
    np.clip(levels, 0, parameters.type.max, out=levels)
    noise = (levels - parameters.zero_point) * parameters.scale - x
    return float(c @ (noise * noise))


def mse_range(histogram: Histogram, bits: int = 8) -> tuple[float, float]:
    """Return the range of least squared error for an unsigned affine quantizer of ``bits`` bits.

    Cost: about 250 passes over at most 8,192 bins.
    """
    counts, edges = histogram.filled()
    used = np.flatnonzero(counts)
    c = counts[used].astype(np.float64)
    x = np.clip(0.5 * (edges[used] + edges[used + 1]), histogram.minimum, histogram.maximum)
    floor, ceiling = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    error, factor = min((_error(x, c, a * floor, a * ceiling, bits), -a) for a in _COMMON.tolist())
    low, high = -factor * floor, -factor * ceiling
    for _ in range(2):
        trials = [max(a * low, floor) for a in _SINGLE.tolist()]
        error, low = min([(error, low), *((_error(x, c, t, high, bits), t) for t in trials)])
        trials = [min(a * high, ceiling) for a in _SINGLE.tolist()]
        error, high = min([(error, high), *((_error(x, c, low, t, bits), t) for t in trials)])
    return low, high

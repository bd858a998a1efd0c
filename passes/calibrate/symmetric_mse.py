"""Range method ``mse`` for machines whose activations are symmetric, maybe with powers of two.

    s = argmin  sum_i c_i (x_i - s clip(round(x_i / s), min, max))^2

over the histogram's bins with centres x_i and counts c_i, the zero point in the middle of the
type. s runs over fractions of the scale that covers all values; where the machine takes powers of
two only, over that power and the four below.

Source: as :mod:`qcomp.passes.calibrate.mse`; powers of two: Jain et al. 2019, arXiv:1903.08066.
"""

from __future__ import annotations

import numpy as np

from qcomp.integer_rules import IntegerRules
from qcomp.passes.calibrate.statistics import Histogram
from qcomp.passes.quantize.activation_parameters import activation_parameters, activation_type

__all__ = ["symmetric_mse_range"]

_FRACTIONS = np.linspace(0.02, 1.0, 99)


def symmetric_mse_range(histogram: Histogram, machine: IntegerRules) -> tuple[float, float]:
    """Return the range of least squared error; :func:`activation_parameters` gives its scale.

    Args:
        histogram: With counts.
        machine: Type of activations; whether scales are powers of two.
    """
    counts, edges = histogram.filled()
    used = np.flatnonzero(counts)
    c = counts[used].astype(np.float64)
    x = np.clip(0.5 * (edges[used] + edges[used + 1]), histogram.minimum, histogram.maximum)
    peak = max(-histogram.minimum, histogram.maximum, 0.0)
    fractions = 0.5 ** np.arange(5) if machine.power_of_two else _FRACTIONS[::-1]
    kind = activation_type(machine)
    best = (float("inf"), peak)
    for fraction in fractions.tolist():
        end = fraction * peak
        affine = activation_parameters(-end, end, machine)
        levels = np.clip(np.rint(x / affine.scale) + affine.zero_point, kind.min, kind.max)
        noise = (levels - affine.zero_point) * affine.scale - x
        best = min(best, (float(c @ (noise * noise)), end))
    return -best[1], best[1]

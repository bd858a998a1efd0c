"""Range method ``moving-average``: an exponential average of the batches' ranges.

    low_1 = min x_1        low_t = m low_{t-1} + (1 - m) min x_t        high likewise

over batches t = 1, 2, ..., with the momentum m. An outlier of one batch fades, so the range is
narrower than ``minmax``; unlike the other methods it depends on how the samples are batched and on
their order. Source: Krishnamoorthi 2018, arXiv:1806.08342, section 2.5; Jacob et al. 2017,
arXiv:1712.05877, section 3.1 (m near 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MovingAverage"]


@dataclass(slots=True)
class MovingAverage:
    """The average of the ranges of a stream of batches.

    Attributes:
        momentum: Share of the past, in [0, 1).
        low: Average of the batches' smallest values.
        high: Average of their largest values.
        batches: Number of batches so far.
    """

    momentum: float
    low: float = 0.0
    high: float = 0.0
    batches: int = 0

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Count one batch, a float tensor of any shape."""
        if values.size == 0:
            return
        past = self.momentum if self.batches else 0.0
        self.low = past * self.low + (1.0 - past) * float(values.min())
        self.high = past * self.high + (1.0 - past) * float(values.max())
        self.batches += 1

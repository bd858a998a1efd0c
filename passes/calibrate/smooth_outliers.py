"""Adaptive smoothing: only channels with outliers are made smaller, as far as W4A8 gains by it.

    x W = (x / s) (s * W),    s_j = max(1, max|x_j| / t),
    t = argmin || Q_8(x / s) Q_4(s * W) - x W ||^2

Q_8 has a scale a token, Q_4 rounds to nearest in blocks or channels; t goes from the tensor's peak,
where s = 1, down to the median of its channels' peaks, so that at least half of the channels stay
as they are; so do all where less than ``gain`` decibels are won: tensors without outliers. One t is
found for all layers that read a tensor. The quotient goes into what makes the tensor
(:mod:`qcomp.passes.calibrate.quotients`); where nothing takes it, layers stay as they are.

    smooth-outliers{group=0},gptq{group=0,symmetric=true},quantize-tokens

is QQQ, a scale a channel; its groups are ``group=128`` in both. Hessian compensation is ``gptq``.
The options ``bits``, ``group`` and ``symmetric`` are those of the pass behind that quantizes.

Preconditions: calibration data in the context; weights are constants; before quantizing passes.
Preserved: the function, up to float32 rounding.
Cost: one run of the model over ``samples`` samples; for each t one rounding of all weights and a
product with ``rows`` rows.
Source: Zhang et al. 2024 (QQQ), arXiv:2406.09904, section 3 (the abstract and the published code
were read, not the paper). The median as the lower end, the geometric steps and the layers' own
outputs in place of the attention's are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.calibrate.quotient_search import Found, QuotientSearch, decibels, matrix
from qcomp.passes.calibrate.quotients import Readers, SeenRows
from qcomp.passes.quantize.grids import Grid
from qcomp.passes.quantize.integer_reference import token_levels
from qcomp.passmanager import Context

__all__ = ["SmoothOutliers", "SmoothedOutliers"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SmoothedOutliers:
    """What ``smooth-outliers`` did, for reports and for a second run.

    Attributes:
        channels: Tensor -> channels that were made smaller; 0 where nothing was gained.
        gains: Tensor -> decibels of its layers' outputs.
    """

    channels: dict[str, int] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SmoothOutliers(QuotientSearch):
    """Make only the channels smaller that have outliers, for 4-bit weights and 8-bit tokens (QQQ).

    Attributes:
        steps: Thresholds that are tried below the peak.
        gain: Decibels that the layers of a tensor must gain. A search gains some tenths without
            outliers, which are gone on other data; with outliers it gains several.
    """

    name: ClassVar[str] = "smooth-outliers"
    scheme: ClassVar[str] = "dynamic"

    group: int = 0
    symmetric: bool = True
    steps: int = 16
    rows: int = 256
    gain: float = 0.5

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if not self.gain >= 0.0:
            raise UsageError(f"{self.name}: gain is {self.gain}", hint="0 decibels or more")

    def done(self, context: Context) -> Mapping[str, float]:
        """Tensor -> channels that were made smaller by earlier runs."""
        return (context.get(SmoothedOutliers) or SmoothedOutliers()).channels

    def keep(self, context: Context, found: Mapping[str, Found]) -> None:
        """Remember channels and gains."""
        before = context.get(SmoothedOutliers) or SmoothedOutliers()
        channels = before.channels | {name: int(each.number) for name, each in found.items()}
        gains = before.gains | {name: each.gain for name, each in found.items()}
        context.put(SmoothedOutliers(channels, gains))

    def searched(self, readers: Readers, seen: SeenRows, context: Context) -> Found:
        """Find the best threshold; no channels where none gains."""
        ones, x = np.ones(readers.channels, np.float32), seen.kept
        weights = []
        for layer in readers.layers:
            W = matrix(layer)
            weights.append((W, self.grid_of(layer, context), x @ W.T))
        peak = np.maximum(-seen.low, seen.high)
        least = max(float(np.median(peak)), float(np.finfo(np.float32).tiny))
        tried = []
        for index, t in enumerate(np.geomspace(peak.max(), least, self.steps + 1)):
            s = np.maximum(peak / t, 1).astype(np.float32) if index else ones
            levels, scale = token_levels(x / s, 8)
            rounded = levels.astype(np.float32) * scale
            error = sum(_error(rounded, W * s, wanted, grid) for W, grid, wanted in weights)
            tried.append((error, index, s))
        error, _, s = min(tried, key=lambda entry: entry[:2])
        gain = decibels(tried[0][0], error)
        if gain >= self.gain:
            return Found(float((s > 1).sum()), gain, s)
        return Found(0.0, 0.0, ones)


def _error(x: Floats, W: Floats, wanted: Floats, grid: Grid) -> float:
    """``|| x Q(W) - wanted ||^2`` for W[N, K]."""
    grids = grid.fitted(W)
    return float(np.sum(np.square(x @ grids.real(grids.round(W)).T - wanted), dtype=np.float64))

"""Grids on two levels: 4-bit integers that whole numbers make 8-bit ones of a channel.

    W[c, k] ~ S[c] (q[c, k] - z[c, j]) r[c, j],    j = floor(k / group),    q, z in [0, 15]
    S[c] = max_k |W[c, k]| / 119,                  r in [1, 16], whole

Weights divided by S lie in the protective range [-119, 119]: r = ceil((max - min) / 15) is at most
16, and rounding moves no weight by more than 8, so that q - z times r stays in 8 bits. That holds
for the integers nearest to the weights; error feedback may choose any other, so zero points are
kept where all sixteen are safe:

    15 - floor(127 / r) <= z <= floor(128 / r)

There is such a z for every r up to 16 (at 17 there is none: why the range is 119), and it is at
most one step from the nearest one.

Source: Lin et al. 2024 (QServe), arXiv:2405.04532, section 4.1. Rounding W / S to 4 bits at once,
not by way of its 8-bit integers, ceil for round, zero points safe for all integers, and the search
of r are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.passes.quantize.grids import Grid

__all__ = ["PROTECTED", "ProgressiveGrid", "channel_scale", "zero_range"]

Floats = npt.NDArray[np.float32]

PROTECTED = 119
"""Largest magnitude of a weight in steps of its channel."""

_TOP = 15
_LARGEST = 16
_TRIED = 8
"""Multiples below that of the whole range that are tried."""


def channel_scale(weight: Floats, axis: int) -> Floats:
    """S of the channels of a matrix whose input channels lie along an axis."""
    scale = np.abs(weight).max(axis=axis) / np.float32(PROTECTED)
    return np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)


def zero_range(multiple: Floats) -> tuple[Floats, Floats]:
    """The least and the largest zero point with which all sixteen integers stay in 8 bits."""
    return _TOP - np.floor(127 / multiple), np.minimum(np.floor(128 / multiple), _TOP)


@dataclass(frozen=True, slots=True)
class ProgressiveGrid(Grid):
    """4 bits with zero points; ``minmax`` covers a group, ``mse`` searches r and z."""

    def _fit(self, w: Floats, h: Floats) -> tuple[Floats, Floats]:
        """Scales S r and zero points float32[N, B] of blocks float32[N, B, g]."""
        rows, count, size = w.shape
        channel = channel_scale(w.reshape(rows, count * size), 1)[:, None]
        x = w / channel[:, :, None]
        low, high = np.minimum(x.min(axis=2), 0), np.maximum(x.max(axis=2), 0)
        whole = np.clip(np.ceil((high - low) / _TOP), 1, _LARGEST)
        search = self.fit != "minmax"
        best = np.full(whole.shape, np.inf)
        multiple, zero = whole.copy(), np.zeros_like(whole)
        for less in range(_TRIED + 1 if search else 1):
            r = np.maximum(whole - less, np.ceil(whole / 2))
            least, most = zero_range(r)
            for beside in (-1, 0, 1) if search else (0,):
                z = np.clip(np.rint(-low / r) + beside, np.maximum(least, 0), most)
                q = np.clip(np.rint(x / r[:, :, None]) + z[:, :, None], 0, _TOP)
                off = (q - z[:, :, None]) * r[:, :, None] - x
                error = np.einsum("nbg,bg->nb", off * off, h)
                better = error < best
                best = np.where(better, error, best)
                multiple, zero = np.where(better, r, multiple), np.where(better, z, zero)
        return (multiple * channel).astype(np.float32), zero.astype(np.float32)

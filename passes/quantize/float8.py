"""E4M3, the 8-bit float that accelerators multiply, and 4-bit grids all of whose values lie on it.

FLOAT8E4M3FN has a sign, 4 bits of exponent (bias 7) and 3 of mantissa: every integer up to 16 times
a power of two from 2^-9 on, up to 448. So with a real S for each output channel n and whole k,

    W[n, i] = S[n] * (q[n, i] - z[n, g]) * 2^k[n, g],     q, z in [0, 15],  g the group of i,

what the 4 bits q stand for, divided by S, is a member of E4M3 exactly: |q - z| <= 15, and k lies
in [-9, 4]. Rounding to 4 bits and rounding to 8-bit floats are one rounding.

| x      | -1000 | -449 | 0.0009 | 0.3    | 1.0625 | 1.1875 | 17 | 19 | 448 |
|--------|-------|------|--------|--------|--------|--------|----|----|-----|
| E4M3   | -448  | -448 | 0      | 0.3125 | 1      | 1.25   | 16 | 20 | 448 |

Source: Micikevicius et al. 2022, arXiv:2209.05433; ONNX, 'Float stored in 8 bits'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.grids import Grid, Grids

__all__ = ["LARGEST", "Float8Grid", "channel_scales", "round_e4m3"]

Floats = npt.NDArray[np.float32]

LARGEST = 448.0
"""The largest member of E4M3."""

_LOWEST, _HIGHEST = -9, 4
"""Powers of two that a group may have."""

_OFFSETS = 8
"""Channel scales that are tried within a factor of two."""


def round_e4m3(x: npt.ArrayLike) -> Floats:
    """The nearest members of E4M3, ties to even mantissas, as float32; beyond 448: 448.

    Args:
        x: Real numbers, finite.
    """
    import ml_dtypes

    clipped = np.clip(np.asarray(x, np.float32), -LARGEST, LARGEST)
    return clipped.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Float8Grid(Grid):
    """Grids of 4 bits whose scales are a channel's times powers of two.

    Raises:
        UsageError: More than 4 bits: their levels are no members of E4M3.
    """

    def __post_init__(self) -> None:
        """Check the options."""
        Grid.__post_init__(self)
        if self.bits > 4:
            raise UsageError(
                f"levels of {self.bits} bits do not all lie on E4M3",
                hint="an 8-bit float has 4 significant bits: bits=2, 3 or 4",
            )

    def fitted(self, weight: Floats, importance: Floats | None = None) -> Grids:
        """As :meth:`Grid.fitted`, then the channel scale and the powers with the least error.

        Of every group the two powers beside the scale that was fitted are tried, the middle of its
        range kept; of every channel eight scales.
        """
        free = Grid.fitted(self, weight, importance)
        h = np.ones(weight.shape[1], np.float32) if importance is None else importance
        start = np.maximum(np.abs(free.scale).max(axis=1, keepdims=True), np.float32(1e-30))
        best: Grids | None = None
        least = np.zeros(len(weight))
        for offset in range(_OFFSETS):
            S = _short(start * np.float32(2.0 ** (offset / _OFFSETS - _HIGHEST)))
            exponent = np.log2(np.abs(free.scale) / S)
            tried = [self._at(free, S, turn(exponent)) for turn in (np.floor, np.ceil)]
            errors = [_group_errors(grids, weight, h) for grids in tried]
            better = errors[1] < errors[0]
            grids = Grids(
                self,
                free.size,
                np.where(better, tried[1].scale, tried[0].scale),
                np.where(better, tried[1].zero, tried[0].zero),
            )
            error = np.minimum(*errors).sum(axis=1)
            if best is None:
                best, least = grids, error
                continue
            won = (error < least)[:, None]
            best = Grids(
                self,
                free.size,
                np.where(won, grids.scale, best.scale),
                np.where(won, grids.zero, best.zero),
            )
            least = np.minimum(error, least)
        assert best is not None
        return best

    def _at(self, free: Grids, S: Floats, exponent: Floats) -> Grids:
        """The grids with other scales, their ranges about the same middle."""
        power = np.clip(exponent, _LOWEST, _HIGHEST)
        scale = S * np.exp2(power).astype(np.float32)
        zero = free.zero
        if not self.symmetric:
            middle = (np.float32(self.top / 2) - free.zero) * free.scale
            zero = np.clip(np.rint(np.float32(self.top / 2) - middle / scale), 0, self.top)
        return Grids(self, free.size, scale.astype(np.float32), zero.astype(np.float32))


def _short(scale: Floats) -> Floats:
    """Scales of 16 significant bits: their products with levels are exact in float32."""
    bits = np.ascontiguousarray(scale, np.float32).view(np.uint32) & np.uint32(0xFFFFFF00)
    return bits.view(np.float32)


def _group_errors(grids: Grids, weight: Floats, h: Floats) -> npt.NDArray[np.float64]:
    """sum_i h_i (w_i - w^_i)^2 of every group, float64[N, B]."""
    off = grids.real(grids.round(weight))
    off -= weight
    off *= off
    off *= h
    starts = np.arange(0, weight.shape[1], grids.size)
    return np.add.reduceat(off, starts, axis=1, dtype=np.float64)


def channel_scales(scale: Floats) -> tuple[Floats, Floats] | None:
    """Scales of groups as a channel's times powers of two; None if they are not.

    Args:
        scale: float32[N, B] above 0.

    Returns:
        S float32[N] and 2^k float32[N, B], whose largest of a channel is 2^4.
    """
    if not (scale > 0).all():
        return None
    S = scale.max(axis=1) / np.float32(2.0**_HIGHEST)
    power = scale / S[:, None]
    mantissa, exponent = np.frexp(power)
    fits = (mantissa == 0.5).all() and (exponent - 1 >= _LOWEST).all()
    return (S, power.astype(np.float32)) if fits and (S > 0).all() else None

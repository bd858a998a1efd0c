"""Grids of few bits: the scale and zero point of every group of weights, fitted in several ways.

A group w of g weights becomes levels q in [0, 2^bits - 1] with  w_i ~ s (q_i - z).

* ``minmax``: the extremes of the group are levels
  (:func:`qcomp.passes.quantize.arithmetic.quantize_blocks`).
* ``mse``: the minmax grid shrunk by the factor in [0.5, 1] with the least weighted squared error
  sum_i h_i (w_i - s (q_i - z))^2, searched on a line (Nagel et al. 2021, arXiv:2106.08295, section
  3.1; h is the diagonal of the layer's Hessian where there is one).
* ``lsq``: the searched grid, then in turns the nearest levels for the scale and the scale of least
  weighted squares for the levels, s = sum h w (q - z) / sum h (q - z)^2: Lloyd's algorithm
  (Lloyd 1982) on grids of equal steps.
* ``hqq``: the objective of half-quadratic quantization, sum_i |w_i - s (q_i - z)|^p with p = 0.7,
  which lets outliers go (Badri and Shaji 2023, 'Half-Quadratic Quantization of Large Machine
  Learning Models', equation 1). There a real zero point solves it by splitting; zero points are
  levels here, so they are searched: the middle of the range and a level beside it, for each factor.

All are linear in the weights; a search takes 24 of such passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.kernels import kernel

__all__ = ["FITS", "Fit", "Grid", "Grids"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Fit = Literal["minmax", "mse", "lsq", "hqq"]
FITS: tuple[Fit, ...] = ("minmax", "mse", "lsq", "hqq")

_TINY = np.float32(np.finfo(np.float32).tiny)
_SHRINKING = np.linspace(1.0, 0.5, 24).astype(np.float32)
_SLAB = 1 << 20
"""Weights that are fitted at a time, in whole rows: temporary arrays stay in the cache."""

_LLOYD_ROUNDS = 4
_HQQ_NORM = 0.7


@dataclass(frozen=True, slots=True)
class Grid:
    """The kind of grid that a weight is rounded to.

    Attributes:
        bits: 2 to 8.
        group: Weights along the inputs that share a scale; 0: a whole row shares one.
        symmetric: Whether the zero point is fixed at 2^(bits - 1).
        fit: How scales and zero points are found.
        positive: Whether scales must be positive, so that the extra level of a symmetric grid is
            always the lowest.

    Raises:
        UsageError: An option outside its range.
    """

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    fit: Fit = "mse"
    positive: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        if not 2 <= self.bits <= 8:
            raise UsageError(f"a grid has 2 to 8 bits, not {self.bits}")
        if self.group < 0:
            raise UsageError(f"a group has at least one weight, not {self.group}")
        if self.fit not in FITS:
            raise UsageError(f"there is no fit '{self.fit}'", hint="one of " + ", ".join(FITS))
        if self.fit == "hqq" and self.symmetric:
            raise UsageError(
                "fit=hqq moves the zero point, which a symmetric grid has fixed",
                hint="symmetric=false, or fit=mse",
            )

    @property
    def top(self) -> int:
        """The highest level, 2^bits - 1."""
        return (1 << self.bits) - 1

    def size(self, columns: int) -> int:
        """Weights in a group of a row of ``columns``."""
        return min(self.group, columns) or columns

    def fitted(self, weight: Floats, importance: Floats | None = None) -> Grids:
        """Fit a grid to every group of a matrix.

        Args:
            weight: float32[N, K], rows are output channels.
            importance: float32[K], h >= 0: how much an error in this column counts; all the same
                by default.

        Returns:
            The grids of the groups along K, the last one shorter where K is no multiple.
        """
        rows, columns = weight.shape
        size = self.size(columns)
        count = -(-columns // size)
        w = np.zeros((rows, count * size), dtype=np.float32)
        w[:, :columns] = weight
        h = np.zeros(count * size, dtype=np.float32)
        h[:columns] = 1.0 if importance is None else importance
        scale = np.empty((rows, count), dtype=np.float32)
        zero = np.empty_like(scale)
        step = max(1, _SLAB // max(1, columns))
        for start in range(0, rows, step):
            part = slice(start, start + step)
            block = w[part].reshape(-1, count, size)
            scale[part], zero[part] = self._fit(block, h.reshape(count, size))
        return Grids(self, size, scale, zero)

    def _fit(self, w: Floats, h: Floats) -> tuple[Floats, Floats]:
        """Scales and zero points float32[N, B] of blocks float32[N, B, g]."""
        if self.fit == "minmax":
            return self._range(w)
        starts = self._starts(w)
        if self.fit == "hqq":
            beside = [(s, np.clip(z + step, 0, self.top)) for s, z in starts for step in (-1, 1)]
            starts += [(s, z.astype(np.float32)) for s, z in beside]
        scale, zero = (np.stack(parts) for parts in zip(*starts, strict=True))
        power = np.float32(_HQQ_NORM if self.fit == "hqq" else 2)
        found: tuple[Floats, Floats] = _search(
            w, h, scale, zero, _SHRINKING, np.float32(self.top), power
        )
        return self._lloyd(w, h, *found) if self.fit == "lsq" else found

    def _starts(self, w: Floats) -> list[tuple[Floats, Floats]]:
        symmetric = _symmetric(w, self.top, self.positive)
        return [symmetric] if self.symmetric else [symmetric, _asymmetric(w, self.top)]

    def _range(self, w: Floats) -> tuple[Floats, Floats]:
        """The grid over the whole range with the smaller squared error."""
        first, *rest = self._starts(w)
        if not rest:
            return first
        ones = np.ones(w.shape[1:], dtype=np.float32)
        better = _error(w, ones, *rest[0], self.top) <= _error(w, ones, *first, self.top)
        return np.where(better, rest[0][0], first[0]), np.where(better, rest[0][1], first[1])

    def _lloyd(self, w: Floats, h: Floats, scale: Floats, zero: Floats) -> tuple[Floats, Floats]:
        error = _error(w, h, scale, zero, self.top)
        for _ in range(_LLOYD_ROUNDS):
            steps = _levels(w, scale, zero, self.top) - zero[:, :, None]
            weighted = steps * h
            above = np.einsum("nbg,nbg->nb", weighted, w)
            below = np.einsum("nbg,nbg->nb", weighted, steps)
            tried = np.where(below > 0, above / np.maximum(below, _TINY), scale)
            tried = np.where(np.abs(tried) < _TINY, scale, tried).astype(np.float32)
            new = _error(w, h, tried, zero, self.top)
            better = new < error
            error, scale = np.where(better, new, error), np.where(better, tried, scale)
        return scale, zero


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """The fitted grids of a matrix float32[N, K].

    Attributes:
        grid: What was asked for.
        size: Weights in a group, g.
        scale: float32[N, B], never 0; B = ceil(K / g). A symmetric one may be negative.
        zero: Whole numbers in [0, 2^bits - 1], float32[N, B].
    """

    grid: Grid
    size: int
    scale: Floats
    zero: Floats

    def round(self, weight: Floats) -> Bytes:
        """Nearest levels uint8[N, K] of float32[N, K]."""
        scale, zero = self.columns(weight.shape[1])
        return _rounded(weight, scale, zero, self.grid.top).astype(np.uint8)

    def real(self, levels: Bytes) -> Floats:
        """What levels uint8[N, K] stand for, float32[N, K]."""
        scale, zero = self.columns(levels.shape[1])
        return (levels.astype(np.float32) - zero) * scale

    def columns(self, count: int) -> tuple[Floats, Floats]:
        """Scale and zero point of every weight, float32[N, count]."""
        return (
            np.repeat(self.scale, self.size, axis=1)[:, :count],
            np.repeat(self.zero, self.size, axis=1)[:, :count],
        )


@kernel(fastmath=True)
def _search(w: Any, h: Any, scale: Any, zero: Any, factors: Any, top: Any, power: Any) -> Any:
    """Of some grids [S, N, B], each shrunk by all factors, the one with the least error a block."""
    rows, count, size = w.shape
    best_scale = scale[0].copy()
    best_zero = zero[0].copy()
    for r in range(rows):
        for b in range(count):
            block, weights = w[r, b], h[b]
            least = np.float32(np.inf)
            for start in range(scale.shape[0]):
                z = zero[start, r, b]
                for factor in factors:
                    s = scale[start, r, b] * factor
                    turned = np.float32(1) / s
                    error = np.float32(0)
                    for i in range(size):
                        q = min(max(np.rint(block[i] * turned), -z), top - z)
                        off = q * s - block[i]
                        if power == 2:
                            error += weights[i] * off * off
                        else:
                            error += weights[i] * abs(off) ** power
                    if error < least:
                        least = error
                        best_scale[r, b], best_zero[r, b] = s, z
    return best_scale, best_zero


def _symmetric(w: Floats, top: int, positive: bool) -> tuple[Floats, Floats]:
    """The value of largest magnitude becomes level 0; the zero point is the middle.

    With ``positive`` scales it becomes level ``top`` where it is above 0.
    """
    middle = np.float32((top + 1) // 2)
    high, low = w.max(axis=2), w.min(axis=2)
    if positive:
        scale = np.maximum(high / (middle - 1), -low / middle).astype(np.float32)
    else:
        scale = (np.where(high > -low, high, low) / -middle).astype(np.float32)
    scale[np.abs(scale) < _TINY] = 1.0
    return scale, np.full(scale.shape, middle, dtype=np.float32)


def _asymmetric(w: Floats, top: int) -> tuple[Floats, Floats]:
    """The extremes, widened to hold 0, become levels 0 and ``top``."""
    high, low = np.maximum(w.max(axis=2), 0), np.minimum(w.min(axis=2), 0)
    scale = ((high - low) / np.float32(top)).astype(np.float32)
    scale[scale < _TINY] = 1.0
    return scale, np.clip(np.rint(-low / scale), 0, top).astype(np.float32)


def _rounded(w: Floats, scale: Floats, zero: Floats, top: int) -> Floats:
    levels = w / scale
    np.rint(levels, out=levels)
    levels += zero
    return np.clip(levels, 0, top, out=levels)


def _levels(w: Floats, scale: Floats, zero: Floats, top: int) -> Floats:
    """Nearest levels float32[N, B, g]."""
    return _rounded(w, scale[:, :, None], zero[:, :, None], top)


def _error(w: Floats, h: Floats, scale: Floats, zero: Floats, top: int) -> Floats:
    """sum_i h_i (w_i - s (q_i - z))^2 of every block, float32[N, B]."""
    noise = _levels(w, scale, zero, top)
    noise -= zero[:, :, None]
    noise *= scale[:, :, None]
    noise -= w
    noise *= noise
    return np.asarray(np.einsum("nbg,bg->nb", noise, h), dtype=np.float32)

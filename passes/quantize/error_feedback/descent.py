"""Levels improved one at a time: cyclic coordinate descent on the layer's output error.

For one row, with d = w^ - w, H and g = d H - w D (the half gradient of the squared output error),
the best value of weight j with all others fixed is

    w^_j - g_j / H_jj,

rounded to its grid (Nair and Suggala 2024, CDQuant, arXiv:2406.17542, equation 4; Chee et al. 2023,
QuIP, arXiv:2307.13304, section 4.2, 'greedy updates'). After a change by c, g moves by c H[j]. No
change can make the error larger, so sweeps end where none is left or their number is reached.

Between sweeps the scales can be fitted again: for fixed levels the error is quadratic in the B
scales s of a row. With z_b the steps q - z of group b, zero elsewhere, they move by the t of

    sum_c (z_b H z_c^T) t_c = -z_b g^T        for every group b.

The half gradient is kept throughout; the error that is left is d g - d (w D) at the end of it.

Cost: N K^2 multiplications for g, and as many for each fit, which also solves N systems of B
equations; a sweep makes N K comparisons and K multiplications for each level that changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.grids import Grids

__all__ = ["Improved", "descend", "output_errors"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
AnyFloats = npt.NDArray[Any]

_ROWS = 128
"""Rows whose scales are fitted at once: what is made of them stays in the cache."""


@kernel(fastmath=True)
def _sweep(
    levels: Any, gradient: Any, hessian: Any, scale: Any, zero: Any, top: Any, dead: Any
) -> int:
    """One sweep over all weights; the number of levels that changed."""
    n, k = levels.shape
    changed = 0
    for r in range(n):
        g = gradient[r]
        for j in range(k):
            if dead[j]:
                continue
            s = scale[r, j]
            old = np.float32(levels[r, j])
            q = min(max(np.rint(old - g[j] / (hessian[j, j] * s)), np.float32(0)), top)
            if q != old:
                change = (q - old) * s
                # A step in the direction of the minimum that rounding made too long is no gain.
                if change * (2 * g[j] + change * hessian[j, j]) < 0:
                    levels[r, j] = np.uint8(q)
                    changed += 1
                    row = hessian[j]
                    for i in range(k):
                        g[i] += change * row[i]
    return changed


@kernel(fastmath=True)
def _group_sums(moved: Any, steps: Any, begin: Any, size: Any, sums: Any) -> None:
    """Sums over groups of the products of ``moved`` and ``steps`` from column ``begin`` on."""
    for r in range(len(moved)):
        for c in range(sums.shape[1]):
            total = 0.0
            for i in range(c * size, min((c + 1) * size, moved.shape[1])):
                total += np.float64(moved[r, i] * steps[r, begin + i])
            sums[r, c] = total


@dataclass(frozen=True, slots=True, eq=False)
class Improved:
    """What descent found.

    Attributes:
        levels: uint8[N, K].
        grids: Their grids.
        errors: The squared output error of each row as :func:`output_errors` has it, float64[N].
    """

    levels: Bytes
    grids: Grids
    errors: npt.NDArray[np.float64]


def descend(
    weight: Floats,
    levels: Bytes,
    grids: Grids,
    hessian: Floats,
    drift: Floats | None = None,
    *,
    sweeps: int = 4,
    refits: int = 0,
) -> Improved:
    """Improve levels until no single change helps, at most ``sweeps`` times over all.

    Args:
        weight: float32[N, K].
        levels: uint8[N, K] to start from; not changed.
        grids: Their grids.
        hessian: H float32[K, K].
        drift: D float32[K, K] of asymmetric calibration.
        sweeps: Most sweeps; with 0 nothing is improved.
        refits: Times that scales are fitted anew and that many sweeps follow.

    Returns:
        No row with a larger output error than before.
    """
    best = levels.copy()
    h = np.ascontiguousarray(hessian, dtype=np.float32)
    dead = np.einsum("ii->i", h) <= 0
    top = np.float32(grids.grid.top)
    pulled = None if drift is None else weight @ drift
    gradient = _half_gradient(weight, best, grids, h, pulled)
    for turn in range(refits + 1 if sweeps else 0):
        if turn:
            grids = _refitted(best, grids, h, gradient)
            gradient = _half_gradient(weight, best, grids, h, pulled)
        scale, zero = grids.columns(weight.shape[1])
        for _ in range(sweeps):
            if not _sweep(best, gradient, h, scale, zero, top, dead):
                break
    if pulled is not None:
        gradient -= pulled
    errors = np.einsum("nk,nk->n", gradient, grids.real(best) - weight, dtype=np.float64)
    return Improved(best, grids, errors)


def _half_gradient(
    weight: Floats, levels: Bytes, grids: Grids, hessian: Floats, pulled: AnyFloats | None
) -> AnyFloats:
    gradient = (grids.real(levels) - weight) @ hessian
    if pulled is not None:
        gradient -= pulled
    return gradient


def _refitted(levels: Bytes, grids: Grids, hessian: Floats, gradient: AnyFloats) -> Grids:
    """The scales with the least output error for fixed levels and zero points.

    A row keeps its scales where one of the new ones would vanish or change its sign.
    """
    rows, columns = levels.shape
    count, size = grids.scale.shape[1], grids.size
    zero = grids.columns(columns)[1]
    starts = range(0, columns, size)
    found = np.empty_like(grids.scale)
    for first in range(0, rows, _ROWS):
        part = slice(first, first + _ROWS)
        steps = levels[part] - zero[part]
        matrix = np.empty((len(steps), count, count), dtype=np.float64)
        for b, begin in enumerate(starts):
            moved = steps[:, begin : begin + size] @ hessian[begin : begin + size, begin:]
            _group_sums(moved, steps, begin, size, matrix[:, b, b:])
            matrix[:, b:, b] = matrix[:, b, b:]
        diagonal = np.einsum("nbb->nb", matrix)
        diagonal += 1e-6 * diagonal.mean(axis=1, keepdims=True) + 1e-30  # groups of zeros
        slope = np.add.reduceat(gradient[part] * steps, starts, axis=1, dtype=np.float64)
        moves = np.linalg.solve(matrix, -slope[:, :, None])[:, :, 0]
        found[part] = grids.scale[part] + moves
    ratio = found / grids.scale
    lost = ~((ratio > 0.3) & (ratio < 3.0)).all(axis=1)
    found[lost] = grids.scale[lost]
    return Grids(grids.grid, size, found, grids.zero)


def output_errors(
    weight: Floats, rounded: Floats, hessian: Floats, drift: Floats | None = None
) -> npt.NDArray[np.float64]:
    """Squared output error of each row, less what no choice of levels can change.

    d H d^T - 2 d (w D)^T with d = rounded - weight: the sum over tokens of
    (w^ x - w x~)^2 - (w (x~ - x))^2, times 2/n.

    Returns:
        float64[N]; negative where asymmetric calibration takes back more than rounding costs.
    """
    delta = rounded - weight
    errors = np.einsum("nk,nk->n", delta @ hessian, delta, dtype=np.float64)
    if drift is not None:
        errors -= 2 * np.einsum("nk,nk->n", weight @ drift, delta, dtype=np.float64)
    return errors

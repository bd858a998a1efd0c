"""Levels improved one at a time: cyclic coordinate descent on the layer's output error.

For one row, with d = w^ - w, H and g = d H - w D (the half gradient of the squared output error),
the best value of weight j with all others fixed is

    w^_j - g_j / H_jj,

rounded to its grid (Nair and Suggala 2024, CDQuant, arXiv:2406.17542, equation 4; Chee et al. 2023,
QuIP, arXiv:2307.13304, section 4.2, 'greedy updates'). After a change by c, g moves by c H[j]. No
change can make the error larger, so sweeps end where none is left or their number is reached.

Between sweeps the scales can be fitted again: for fixed levels the error is quadratic in the B
scales s of a row. With z_b the steps q - z of group b, zero elsewhere,

    sum_c (z_b H z_c^T) s_c = w (H + D) z_b^T        for every group b.

Cost of a sweep: N K comparisons and K multiplications for each level that changes; of a fit: N K^2
multiplications and N equations in B unknowns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.grids import Grids

__all__ = ["descend", "output_errors", "refit"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


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


def descend(
    weight: Floats,
    levels: Bytes,
    grids: Grids,
    hessian: Floats,
    drift: Floats | None = None,
    sweeps: int = 4,
) -> Bytes:
    """Improve levels until no single change helps, at most ``sweeps`` times over all.

    Args:
        weight: float32[N, K].
        levels: uint8[N, K] to start from; not changed.
        grids: Their grids.
        hessian: H float32[K, K].
        drift: D float32[K, K] of asymmetric calibration.
        sweeps: Most sweeps.

    Returns:
        Levels uint8[N, K], no row's output error larger than before.
    """
    best = levels.copy()
    delta = grids.real(best) - weight
    gradient = delta @ hessian
    if drift is not None:
        gradient -= weight @ drift
    scale, zero = grids.columns(weight.shape[1])
    dead = np.einsum("ii->i", hessian) <= 0
    h = np.ascontiguousarray(hessian, dtype=np.float32)
    for _ in range(sweeps):
        top = np.float32(grids.grid.top)
        if not _sweep(best, gradient, h, scale, zero, top, dead):
            break
    return best


def refit(
    weight: Floats, levels: Bytes, grids: Grids, hessian: Floats, drift: Floats | None = None
) -> Grids:
    """The scales with the least output error for fixed levels and zero points.

    A row keeps its scales where the new ones would not lower its error, or where one of them
    would vanish or change its sign.

    Args:
        weight: float32[N, K].
        levels: uint8[N, K].
        grids: The grids now.
        hessian: H float32[K, K].
        drift: D float32[K, K] of asymmetric calibration.

    Returns:
        Grids with other scales.
    """
    rows, columns = weight.shape
    count, size = grids.scale.shape[1], grids.size
    steps = levels - grids.columns(columns)[1]
    wanted = weight @ hessian
    if drift is not None:
        wanted += weight @ drift
    parts = [slice(b * size, min((b + 1) * size, columns)) for b in range(count)]
    matrix = np.empty((rows, count, count), dtype=np.float64)
    right = np.empty((rows, count, 1), dtype=np.float64)
    for b, part in enumerate(parts):
        moved = steps[:, part] @ hessian[part]
        moved *= steps
        matrix[:, b] = np.add.reduceat(moved, [p.start for p in parts], axis=1, dtype=np.float64)
        right[:, b, 0] = np.einsum("nk,nk->n", wanted[:, part], steps[:, part])
    diagonal = np.einsum("nbb->nb", matrix)
    diagonal += 1e-6 * diagonal.mean(axis=1, keepdims=True) + 1e-30  # groups of zeros
    scale = np.linalg.solve(matrix, right)[:, :, 0].astype(np.float32)
    ratio = scale / grids.scale
    lost = ~((ratio > 0.3) & (ratio < 3.0)).all(axis=1)
    scale[lost] = grids.scale[lost]
    found = Grids(grids.grid, size, scale, grids.zero)
    before, after = (output_errors(weight, g.real(levels), hessian, drift) for g in (grids, found))
    worse = after > before
    scale[worse] = grids.scale[worse]
    return found


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

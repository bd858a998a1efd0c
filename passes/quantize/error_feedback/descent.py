"""Levels improved one at a time: cyclic coordinate descent on the layer's output error.

For one row, with d = w^ - w, H and g = d H - w D (the half gradient of the squared output error),
the best value of weight j with all others fixed is

    w^_j - g_j / H_jj,

rounded to its grid (Nair and Suggala 2024, CDQuant, arXiv:2406.17542, equation 4; Chee et al. 2023,
QuIP, arXiv:2307.13304, section 4.2, 'greedy updates'). After a change by c, g moves by c H[j]. No
change can make the error larger, so sweeps end where none is left or their number is reached.

Scales can be fitted again between sweeps: for fixed levels the error is quadratic in the B scales
of a row, and the minimum solves B equations.

Cost of a sweep: N K comparisons and K multiplications for each level that changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.grids import Grids

__all__ = ["descend", "output_errors"]

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

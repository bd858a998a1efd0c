"""GPTQ and GPTAQ: columns rounded in turn, each error made good by the columns to come.

With H^-1 = U^T U and the columns in their order, column i of the (already changed) weights is
rounded and all later columns move:

    e = (w_i - q_i) / U_ii,        W[:, i:] <- W[:, i:] - e U[i, i:] + w_i P[i, i:].

The first term is GPTQ's (Frantar et al. 2022, arXiv:2210.17323, equations 2 to 5 in the Cholesky
form of section 3.3). The second makes good what quantized predecessors have done to the input
(GPTAQ, Li et al. 2025, arXiv:2504.02692, equations 14 to 18):

    P = triu(D U^T, 1) U,          D = sum (x~ - x) x^T.

Updates are lazy: inside a block of 128 columns at once, for the columns behind it as one matrix
product (section 3.3, step 2). Cost: N K^2 multiplications, K^3 for P; memory K^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.error_feedback.factor import Factor
from qcomp.passes.quantize.grids import Grids

__all__ = ["feed_back"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_BLOCK = 128
"""Columns whose errors are gathered before the columns behind them are touched."""

_STEP = 32
"""Columns of a block that the kernel takes; the rest of the block gets a matrix product."""


@kernel(fastmath=True)
def _round_columns(
    w: Any, upper: Any, carry: Any, scale: Any, zero: Any, top: Any, levels: Any, errors: Any
) -> None:
    """Round m columns of n rows in turn.

    ``w`` float32[n, m] holds on return what each weight was when its turn came; ``errors`` gets
    its error over U_ii. ``carry`` is P[m, m], or empty.
    """
    n, m = w.shape
    carried = carry.size > 0
    for r in range(n):
        row = w[r]
        for i in range(m):
            x = row[i]
            s, z = scale[r, i], zero[r, i]
            q = min(max(np.rint(x / s) + z, np.float32(0)), top)
            levels[r, i] = np.uint8(q)
            e = (x - (q - z) * s) / upper[i, i]
            errors[r, i] = e
            if carried:
                for j in range(i + 1, m):
                    row[j] += x * carry[i, j] - e * upper[i, j]
            else:
                for j in range(i + 1, m):
                    row[j] -= e * upper[i, j]


def feed_back(
    weight: Floats,
    factor: Factor,
    start: Grids,
    *,
    importance: Floats | None = None,
    order: npt.NDArray[np.intp] | None = None,
    static: bool = True,
    drift: Floats | None = None,
    block: int = _BLOCK,
) -> tuple[Bytes, Grids]:
    """Round a matrix with error feedback.

    Args:
        weight: float32[N, K], rows are output channels.
        factor: Of the inverse Hessian, its rows and columns in ``order``.
        start: What to round to.
        importance: diag(H) float32[K] for the fit of the grid, in the order of ``weight``.
        order: Which column is rounded first, second, ...; as they come by default.
        static: Whether grids stay as they are given. Else a group's grid is fitted when its turn
            comes, to the weights as they are by then; this needs columns as they come.
        drift: D float32[K, K] of asymmetric calibration, in the order of ``weight``.
        block: Columns that are updated at once; whole groups of them.

    Returns:
        Levels uint8[N, K] and their grids, in the order of ``weight``.

    Raises:
        ValueError: ``static=False`` with an order of its own.
    """
    if not static and order is not None:
        raise ValueError("groups are fitted on their turn only where columns go as they come")
    rows, columns = weight.shape
    turn = np.arange(columns) if order is None else order
    grid, size, single = start.grid, start.size, start.scale.shape[1] == 1
    if not static and not single:
        block = -(-block // size) * size
    w = np.ascontiguousarray(weight[:, turn], dtype=np.float32)
    w[:, factor.dead] = 0.0
    upper = np.ascontiguousarray(factor.upper, dtype=np.float32)
    carry = None
    if drift is not None:
        d = drift if order is None else drift[np.ix_(turn, turn)]
        carry = _carry(d, upper)
    group = (turn // size).astype(np.intp)
    levels = np.empty((rows, columns), dtype=np.uint8)
    scale, zero = start.scale.copy(), start.zero.copy()
    step = min(block, _STEP) if static or single else size
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        errors = np.empty((rows, end - begin), dtype=np.float32)
        for first in range(begin, end, step):
            part = slice(first, min(first + step, end))
            here = np.ascontiguousarray(w[:, part])
            if not static and not single:
                h = None if importance is None else importance[part]
                fitted = grid.fitted(here, h)
                b = first // size
                scale[:, b], zero[:, b] = fitted.scale[:, 0], fitted.zero[:, 0]
            own = np.ascontiguousarray(upper[part, part])
            own_carry = np.empty((0, 0), np.float32)
            if carry is not None:
                own_carry = np.ascontiguousarray(carry[part, part])
            found = np.empty(here.shape, dtype=np.uint8)
            error = np.empty_like(here)
            g = group[part]
            _round_columns(
                here, own, own_carry, scale[:, g], zero[:, g], np.float32(grid.top), found, error
            )
            w[:, part], levels[:, part] = here, found
            errors[:, first - begin : part.stop - begin] = error
            _update(w, slice(part.stop, end), part, error, here, upper, carry)
        _update(w, slice(end, columns), slice(begin, end), errors, w[:, begin:end], upper, carry)
    back = np.empty_like(turn)
    back[turn] = np.arange(columns)
    return levels[:, back], Grids(grid, size, scale, zero)


def _carry(drift: Floats, upper: Floats) -> Floats:
    """P = triu(D U^T, 1) U, by products with a triangle: half the multiplications."""
    from scipy.linalg import blas

    turned = np.triu(blas.strmm(1.0, upper, drift, side=1, trans_a=1), 1)
    return np.ascontiguousarray(blas.strmm(1.0, upper, turned, side=1))


def _update(
    w: Floats,
    later: slice,
    done: slice,
    errors: Floats,
    kept: Floats,
    upper: Floats,
    carry: Floats | None,
) -> None:
    """Move the columns ``later`` for the errors of the columns ``done``."""
    if later.start >= later.stop:
        return
    w[:, later] -= errors @ upper[done, later]
    if carry is not None:
        w[:, later] += kept @ carry[done, later]
